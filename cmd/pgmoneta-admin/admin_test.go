package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/durable"
	"github.com/pgmoneta/pgmoneta-go/internal/vault"
)

// sharedKey stands for every master key, because deriving a key takes long under the race detector.
var sharedKey = sync.OnceValues(func() (*vault.MasterKey, error) {
	return vault.NewMasterKey(vault.NewSecret("masterkey123"), make([]byte, vault.SaltSize))
})

// loadShared checks a master key file and returns sharedKey.
func loadShared(path string) (*vault.MasterKey, error) {
	if _, err := vault.LoadMasterKey(path); err != nil {
		return nil, err
	}
	return sharedKey()
}

// admin is a home directory in which commands are run.
type admin struct {
	t    *testing.T
	env  map[string]string
	uid  int
	file string // users file
	fs   durable.FS
	load func(path string) (*vault.MasterKey, error)
}

func newAdmin(t *testing.T) *admin {
	dir := t.TempDir()
	return &admin{t: t, env: map[string]string{"HOME": dir}, uid: 1000, file: filepath.Join(dir, "users.conf"), fs: durable.OS{}, load: loadShared}
}

// withKey creates the master key first.
func withKey(t *testing.T) *admin {
	a := newAdmin(t)
	a.mustRun("", "master-key", "-P", "masterkey123")
	return a
}

// run executes a command line with an input and returns exit code and output.
func (a *admin) run(input string, args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	clock := time.Date(2026, 11, 21, 12, 36, 12, 0, time.UTC)
	p := program{
		stdin: bufio.NewReader(strings.NewReader(input)), stdout: &out, stderr: &errs, uid: a.uid, loadKey: a.load,
		env: func(name string) (string, bool) { v, ok := a.env[name]; return v, ok },
		now: func() time.Time { return clock }, fs: a.fs,
	}
	code = p.run(args)
	return code, out.String(), errs.String()
}

func (a *admin) mustRun(input string, args ...string) string {
	a.t.Helper()
	code, stdout, stderr := a.run(input, args...)
	if code != 0 {
		a.t.Fatalf("%q: exit code %d, stderr %q", args, code, stderr)
	}
	return stdout
}

// password decrypts what the users file holds.
func (a *admin) password(user string) string {
	a.t.Helper()
	key, err := a.load(vault.MasterKeyPath(a.env["HOME"]))
	if err != nil {
		a.t.Fatal(err)
	}
	users, err := vault.LoadUsers(a.file, key)
	if err != nil {
		a.t.Fatal(err)
	}
	password, ok := users.Lookup(user)
	if !ok {
		a.t.Fatalf("user %s is not in the file", user)
	}
	return password.Reveal()
}

func TestUserAddDocument(t *testing.T) {
	t.Parallel()
	a := withKey(t)
	a.load = vault.LoadMasterKey
	want := `Header:
  ClientVersion: 0.22.0
  Command: 101
  Compression: 0
  Encryption: 0
  Output: 0
  Timestamp: 20261121123612
Outcome:
  Status: true
  Time: 00:00:0.0000
Response:
  Users:
    - repl
`
	if got := a.mustRun("", "-f", a.file, "user", "add", "-U", "repl", "-P", "secret"); got != want {
		t.Errorf("stdout is\n%s\nwant\n%s", got, want)
	}
	if got := a.password("repl"); got != "secret" {
		t.Errorf("password is %q", got)
	}
}

