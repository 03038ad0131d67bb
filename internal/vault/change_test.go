package vault

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// changing is a home directory with a master key and two users.
func changing(t *testing.T) (key, users string) {
	t.Helper()
	key = home(t)
	if err := CreateMasterKey(key, NewSecret("the old passphrase")); err != nil {
		t.Fatal(err)
	}
	master, err := LoadMasterKey(key)
	if err != nil {
		t.Fatal(err)
	}
	// In the directory of the key: their locks must not meet.
	users = filepath.Join(filepath.Dir(key), "users.conf")
	if err := os.WriteFile(users, []byte("# comment\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, user := range []string{"repl", "other"} {
		if err := AddUser(users, master, user, NewSecret("password of "+user)); err != nil {
			t.Fatal(err)
		}
	}
	return key, users
}

func newPassphrase() (Secret, error) { return NewSecret("the new passphrase"), nil }

func checkUsers(t *testing.T, step, key, users string) {
	t.Helper()
	master, err := LoadMasterKey(key)
	if err != nil {
		t.Fatalf("%s: %v", step, err)
	}
	list, err := LoadUsers(users, master)
	if err != nil {
		t.Fatalf("%s: %v", step, err)
	}
	if p, _ := list.Lookup("other"); p.Reveal() != "password of other" || len(list.Names()) != 2 {
		t.Errorf("%s: users %v", step, list.Names())
	}
}

// TestBothKeysAreValidDuringAChange stops after each step and goes on in another process.
func TestBothKeysAreValidDuringAChange(t *testing.T) {
	t.Parallel()
	key, users := changing(t)
	old, err := LoadMasterKey(key)
	if err != nil {
		t.Fatal(err)
	}
	never := func() (Secret, error) { return Secret{}, errors.New("asked for a passphrase again") }
	steps := []struct {
		name string
		do   func(*Change) error
	}{
		{"begin", func(*Change) error { return nil }},
		{"reseal", func(c *Change) error { return ResealUsers(users, c.Either()) }},
		{"reseal again", func(c *Change) error { return ResealUsers(users, c.Either()) }},
		{"finish", func(c *Change) error { _, err := c.Finish(time.Unix(0, 0)); return err }},
	}
	ask := newPassphrase
	for _, s := range steps {
		c, err := BeginChange(key, ask)
		if err != nil {
			t.Fatalf("%s: %v", s.name, err)
		}
		if err := s.do(c); err != nil {
			t.Fatalf("%s: %v", s.name, err)
		}
		c.Close()
		checkUsers(t, s.name, key, users)
		ask = never
	}
	if _, err := LoadUsers(users, old); !errors.Is(err, ErrSealed) {
		t.Errorf("the old key still opens the users file: %v", err)
	}
	if _, err := LoadMasterKey(key + ".19700101000000"); err != nil {
		t.Errorf("the old key was not kept: %v", err)
	}
	if _, err := os.Stat(key + nextSuffix); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s%s is still there: %v", key, nextSuffix, err)
	}
}

func TestResealLeavesAFileAloneThatItCannotOpen(t *testing.T) {
	t.Parallel()
	_, users := changing(t)
	before, err := os.ReadFile(users)
	if err != nil {
		t.Fatal(err)
	}
	if err := ResealUsers(users, testKey()); !errors.Is(err, ErrSealed) {
		t.Errorf("reseal with a foreign key: %v, want ErrSealed", err)
	}
	if after, _ := os.ReadFile(users); string(after) != string(before) {
		t.Error("the file was changed")
	}
	missing := filepath.Join(t.TempDir(), "none")
	if err := ResealUsers(missing, testKey()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("reseal of no file: %v, want ErrNotExist", err)
	}
}

func TestBothKeysTravelToAWorker(t *testing.T) {
	t.Parallel()
	key, _ := changing(t)
	c, err := BeginChange(key, newPassphrase)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	object, err := c.New.Seal([]byte("text"), AES256)
	if err != nil {
		t.Fatal(err)
	}
	both, err := LoadMasterKey(key)
	if err != nil {
		t.Fatal(err)
	}
	wire, err := both.Wire()
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(wire)
	if err != nil {
		t.Fatal(err)
	}
	var back MasterWire
	if err := json.Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
	got, err := back.Key()
	if err != nil || len(got.Valid()) != 2 {
		t.Fatalf("%d keys came through, %v", len(got.Valid()), err)
	}
	if text, err := got.Open(object, AES256); err != nil || string(text) != "text" {
		t.Errorf("Open in the worker: %q, %v", text, err)
	}
	a, errA := c.New.Fingerprint()
	d, errD := got.Valid()[1].Fingerprint()
	if err := errors.Join(errA, errD); err != nil || a != d || len(a) != 16 {
		t.Errorf("fingerprints %q and %q, %v", a, d, err)
	}
}

func TestKeyFileNoticesAChange(t *testing.T) {
	t.Parallel()
	path, _ := changing(t)
	f := NewKeyFile(path)
	first, err := f.Load()
	if err != nil {
		t.Fatal(err)
	}
	if again, _ := f.Load(); again != first {
		t.Error("an unchanged file was read again")
	}
	c, err := BeginChange(path, newPassphrase)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	during, err := f.Load()
	if err != nil || len(during.Valid()) != 2 {
		t.Fatalf("during the change %d keys, %v", len(during.Valid()), err)
	}
	if _, err := c.Finish(time.Now()); err != nil {
		t.Fatal(err)
	}
	after, err := f.Load()
	if err != nil || len(after.Valid()) != 1 {
		t.Fatalf("after the change %d keys, %v", len(after.Valid()), err)
	}
	a, errA := after.Fingerprint()
	b, errB := c.New.Fingerprint()
	if err := errors.Join(errA, errB); err != nil || a != b {
		t.Errorf("fingerprint %q, want that of the new key %q, %v", a, b, err)
	}
}

func TestDerivedSecretIsKeptBesideItsKeyOnly(t *testing.T) {
	t.Parallel()
	path, _ := changing(t)
	secret := func() string {
		t.Helper()
		key, err := LoadMasterKeyQuick(path)
		if err != nil {
			t.Fatal(err)
		}
		m, err := key.MasterSecret()
		if err != nil {
			t.Fatal(err)
		}
		return string(m)
	}
	first := secret()
	if info, err := os.Stat(path + derivedSuffix); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v: want a file of mode 0600", info, err)
	}
	if secret() != first {
		t.Error("the kept secret is another one")
	}
	if _, ok := readDerived(path+derivedSuffix, make([]byte, 32)); ok {
		t.Error("the secret of another key was accepted")
	}
	for _, spoiled := range []string{"", "AAAA", "no base64"} {
		if err := os.WriteFile(path+derivedSuffix, []byte(spoiled), 0o600); err != nil {
			t.Fatal(err)
		}
		if secret() != first {
			t.Errorf("with %q in the file another secret was derived", spoiled)
		}
	}
	c, err := BeginChange(path, newPassphrase)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Finish(time.Now()); err != nil {
		t.Fatal(err)
	}
	if secret() == first {
		t.Error("the secret of the old key is used with the new one")
	}
}
