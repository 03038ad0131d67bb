package pgtest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// hba is the pg_hba.conf of every server; see the package comment.
const hba = `local all         all              trust
local replication all              trust
host  all         all 127.0.0.1/32 scram-sha-256
host  replication all 127.0.0.1/32 scram-sha-256
`

// A clusterKind tells apart the clusters that initdb can make.
type clusterKind struct {
	major       int
	segmentMiB  int
	noChecksums bool
}

func (k clusterKind) String() string {
	name := fmt.Sprintf("template-%d-%dMB", k.major, k.segmentMiB)
	if k.noChecksums {
		name += "-nochecksums"
	}
	return name
}

// makeCluster puts a new cluster into dataDir: a copy of the cached one of its kind.
func makeCluster(a account, k clusterKind, dataDir string) error {
	cache, err := cacheDir()
	if err != nil {
		return err
	}
	template, err := ensureTemplate(a, k, cache)
	if err != nil {
		return err
	}
	_, err = a.run(filepath.Dir(dataDir), "cp", "-a", "--reflink=auto", template, dataDir)
	return err
}

// ensureTemplate returns the cached cluster of a kind and makes it if it is missing. Under its final name it is
// complete; the lock lets test processes that run side by side make it once.
func ensureTemplate(a account, k clusterKind, cache string) (_ string, err error) {
	final := filepath.Join(cache, k.String())
	if exists(final) {
		return final, nil
	}
	unlock, err := lockFile(final + ".lock")
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	if exists(final) {
		return final, nil
	}
	building := final + ".new"
	if err := os.RemoveAll(building); err != nil {
		return "", err
	}
	if err := a.mkdir(building, 0o700); err != nil {
		return "", err
	}
	if err := initCluster(a, k, building); err != nil {
		return "", err
	}
	return final, os.Rename(building, final)
}

// initCluster runs initdb in an existing empty directory and adds the role and the access rules.
func initCluster(a account, k clusterKind, dataDir string) error {
	bin, err := binDir(k.major)
	if err != nil {
		return err
	}
	args := []string{"-D", dataDir, "-U", "postgres", "-A", "trust", "--locale=C", "-E", "UTF8", "--no-sync",
		fmt.Sprintf("--wal-segsize=%d", k.segmentMiB)}
	switch {
	case !k.noChecksums:
		args = append(args, "--data-checksums")
	case k.major >= 18:
		args = append(args, "--no-data-checksums")
	}
	if _, err := a.run(dataDir, filepath.Join(bin, "initdb"), args...); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dataDir, "pg_hba.conf"), []byte(hba), 0o600); err != nil {
		return err
	}
	return createRole(a, bin, dataDir)
}

// createRole creates the replication role without starting a server. In single-user mode a statement ends with its line.
func createRole(a account, bin, dataDir string) error {
	cmd := a.command(dataDir, filepath.Join(bin, "postgres"), "--single", "-D", dataDir, "postgres")
	cmd.Stdin = strings.NewReader(fmt.Sprintf("create role %s login replication password '%s'\ngrant pg_monitor to %s\n",
		ReplUser, ReplPassword, ReplUser))
	out, err := runCommand(cmd)
	if err == nil && strings.Contains(out, "ERROR") {
		err = fmt.Errorf("create role %s: %s", ReplUser, out)
	}
	return err
}

// lockFile waits for an exclusive lock and returns the function that ends it.
func lockFile(path string) (unlock func() error, err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return f.Close, nil
}