func TestUserLifeInJSON(t *testing.T) {
	t.Parallel()
	a := withKey(t)
	base := []string{"-F", "json", "-f", a.file}
	for _, step := range []struct {
		args  []string
		code  float64
		users any
	}{
		{[]string{"user", "add", "-U", "one", "-P", "x"}, 101, []any{"one"}},
		{[]string{"user", "add", "--user=two", "--password=-x"}, 101, []any{"two"}},
		{[]string{"user", "edit", "-U", "one", "-P", "y"}, 102, []any{"one"}},
		{[]string{"user", "del", "-U", "two"}, 103, []any{"two"}},
		{[]string{"user", "del", "-U", "one"}, 103, []any{"one"}},
		{[]string{"user", "ls"}, 104, map[string]any{}},
	} {
		out := a.mustRun("", append(base, step.args...)...)
		var doc struct {
			Header   map[string]any
			Outcome  map[string]any
			Response map[string]any
		}
		if err := json.Unmarshal([]byte(out), &doc); err != nil {
			t.Fatalf("%q: %v in %s", step.args, err, out)
		}
		got, _ := json.Marshal(doc.Response["Users"])
		want, _ := json.Marshal(step.users)
		if doc.Header["Command"] != step.code || doc.Header["Output"] != 1.0 || doc.Outcome["Status"] != true || string(got) != string(want) {
			t.Errorf("%q answers %s", step.args, out)
		}
	}
}

func TestUserListPrintsNamesFirst(t *testing.T) {
	t.Parallel()
	a := withKey(t)
	a.mustRun("", "-f", a.file, "user", "add", "-U", "one", "-g")
	a.mustRun("", "-f", a.file, "user", "add", "-U", "two", "-g")
	if out := a.mustRun("", "user", "ls", "-f", a.file); !strings.HasPrefix(out, "one\ntwo\nHeader:\n") || !strings.HasSuffix(out, "  Users:\n    - one\n    - two\n") {
		t.Errorf("stdout is %q", out)
	}
}

func TestLongGeneratedPasswordsSurviveEdits(t *testing.T) {
	t.Parallel()
	a := withKey(t)
	a.mustRun("", "-f", a.file, "user", "add", "-U", "repl", "-g", "-l", "1024")
	a.mustRun("", "-f", a.file, "user", "add", "-U", "other", "-P", "x")
	out := a.mustRun("", "-f", a.file, "user", "edit", "-U", "repl", "-g")
	m := regexp.MustCompile(`(?m)^Password : (.{64})$`).FindStringSubmatch(out)
	if m == nil {
		t.Fatalf("stdout is %q", out)
	}
	if got := a.password("repl"); got != m[1] {
		t.Errorf("password is %q, printed was %q", got, m[1])
	}
	if got := a.password("other"); got != "x" {
		t.Errorf("password of the other user is %q", got)
	}
}

func TestPasswordSourcesInOrder(t *testing.T) {
	t.Parallel()
	a := withKey(t)
	a.env[passwordVariable] = "from environment"
	a.mustRun("", "-f", a.file, "user", "add", "-U", "one", "-P", "from option", "-g")
	a.mustRun("", "-f", a.file, "user", "add", "-U", "two")
	delete(a.env, passwordVariable)
	out := a.mustRun("three\nfirst\nsecond\nfrom prompt\nfrom prompt", "-f", a.file, "user", "add")
	for user, want := range map[string]string{"one": "from option", "two": "from environment", "three": "from prompt"} {
		if got := a.password(user); got != want {
			t.Errorf("password of %s is %q, want %q", user, got, want)
		}
	}
	if !strings.HasPrefix(out, "User name: Password : Verify   : Password : Verify   : Header:") {
		t.Errorf("prompts are %q", out)
	}
}

func TestHiddenPromptIsUsedOnATerminal(t *testing.T) {
	t.Parallel()
	a := withKey(t)
	var out, errs bytes.Buffer
	asked := 0
	p := program{
		stdin: bufio.NewReader(strings.NewReader("")), stdout: &out, stderr: &errs, uid: 1000, loadKey: a.load, now: time.Now,
		env:        func(name string) (string, bool) { v, ok := a.env[name]; return v, ok },
		readHidden: func() (string, error) { asked++; return "typed", nil },
	}
	if code := p.run([]string{"-f", a.file, "user", "add", "-U", "u"}); code != 0 || asked != 2 || a.password("u") != "typed" {
		t.Errorf("exit code %d, asked %d times, stderr %q", code, asked, errs.String())
	}
}

