package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/cmdline"
	"github.com/pgmoneta/pgmoneta-go/internal/durable"
	"github.com/pgmoneta/pgmoneta-go/internal/vault"
	"github.com/pgmoneta/pgmoneta-go/internal/version"
)

// name is the name of the program in its messages.
const name = "pgmoneta-admin"

// program is one run of pgmoneta-admin with all it touches besides files.
type program struct {
	stdin      *bufio.Reader
	readHidden func() (string, error) // reads a line from the terminal without echo; nil when stdin is none
	stdout     io.Writer
	stderr     io.Writer
	env        func(string) (string, bool)
	uid        int
	loadKey    func(path string) (*vault.MasterKey, error)
	now        func() time.Time
	fs         durable.FS // through which repositories are changed
}

// request is what one command works on.
type request struct {
	args   *arguments
	length int      // of a generated password
	users  []string // for the document, set by the command
}

// run executes a command line and returns the exit code. The version exits with 1, as in C pgmoneta.
func (p *program) run(argv []string) int {
	if len(argv) > 0 && argv[0] == cmdline.Verb {
		if err := commandLine().Answer(p.stdout, argv[1:], p.values); err != nil {
			p.warn(err.Error())
			return 1
		}
		return 0
	}
	args, err := parseArguments(argv)
	if err != nil {
		p.warn(err.Error())
		p.warn("Error parsing command line")
		return 1
	}
	if args.has("version") {
		_, _ = fmt.Fprintln(p.stdout, name, version.Version)
		return 1
	}
	if args.has("help") {
		_, _ = io.WriteString(p.stdout, usage())
		return 0
	}
	if p.uid == 0 {
		p.warn("pgmoneta: Using the root account is not allowed")
		return 1
	}
	if args.unknown != "" {
		p.warn("Error: Unknown option " + args.unknown)
	}
	return p.dispatch(args)
}

// warn prints a message with the name of the program before it.
func (p *program) warn(message string) { _, _ = fmt.Fprintf(p.stderr, "%s: %s\n", name, message) }

// dispatch checks the options and runs the command.
func (p *program) dispatch(args *arguments) int {
	cmd, err := findCommand(args.words)
	if err != nil {
		p.warn(err.Error() + "\n")
		_, _ = io.WriteString(p.stdout, usage())
		return 1
	}
	asJSON, err := wantsJSON(args)
	if err != nil {
		p.warn(err.Error())
		return 1
	}
	req := &request{args: args}
	if req.length, err = passwordLength(args); err != nil {
		p.warn(err.Error())
		return 1
	}
	if cmd.needFile && args.values["file"] == "" {
		p.warn("Missing file argument")
		return 1
	}
	start := p.now()
	runErr := cmd.run(p, req)
	if runErr != nil {
		p.warn(runErr.Error())
		p.warn(failure(cmd))
	}
	doc := newDocument(cmd, asJSON, start, p.now().Sub(start), runErr == nil, req.users)
	if err := doc.write(p.stdout, asJSON); err != nil {
		p.warn(err.Error())
		return 1
	}
	if runErr != nil {
		return 1
	}
	return 0
}

// failure is the last line on stderr when a command failed.
func failure(c command) string {
	if c.name == "master-key" {
		return "Cannot generate master key"
	}
	return "Error for " + c.name
}

func wantsJSON(args *arguments) (bool, error) {
	switch format, given := args.values["format"]; {
	case !given, format == "text":
		return false, nil
	case format == "json":
		return true, nil
	}
	return false, complain("Format type is not correct")
}

func passwordLength(args *arguments) (int, error) {
	text, given := args.values["length"]
	if !given {
		return 64, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > 1024 {
		return 0, complain("Invalid password length: %s", text)
	}
	return n, nil
}

// masterKeyPath returns the place of the master key.
func (p *program) masterKeyPath() (string, error) {
	home, _ := p.env("HOME")
	if home == "" {
		return "", errors.New("the environment variable HOME is not set: it names the directory that holds .pgmoneta/master.key")
	}
	return vault.MasterKeyPath(home), nil
}

func (p *program) masterKey(req *request) error {
	path, err := p.masterKeyPath()
	if err != nil {
		return err
	}
	// Before anything is asked: a key that cannot be stored need not be typed.
	err = vault.MasterKeyFree(path)
	if errors.Is(err, fs.ErrExist) {
		return complain("The file ~/.pgmoneta/master.key already exists (%s)", path)
	}
	if err != nil {
		return err
	}
	key, err := p.password(req, passwordKind{prompt: "Master key: ", check: vault.CheckPassphrase})
	if err != nil {
		return err
	}
	return vault.CreateMasterKey(path, key)
}

func (p *program) userAdd(req *request) error {
	return p.storeUser(req, vault.AddUser, func(names []string, user string) error {
		for _, n := range names {
			if n == user {
				return complain("Existing user: %s", user)
			}
		}
		return nil
	})
}

func (p *program) userEdit(req *request) error {
	return p.storeUser(req, vault.EditUser, func(names []string, user string) error {
		for _, n := range names {
			if n == user {
				return nil
			}
		}
		return complain("User not found: %s", user)
	})
}

// storeUser asks for a user and a password and stores both. check sees the users of the file before the password is asked.
func (p *program) storeUser(req *request, store func(string, *vault.MasterKey, string, vault.Secret) error, check func([]string, string) error) error {
	path, err := p.masterKeyPath()
	if err != nil {
		return err
	}
	master, err := p.loadKey(path)
	if err != nil {
		return err
	}
	file := req.args.values["file"]
	names, err := vault.UserNames(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	user, err := p.userName(req)
	if err != nil {
		return err
	}
	if err := check(names, user); err != nil {
		return err
	}
	password, err := p.password(req, passwordKind{prompt: "Password : ", check: vault.CheckPassword, show: true})
	if err != nil {
		return err
	}
	if err := store(file, master, user, password); err != nil {
		return err
	}
	req.users = []string{user}
	return nil
}

func (p *program) userDelete(req *request) error {
	user, err := p.userName(req)
	if err != nil {
		return err
	}
	if err := vault.DeleteUser(req.args.values["file"], user); err != nil {
		return err
	}
	req.users = []string{user}
	return nil
}

func (p *program) userList(req *request) error {
	names, err := vault.UserNames(req.args.values["file"])
	if err != nil {
		return err
	}
	for _, n := range names {
		if _, err := fmt.Fprintln(p.stdout, n); err != nil {
			return err
		}
	}
	req.users = names
	return nil
}
