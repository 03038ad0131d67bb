package pgtest

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
)

// Bin returns the directory of the programs of a server, and installs it first when it is missing.
func Bin(t testing.TB, major int) string {
	t.Helper()
	bin, err := binDir(major)
	if err != nil {
		t.Fatal(err)
	}
	return bin
}

// Tool returns the path of a client tool: that of the major if it has it, else that of 18, which works against all
// servers. pg_verifybackup and pg_waldump must match the major exactly: use [ToolExact] for them.
func Tool(t testing.TB, major int, name string) string {
	t.Helper()
	if path, ok := ToolExact(t, major, name); ok {
		return path
	}
	path, ok := ToolExact(t, toolMajor, name)
	if !ok {
		t.Fatalf("PostgreSQL %d has no program %s in %s", toolMajor, name, Bin(t, toolMajor))
	}
	return path
}

// ToolExact returns the path of a tool that belongs to this very major, and whether there is one. The servers of 14
// and 16 come with initdb, pg_ctl and postgres only; for them "pg_verifybackup --no-parse-wal" of 18 works.
func ToolExact(t testing.TB, major int, name string) (string, bool) {
	t.Helper()
	path := filepath.Join(Bin(t, major), name)
	info, err := os.Stat(path)
	return path, err == nil && info.Mode()&0o111 != 0
}

func binDir(major int) (string, error) {
	out, err := runInstall(strconv.Itoa(major))
	if err != nil {
		return "", err
	}
	_, bin, found := strings.Cut(out, " ")
	if !found {
		return "", fmt.Errorf("test/install/postgres.sh %d printed %q: want the major and a directory", major, out)
	}
	return bin, nil
}

// cacheDir returns the directory outside the tree that holds servers and template clusters.
func cacheDir() (string, error) {
	return runInstall("--cache-dir")
}

// runInstall runs the installation script, which alone knows what is where, and returns the line it printed.
// It takes some 10 ms when nothing is to be done.
func runInstall(arg string) (string, error) {
	script, err := installScript()
	if err != nil {
		return "", err
	}
	cmd := exec.Command(script, arg)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("PostgreSQL for the tests is missing and could not be installed; mend: %s %s: %w\n%s",
			script, arg, err, stderr.Bytes())
	}
	return strings.TrimSpace(string(out)), nil
}

// installScript finds the script beside this package, or below the module root when the binary was built with
// -trimpath. go test runs a test binary in the directory of its package.
func installScript() (string, error) {
	_, file, _, _ := runtime.Caller(0)
	beside := filepath.Join(filepath.Dir(file), "..", "install", "postgres.sh")
	if filepath.IsAbs(beside) && exists(beside) {
		return beside, nil
	}
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; dir != "/"; dir = filepath.Dir(dir) {
		script := filepath.Join(dir, "test", "install", "postgres.sh")
		if exists(script) && exists(filepath.Join(dir, "go.mod")) {
			return script, nil
		}
	}
	return "", fmt.Errorf("test/install/postgres.sh was not found: run the tests inside the source tree")
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
