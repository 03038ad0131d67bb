package pgtest

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// An account is the operating system user that servers and tools run as: postgres when the test runs as root, because
// PostgreSQL refuses to run as root, else the user of the test.
type account struct {
	name       string
	switchUser bool
	uid, gid   int
}

func serverAccount() (account, error) {
	if os.Geteuid() != 0 {
		return account{name: "the user of the test"}, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return account{}, fmt.Errorf("servers cannot run as root and user postgres is missing; mend: test/install/postgres.sh: %w", err)
	}
	uid, err := strconv.Atoi(u.Uid)
	if err != nil {
		return account{}, fmt.Errorf("user postgres: uid: %w", err)
	}
	gid, err := strconv.Atoi(u.Gid)
	if err != nil {
		return account{}, fmt.Errorf("user postgres: gid: %w", err)
	}
	return account{name: "postgres", switchUser: true, uid: uid, gid: gid}, nil
}

// command prepares a program to run as this account in dir. Of the environment only PATH is kept: what PG* variables
// or a locale of the developer change must not change a test.
func (a account) command(dir, program string, args ...string) *exec.Cmd {
	cmd := exec.Command(program, args...)
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "LC_ALL=C", "TZ=UTC"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if a.switchUser {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(a.uid), Gid: uint32(a.gid)}
	}
	return cmd
}

// run runs a program to its end and returns what it printed; the error holds it too.
func (a account) run(dir, program string, args ...string) (string, error) {
	return runCommand(a.command(dir, program, args...))
}

func runCommand(cmd *exec.Cmd) (string, error) {
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, out.Bytes())
	}
	return out.String(), nil
}

// mkdir creates a directory that belongs to the account.
func (a account) mkdir(path string, mode fs.FileMode) error {
	if err := os.Mkdir(path, mode); err != nil {
		return err
	}
	return a.own(path)
}

// own gives one file or directory to the account.
func (a account) own(path string) error {
	if !a.switchUser {
		return nil
	}
	return os.Lchown(path, a.uid, a.gid)
}

// ownTree gives everything below root to the account.
func (a account) ownTree(root string) error {
	if !a.switchUser {
		return nil
	}
	return filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return a.own(path)
	})
}

// openWay lets the account pass through the directories above path, which testing.T.TempDir creates for their owner
// only. Directories at and above [os.TempDir] are left alone.
func (a account) openWay(path string) error {
	if !a.switchUser {
		return nil
	}
	stop := filepath.Clean(os.TempDir())
	for dir := filepath.Dir(path); strings.HasPrefix(dir, stop+"/"); dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil {
			return err
		}
		if err := os.Chmod(dir, info.Mode().Perm()|0o011); err != nil {
			return err
		}
	}
	return nil
}

// trusts reports whether path belongs to this account or to the user of the test.
func (a account) trusts(path string) bool {
	var st syscall.Stat_t
	err := syscall.Lstat(path, &st)
	return err == nil && (int(st.Uid) == os.Geteuid() || a.switchUser && int(st.Uid) == a.uid)
}

// Own gives a directory tree to the user that servers run as, and lets that user pass through the directories above
// it. A server that is to write into a directory of the test, or to read from it, needs this.
func Own(t testing.TB, dir string) {
	t.Helper()
	a, err := serverAccount()
	if err != nil {
		t.Fatal(err)
	}
	if err := a.ownTree(dir); err != nil {
		t.Fatalf("give %s to %s: %v", dir, a.name, err)
	}
	if err := a.openWay(dir); err != nil {
		t.Fatalf("let %s reach %s: %v", a.name, dir, err)
	}
}

// Command prepares a program to run in dir as the user that servers run as, with
// dir as its home and a clean environment. The caller starts and ends it.
func Command(t testing.TB, dir, program string, args ...string) *exec.Cmd {
	t.Helper()
	a, err := serverAccount()
	if err != nil {
		t.Fatal(err)
	}
	return a.command(dir, program, args...)
}
