package vault

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// Limits of a users file, in bytes.
const (
	MaxUserName  = 127
	MaxPassword  = 8191
	maxUsersFile = 16 << 20
)

// A LineError reports a bad line of a users, admins or password file. It never shows the line, which holds a password.
type LineError struct {
	Path    string
	Line    int
	Message string
	Err     error // cause, may be nil
}

func (e *LineError) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("%s:%d: %s: %v", e.Path, e.Line, e.Message, e.Err)
	}
	return fmt.Sprintf("%s:%d: %s", e.Path, e.Line, e.Message)
}

func (e *LineError) Unwrap() error { return e.Err }

// A UserError reports a user that is there already, or is not there.
type UserError struct {
	Path string
	User string
	Err  error // fs.ErrExist or fs.ErrNotExist
}

func (e *UserError) Error() string {
	if errors.Is(e.Err, fs.ErrExist) {
		return fmt.Sprintf("Existing user: %s (in %s)", e.User, e.Path)
	}
	return fmt.Sprintf("User not found: %s (in %s)", e.User, e.Path)
}

func (e *UserError) Unwrap() error { return e.Err }

// Users are the entries of a users or admins file. They do not change.
type Users struct {
	names     []string
	passwords map[string]Secret
}

// LoadUsers reads and decrypts a users or admins file. Every bad line is an error: a [*LineError], several joined.
func LoadUsers(path string, master *MasterKey) (*Users, error) {
	data, err := readBounded(path, maxUsersFile)
	if err != nil {
		return nil, fmt.Errorf("read users: %w", err)
	}
	return ParseUsers(path, data, master)
}

