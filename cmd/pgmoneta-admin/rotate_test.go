package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pgmoneta/pgmoneta-go/internal/config"
	"github.com/pgmoneta/pgmoneta-go/internal/container"
	"github.com/pgmoneta/pgmoneta-go/internal/durable"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
	"github.com/pgmoneta/pgmoneta-go/internal/vault"
)

const segment = "000000010000000000000001"

var text = bytes.Repeat([]byte("planted text... "), 1<<16)

// rotatable is an admin with a master key, a users file, and a configuration whose base_dir has a sealed, a plain and a foreign directory.
func rotatable(t *testing.T) *admin {
	t.Helper()
	a := newAdmin(t)
	a.load = vault.LoadMasterKey
	a.mustRun("", "master-key", "-P", "the old master key")
	a.mustRun("", "-f", a.file, "user", "add", "-U", "repl", "-P", "secret")
	a.configure(filepath.Join(a.env["HOME"], "base"))
	for _, accounts := range []string{config.UsersName, config.AdminsName} { // those of this machine must not matter
		if err := os.WriteFile(filepath.Join(a.env["HOME"], accounts), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for server, cipher := range map[string]container.Cipher{"sealed": container.AES256, "plain": container.Plain} {
		r := a.repository(server, cipher)
		if err := r.Bind(context.Background(), repo.OwnerWAL, "1"); err != nil {
			t.Fatal(err)
		}
		if _, err := r.StoreSegment(context.Background(), segment, 1<<20, bytes.NewReader(text), container.Zstd, 1); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(a.base(), "lost+found"), 0o700); err != nil {
		t.Fatal(err)
	}
	return a
}

// configure sets base_dir.
func (a *admin) configure(base string) {
	a.t.Helper()
	err := os.MkdirAll(base, 0o700)
	if err == nil {
		err = os.WriteFile(filepath.Join(a.env["HOME"], "pgmoneta.conf"), []byte("[pgmoneta]\nbase_dir = "+base+"\n"), 0o600)
	}
	if err != nil {
		a.t.Fatal(err)
	}
	a.env["BASE"] = base
}

func (a *admin) base() string { return a.env["BASE"] }

func (a *admin) repository(server string, cipher container.Cipher) *repo.Repository {
	a.t.Helper()
	r, err := repo.Open(durable.OS{}, a.base(), server)
	if err != nil {
		a.t.Fatal(err)
	}
	key := vault.NewKeyFile(vault.MasterKeyPath(a.env["HOME"]))
	r.UseKeys(repo.Keys{Cipher: cipher, Master: key.Load})
	return r
}

func (a *admin) rotate(words ...string) (code int, stderr string) {
	args := append([]string{"-D", a.env["HOME"], "-f", a.file}, words...)
	code, _, stderr = a.run("", args...)
	return code, stderr
}

// readable checks that whoever loads the master key now can read everything.
func (a *admin) readable(when string) {
	a.t.Helper()
	for _, server := range []string{"sealed", "plain"} {
		seg, err := a.repository(server, container.Plain).OpenSegment(context.Background(), segment)
		if err != nil {
			a.t.Fatalf("%s: %v", when, err)
		}
		var scratch container.Scratch
		got, err := seg.ReadFrame(0, &scratch)
		if err != nil || !bytes.Equal(got, text) {
			a.t.Fatalf("%s: %d bytes, %v", when, len(got), err)
		}
		scratch.Close()
		_ = seg.Close()
	}
	if got := a.password("repl"); got != "secret" {
		a.t.Fatalf("%s: password is %q", when, got)
	}
}

func TestMasterKeyRotate(t *testing.T) {
	t.Parallel()
	a := rotatable(t)
	before, err := vault.LoadMasterKey(vault.MasterKeyPath(a.env["HOME"]))
	if err != nil {
		t.Fatal(err)
	}
	code, stderr := a.rotate("master-key", "rotate", "-P", "the new master key")
	if code != 0 || !strings.Contains(stderr, "1 repositories and 3 files") || !strings.Contains(stderr, "master.key.20261121123612") {
		t.Fatalf("exit code %d, %s", code, stderr)
	}
	a.readable("after the rotation")
	after, err := vault.LoadMasterKey(vault.MasterKeyPath(a.env["HOME"]))
	if err != nil {
		t.Fatal(err)
	}
	x, _ := before.Fingerprint()
	y, _ := after.Fingerprint()
	if x == y {
		t.Error("the master key is the same as before")
	}
	key, err := os.ReadFile(filepath.Join(a.base(), "sealed", "key", "1", "2"))
	if err != nil || !strings.Contains(string(key), y) {
		t.Errorf("key/1/2 is %s, %v: want a wrap with %s", key, err, y)
	}
	if _, err := os.Stat(filepath.Join(a.base(), "sealed", "key", "1", "1")); err == nil {
		t.Error("the wrap with the old master key is still there")
	}
}

func TestKeyRotate(t *testing.T) {
	t.Parallel()
	a := rotatable(t)
	for _, tt := range []struct {
		words []string
		code  int
		says  string
	}{
		{[]string{"key", "rotate"}, 0, `server "sealed": new objects are sealed with key 2`},
		{[]string{"key", "rotate", "-s", "sealed"}, 0, "key 3"},
		{[]string{"key", "rotate", "-s", "plain"}, 1, `server "plain"`},
		{[]string{"key", "rotate", "-c", "/nonexistent.conf"}, 1, "/nonexistent.conf"},
		{[]string{"key"}, 1, "subcommand"},
		{[]string{"master-key", "turn"}, 1, "Too many arguments"},
	} {
		if code, stderr := a.rotate(tt.words...); code != tt.code || !strings.Contains(stderr, tt.says) {
			t.Errorf("%q: exit code %d, %s: want %d and %q", tt.words, code, stderr, tt.code, tt.says)
		}
	}
	a.readable("after the rotation")
}

// TestPowerCutWhileTheMasterKeyRotates cuts the power at some operations on the repository (the tests of the repository do at each, with keys that
// cost nothing to derive). What is left must be readable with the key file as it is then, and the next run must come to the end.
func TestPowerCutWhileTheMasterKeyRotates(t *testing.T) {
	t.Parallel()
	for cut, done := 1, false; !done; cut += 9 {
		a := rotatable(t)
		fsys, err := durable.NewPowerCut(a.base(), cut)
		if err != nil {
			t.Fatal(err)
		}
		a.fs = fsys
		code, _ := a.rotate("master-key", "rotate", "-P", "the new master key")
		done = code == 0 && fsys.Ops() < cut
		fsys.Cut()
		after := t.TempDir()
		if err := fsys.Image(after); err != nil {
			t.Fatal(err)
		}
		a.configure(after)
		a.fs = durable.OS{}
		when := fmt.Sprintf("cut at operation %d", cut)
		a.readable(when)
		if done {
			break
		}
		if code, stderr := a.rotate("master-key", "rotate", "-P", "another new master key"); code != 0 {
			t.Fatalf("%s: the next run ends with %d: %s", when, code, stderr)
		}
		a.readable(when + ", after the next run")
	}
}