func TestMasterKey(t *testing.T) {
	t.Parallel()
	a := newAdmin(t)
	path := vault.MasterKeyPath(a.env["HOME"])
	for _, args := range [][]string{{"-P", "short"}, {"-P", strings.Repeat("x", 94)}, {"-g", "-l", "94"}, {}} {
		code, out, errs := a.run("", append([]string{"master-key"}, args...)...)
		if code != 1 || !strings.Contains(out, "Outcome:\n  Error: 1\n  Status: false\n  Workflow: admin\n") || !strings.Contains(errs, "Cannot generate master key") {
			t.Errorf("%q: exit code %d, stdout %q, stderr %q", args, code, out, errs)
		}
		if _, err := os.Stat(path); err == nil {
			t.Fatalf("%q left a file behind", args)
		}
	}
	a.mustRun("", "master-key", "-g")
	if _, err := vault.LoadMasterKey(path); err != nil {
		t.Error(err)
	}
	code, _, errs := a.run("", "master-key", "-P", "another key")
	if code != 1 || !strings.Contains(errs, "The file ~/.pgmoneta/master.key already exists") {
		t.Errorf("second key: exit code %d, stderr %q", code, errs)
	}
	if err := os.Chmod(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if code, _, errs := a.run("", "master-key", "-g"); code != 1 || !strings.Contains(errs, "chmod 0700") {
		t.Errorf("open directory: exit code %d, stderr %q", code, errs)
	}
}

func TestMasterKeyFromPromptAsksUntilItIsGood(t *testing.T) {
	t.Parallel()
	a := newAdmin(t)
	code, out, errs := a.run("short\nlong enough\nlong enough\n", "master-key")
	if code != 0 || !strings.HasPrefix(out, "Master key: Master key: Verify   : ") || !strings.Contains(errs, "at least 8") {
		t.Errorf("exit code %d, stdout %q, stderr %q", code, out, errs)
	}
}

func TestCommandLineErrors(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		args   []string
		stderr string
	}{
		{nil, "pgmoneta-admin: A command is required\n\n"},
		{[]string{"frob"}, "pgmoneta-admin: Unknown command 'frob'\n\n"},
		{[]string{"user"}, "pgmoneta-admin: Command 'user' requires a subcommand\n\n"},
		{[]string{"user", "frob"}, "pgmoneta-admin: Unknown subcommand 'frob' for command 'user'\n\n"},
		{[]string{"user", "add", "x"}, "pgmoneta-admin: Too many arguments provided for command 'user add'\n\n"},
		{[]string{"master-key", "x"}, "pgmoneta-admin: Too many arguments provided for command 'master-key'\n\n"},
		{[]string{"--frob", "user"}, "pgmoneta-admin: Error: Unknown option --frob\npgmoneta-admin: Unknown command '--frob'\n\n"},
		{[]string{"user", "ls", "-f"}, "pgmoneta-admin: Error: Option -f requires an argument\npgmoneta-admin: Error parsing command line\n"},
		{[]string{"user", "ls", "-f", "-g"}, "pgmoneta-admin: Error: Option -f requires an argument\npgmoneta-admin: Error parsing command line\n"},
		{[]string{"user", "ls"}, "pgmoneta-admin: Missing file argument\n"},
		{[]string{"user", "ls", "-f", "x", "-F", "raw"}, "pgmoneta-admin: Format type is not correct\n"},
		{[]string{"master-key", "-l", "1025"}, "pgmoneta-admin: Invalid password length: 1025\n"},
	} {
		code, _, errs := newAdmin(t).run("", tt.args...)
		if code != 1 || errs != tt.stderr {
			t.Errorf("%q: exit code %d, stderr %q, want 1, %q", tt.args, code, errs, tt.stderr)
		}
	}
}

