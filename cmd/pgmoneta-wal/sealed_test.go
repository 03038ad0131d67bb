package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/pgmoneta/pgmoneta-go/internal/vault"
)

func TestSealedArchive(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	base := filepath.Join(s.dir, "base")
	s.configure("[pgmoneta]\nbase_dir = " + base + "\nencryption = aes-192\n[primary]\n")
	key := vault.MasterKeyPath(s.dir)
	s.must(vault.CreateMasterKey(key, vault.NewSecret("a passphrase of the test")))
	s.archive(3)
	history := []byte("1\t0/300000\tno recovery target specified\n")
	s.write("00000002.history", history)
	if out, code := s.push("primary", "00000002.history"); code != exitOK {
		t.Fatalf("push of a history: %d, %s", code, out)
	}
	// Again, as PostgreSQL does after a crash: it is compared.
	if out, code := s.push("primary", "00000002.history"); code != exitOK {
		t.Fatalf("second push of a history: %d, %s", code, out)
	}
	stored, err := os.ReadFile(s.object(1))
	s.must(err)
	if bytes.Contains(stored, content(1, 7)[100:140]) || stored[20] != 2 {
		t.Errorf("the stored segment is legible, or of cipher %d", stored[20])
	}
	stored, err = os.ReadFile(filepath.Join(base, "primary", "wal", "00000002.history"))
	if err != nil || bytes.Contains(stored, []byte("recovery")) {
		t.Errorf("the stored history is legible: %v", err)
	}

	for _, options := range [][]string{{"--prefetch", "0"}, nil} {
		for n := range 3 {
			if out, code := s.get("primary", segment(n), options...); code != exitOK || out != "" {
				t.Fatalf("get %s: %d, %s", segment(n), code, out)
			}
			s.delivered(n)
		}
	}
	if out, code := s.get("primary", "00000002.history"); code != exitOK {
		t.Errorf("get of a history: %d, %s", code, out)
	}
	got, err := os.ReadFile(filepath.Join(s.data, "pg_wal", "RECOVERYXLOG"))
	if err != nil || !bytes.Equal(got, history) {
		t.Errorf("history %q, %v", got, err)
	}
	if out, code := s.get("primary", "00000003.history"); code != exitNo {
		t.Errorf("get of a history that is not there: %d, %s", code, out)
	}

	// No key must never look like the end of the archive: recovery would stop there.
	s.must(os.Rename(key, key+".moved"))
	for _, file := range []string{segment(1), "00000002.history"} {
		out, code := s.get("primary", file, "--prefetch", "0")
		if code != exitFailure {
			t.Errorf("get %s without the master key: %d, want %d", file, code, exitFailure)
		}
		says(t, out, file, key, "give the user")
	}
	s.must(vault.CreateMasterKey(key, vault.NewSecret("another passphrase")))
	out, code := s.get("primary", segment(1), "--prefetch", "0")
	if code != exitFailure {
		t.Errorf("get with another master key: %d, want %d", code, exitFailure)
	}
	says(t, out, segment(1), "key/1/1", "fingerprint")
	s.write(segment(4), content(4, 7))
	if out, code := s.push("primary", segment(4)); code != exitFailure {
		t.Errorf("push with another master key: %d, want %d: %s", code, exitFailure, out)
	}
}