// ParseUsers decrypts the content of a users file. name is used in messages. Of several entries for one user the first counts.
func ParseUsers(name string, data []byte, master *MasterKey) (*Users, error) {
	users := &Users{passwords: map[string]Secret{}}
	var errs []error
	for i, line := range splitLines(data) {
		entry, err := parseEntry(line)
		if err != nil {
			errs = append(errs, &LineError{name, i + 1, err.Error(), nil})
			continue
		}
		if _, known := users.passwords[entry.user]; known || entry.user == "" {
			continue
		}
		password, err := master.openPassword(entry.sealed)
		if err != nil {
			errs = append(errs, &LineError{name, i + 1, fmt.Sprintf("entry of user %q", entry.user), err})
			continue
		}
		users.names = append(users.names, entry.user)
		users.passwords[entry.user] = password
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return users, nil
}

// Names returns the users in file order.
func (u *Users) Names() []string { return slices.Clone(u.names) }

// Lookup returns the password of a user.
func (u *Users) Lookup(user string) (Secret, bool) {
	password, ok := u.passwords[user]
	return password, ok
}

// Has reports whether there is such a user.
func (u *Users) Has(user string) bool {
	_, ok := u.passwords[user]
	return ok
}

// entry is one line of a users file. A line without an entry has no user.
type entry struct{ user, sealed string }

// parseEntry reads a line without decrypting it. What follows a second colon is ignored, as in C pgmoneta.
func parseEntry(line string) (entry, error) {
	if i := strings.IndexAny(line, "#;"); i >= 0 {
		line = line[:i]
	}
	line = strings.TrimSpace(line)
	if line == "" {
		return entry{}, nil
	}
	user, rest, ok := strings.Cut(line, ":")
	if !ok {
		return entry{}, errors.New("the line is not of the form user:password; remove it and add the user with pgmoneta-admin user add")
	}
	if err := CheckUserName(user); err != nil {
		return entry{}, err
	}
	sealed, _, _ := strings.Cut(rest, ":")
	return entry{user, strings.TrimSpace(sealed)}, nil
}

// CheckUserName returns what is wrong with a user name: it is valid UTF-8 of 1 to 127 bytes without colon, #, semicolon, control characters, or blanks at its ends.
func CheckUserName(user string) error {
	switch {
	case user == "":
		return errors.New("the user name is empty")
	case len(user) > MaxUserName:
		return fmt.Errorf("the user name is longer than %d bytes", MaxUserName)
	case !utf8.ValidString(user) || strings.ContainsAny(user, ":#;") || strings.ContainsFunc(user, unicode.IsControl):
		return errors.New("the user name contains a colon, #, a semicolon, a control character or is not UTF-8")
	case strings.TrimSpace(user) != user:
		return errors.New("the user name begins or ends with a blank")
	}
	return nil
}

// CheckPassword returns what is wrong with a password for a users file: it is valid UTF-8 of 1 to 8191 bytes without a zero byte.
func CheckPassword(password Secret) error {
	text := password.Reveal()
	switch {
	case text == "":
		return errors.New("the password is empty")
	case len(text) > MaxPassword:
		return fmt.Errorf("the password is longer than %d bytes", MaxPassword)
	case !utf8.ValidString(text) || strings.ContainsRune(text, 0):
		return errors.New("the password is not valid UTF-8 without zero bytes")
	}
	return nil
}

// splitLines returns the lines of a file without their ends.
func splitLines(data []byte) []string {
	var lines []string
	for line := range bytes.Lines(data) {
		lines = append(lines, string(bytes.TrimRight(line, "\r\n")))
	}
	return lines
}

// UserNames returns the users of a file in its order, each once, without decrypting anything. The error is a [*LineError] for a malformed line.
func UserNames(path string) ([]string, error) {
	data, err := readBounded(path, maxUsersFile)
	if err != nil {
		return nil, fmt.Errorf("read users: %w", err)
	}
	var names []string
	for i, line := range splitLines(data) {
		e, err := parseEntry(line)
		if err != nil {
			return nil, &LineError{path, i + 1, err.Error(), nil}
		}
		if e.user != "" && !slices.Contains(names, e.user) {
			names = append(names, e.user)
		}
	}
	return names, nil
}

// AddUser appends an entry to a users file, which is made when it is missing. A user who is there already is a [*UserError].
func AddUser(path string, master *MasterKey, user string, password Secret) error {
	return storeUser(path, master, user, password, func(lines []string, at int, line string) ([]string, error) {
		if at >= 0 {
			return nil, fs.ErrExist
		}
		return append(lines, line), nil
	})
}

// EditUser replaces the password of a user in a users file. An unknown user is a [*UserError].
func EditUser(path string, master *MasterKey, user string, password Secret) error {
	return storeUser(path, master, user, password, func(lines []string, at int, line string) ([]string, error) {
		if at < 0 {
			return nil, fs.ErrNotExist
		}
		lines[at] = line
		return lines, nil
	})
}

// DeleteUser removes a user from a users file. An unknown user is a [*UserError].
func DeleteUser(path, user string) error {
	return editUsers(path, user, func(lines []string, at int) ([]string, error) {
		if at < 0 {
			return nil, fs.ErrNotExist
		}
		return slices.Delete(lines, at, at+1), nil
	})
}

// storeUser seals a password and lets place put its line into the file.
func storeUser(path string, master *MasterKey, user string, password Secret, place func([]string, int, string) ([]string, error)) error {
	if err := errors.Join(CheckUserName(user), CheckPassword(password)); err != nil {
		return err
	}
	sealed, err := master.sealPassword(password)
	if err != nil {
		return err
	}
	return editUsers(path, user, func(lines []string, at int) ([]string, error) {
		return place(lines, at, user+":"+sealed)
	})
}

// editUsers rewrites a users file. change gets its lines and the index of the user's first entry, -1 when there is none; comments stay as they
// are, further entries of the same user, which never counted, are dropped. A malformed line is a [*LineError] and nothing is written.
func editUsers(path, user string, change func(lines []string, at int) ([]string, error)) error {
	return replaceUsers(path, func(path string, data []byte) ([]string, error) {
		lines, at, err := findUser(path, data, user)
		if err != nil {
			return nil, err
		}
		if lines, err = change(lines, at); err != nil {
			return nil, &UserError{path, user, err}
		}
		return lines, nil
	})
}

// replaceUsers replaces the lines of a users file, which need not exist, by what change makes of its content.
func replaceUsers(path string, change func(path string, data []byte) ([]string, error)) error {
	path, err := resolve(path)
	if err != nil {
		return fmt.Errorf("users file: %w", err)
	}
	unlock, err := lockDir(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer unlock()
	data, err := readBounded(path, maxUsersFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read users: %w", err)
	}
	lines, err := change(path, data)
	if err != nil {
		return err
	}
	content := strings.Join(lines, "\n")
	if content != "" {
		content += "\n"
	}
	return writeFile(path, []byte(content), replaceExisting)
}

// findUser returns the lines of a file with only the first entry of user, and its index.
func findUser(path string, data []byte, user string) (lines []string, at int, err error) {
	at = -1
	for i, line := range splitLines(data) {
		e, err := parseEntry(line)
		if err != nil {
			return nil, 0, &LineError{path, i + 1, err.Error(), nil}
		}
		if e.user == user {
			if at >= 0 {
				continue
			}
			at = len(lines)
		}
		lines = append(lines, line)
	}
	return lines, at, nil
}

// lockDir keeps other processes from editing files of a directory at the same time. The file itself cannot hold the lock, since it is replaced.
func lockDir(path string) (unlock func(), err error) {
	d, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("lock directory: %w", err)
	}
	for {
		err = unix.Flock(int(d.Fd()), unix.LOCK_EX)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		_ = d.Close()
		return nil, fmt.Errorf("lock directory %s: %w", path, err)
	}
	return func() { _ = d.Close() }, nil
}