func TestVersionHelpAndRoot(t *testing.T) {
	t.Parallel()
	a := newAdmin(t)
	a.uid = 0
	if code, out, _ := a.run("", "-V"); code != 1 || out != "pgmoneta-admin 0.22.0\n" {
		t.Errorf("-V: exit code %d, stdout %q", code, out)
	}
	if code, out, _ := a.run("", "user", "--help"); code != 0 || out != usage() {
		t.Errorf("--help: exit code %d, stdout %q", code, out)
	}
	if code, _, errs := a.run("", "master-key", "-g"); code != 1 || errs != "pgmoneta-admin: pgmoneta: Using the root account is not allowed\n" {
		t.Errorf("as root: exit code %d, stderr %q", code, errs)
	}
}

func TestCompletionAsRoot(t *testing.T) {
	t.Parallel()
	a := newAdmin(t)
	a.uid = 0
	if code, out, _ := a.run("", "completion", "words", "--", "master-key", ""); code != 0 || out != "rotate\treplace the master key and seal with the new one what the old one has sealed\n" {
		t.Errorf("completion: exit code %d, stdout %q", code, out)
	}
	if code, _, errs := a.run("", "completion", "tcsh"); code != 1 || !strings.Contains(errs, "bash, zsh, fish") {
		t.Errorf("completion tcsh: exit code %d, stderr %q", code, errs)
	}
}

func TestFailuresNameReasonAndCommand(t *testing.T) {
	t.Parallel()
	a := withKey(t)
	a.mustRun("", "-f", a.file, "user", "add", "-U", "repl", "-P", "x")
	noHome := newAdmin(t)
	delete(noHome.env, "HOME")
	noKey := newAdmin(t)
	for _, tt := range []struct {
		admin  *admin
		args   []string
		stderr []string
	}{
		{a, []string{"user", "add", "-U", "repl", "-P", "x"}, []string{"Existing user: repl", "Error for user add"}},
		{a, []string{"user", "edit", "-U", "nobody", "-P", "x"}, []string{"User not found: nobody", "Error for user edit"}},
		{a, []string{"user", "del", "-U", "nobody"}, []string{"User not found: nobody", "Error for user del"}},
		{a, []string{"user", "add", "-U", "a:b", "-P", "x"}, []string{"colon", "Error for user add"}},
		{a, []string{"user", "add", "-U", "new"}, []string{"input ended", "Error for user add"}},
		{noHome, []string{"user", "add", "-U", "u", "-P", "x"}, []string{"HOME is not set", "Error for user add"}},
		{noKey, []string{"user", "add", "-U", "u", "-P", "x"}, []string{"pgmoneta-admin master-key", "Error for user add"}},
		{noKey, []string{"user", "ls"}, []string{"no such file", "Error for user ls"}},
	} {
		code, out, errs := tt.admin.run("", append([]string{"-f", tt.admin.file}, tt.args...)...)
		if code != 1 || !strings.Contains(out, "Workflow: admin") {
			t.Errorf("%q: exit code %d, stdout %q", tt.args, code, out)
		}
		for _, part := range tt.stderr {
			if !strings.Contains(errs, part) {
				t.Errorf("%q: stderr %q, want %q in it", tt.args, errs, part)
			}
		}
	}
}

func TestGeneratedPasswordsFitAUsersFile(t *testing.T) {
	t.Parallel()
	if got, want := len(passwordCharacters), 26+26+10+28; got != want {
		t.Errorf("%d characters, want %d", got, want)
	}
	if strings.ContainsAny(passwordCharacters, "#;`~ ") {
		t.Error("a character that ends a line of a users file is among them")
	}
	one, err := generatePassword(1024)
	if err != nil || len(one) != 1024 {
		t.Fatalf("%d characters, %v", len(one), err)
	}
	if two, _ := generatePassword(1024); one == two {
		t.Error("two generated passwords are the same")
	}
}

func TestElapsed(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		d    time.Duration
		want string
	}{{336900 * time.Microsecond, "00:00:0.3369"}, {3*time.Hour + 25*time.Minute + 45*time.Second, "03:25:45.0000"}} {
		if got := formatElapsed(tt.d); got != tt.want {
			t.Errorf("formatElapsed(%v) = %s, want %s", tt.d, got, tt.want)
		}
	}
}
