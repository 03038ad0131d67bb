package rehearse

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestParseChecks(t *testing.T) {
	t.Parallel()
	list, err := ParseChecks("checks", strings.NewReader("# all rows\n\n app : SELECT count(*) > 0 FROM a::text \npostgres: SELECT true\n"))
	want := []Check{{"app", "SELECT count(*) > 0 FROM a::text"}, {"postgres", "SELECT true"}}
	if err != nil || !slices.Equal(list, want) {
		t.Errorf("%q, %v", list, err)
	}
	_, err = ParseChecks("checks", strings.NewReader("SELECT 1\napp:\n: SELECT true\n"))
	for _, at := range []string{"checks:1:", "checks:2:", "checks:3:"} {
		if err == nil || !strings.Contains(err.Error(), at) {
			t.Errorf("%v does not name %s", err, at)
		}
	}
	if _, err := ParseChecks("checks", strings.NewReader(strings.Repeat("x", maxLine+1))); err == nil || !strings.Contains(err.Error(), "checks:1:") {
		t.Errorf("an endless line: %v", err)
	}
}

func TestVersions(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]int{
		"postgres (PostgreSQL) 17.6 (Debian 17.6-1.pgdg13+1)\n": 17,
		"postgres (PostgreSQL) 18beta1\n":                       18,
		"postgres (PostgreSQL)":                                 0,
		"postgres 17.6":                                         0,
		"":                                                      0,
	} {
		if got := majorOf(parseVersion(line)); got != want {
			t.Errorf("%q: %d, want %d", line, got, want)
		}
	}
}

func TestFindPrograms(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	bin := filepath.Join(dir, "16", "bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	script := "#!/bin/sh\necho 'postgres (PostgreSQL) 16.4'\n"
	if err := os.WriteFile(filepath.Join(bin, "postgres"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	pattern := filepath.Join(dir, "%v", "bin")
	p, err := FindPrograms(context.Background(), pattern, 16)
	if err != nil || p.Dir != bin || p.Version != "16.4" {
		t.Errorf("%+v, %v", p, err)
	}
	var none *NoProgramsError
	if _, err := FindPrograms(context.Background(), bin, 17); !errors.As(err, &none) || none.Tried[0] != bin {
		t.Errorf("programs of another version: %v", err)
	}
}

func TestControlSettings(t *testing.T) {
	t.Parallel()
	got := controlSettings("wal_level setting:                    replica\nmax_connections setting:              137\n" +
		"max_prepared_xacts setting:           3\nmax_locks_per_xact setting:           64\ntrack_commit_timestamp setting:       off\nmax_wal_senders setting: x\n")
	want := []string{"max_connections = 137", "max_prepared_transactions = 3", "max_locks_per_transaction = 64"}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestReadReplay(t *testing.T) {
	t.Parallel()
	r := readReplay("1795285200.100 LOG:  starting point-in-time recovery\n1795285200.250 LOG:  redo starts at 0/5000028\n" +
		"1795285201.000 LOG:  consistent recovery state reached at 0/5000120\n" +
		"1795285202.750 LOG:  redo done at 1/A0 system usage: CPU: user: 0.01 s\nno time LOG:  redo starts at 0/1\n")
	if r.from != 0x5000028 || r.to != 0x1000000A0 || r.elapsed != 2500*time.Millisecond {
		t.Errorf("%+v", r)
	}
}

func TestReapLeavesOtherProcessesAlone(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	for _, content := range []string{"", "x\n", "1\n", "999999999\n"} {
		if err := os.WriteFile(filepath.Join(data, "postmaster.pid"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := reap(t.Context(), data); err != nil {
			t.Errorf("%q: %v", content, err)
		}
	}
	if err := reap(t.Context(), filepath.Join(data, "missing")); err != nil {
		t.Error(err)
	}
}

// A rehearsal that was killed left its private directory, or the link alone; a link that
// leads elsewhere is no leave to remove what is there.
func TestClearRemovesThePrivateDirectory(t *testing.T) {
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	scratch := t.TempDir()
	for _, made := range []bool{true, false} {
		if err := os.MkdirAll(directory(scratch), 0o700); err != nil {
			t.Fatal(err)
		}
		private, err := makePrivate(directory(scratch))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(private, "log"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if !made {
			if err := os.RemoveAll(private); err != nil {
				t.Fatal(err)
			}
		}
		if err := Clear(t.Context(), scratch); err != nil {
			t.Fatal(err)
		}
		for _, dir := range []string{temp, scratch} {
			if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
				t.Errorf("made %t: %v, %v are left", made, left, err)
			}
		}
	}
	other := t.TempDir()
	if err := os.Mkdir(directory(scratch), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(other, filepath.Join(directory(scratch), privateLink)); err != nil {
		t.Fatal(err)
	}
	if err := Clear(t.Context(), scratch); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(other); err != nil {
		t.Error(err)
	}
}

func FuzzReadReplay(f *testing.F) {
	f.Add("1795285200.250 LOG:  redo starts at 0/5000028\n1795285202.750 LOG:  redo done at 1/A0 system usage\n")
	f.Add("NaN LOG:  redo starts at \n")
	f.Fuzz(func(_ *testing.T, log string) { readReplay(log) })
}

func FuzzParseChecks(f *testing.F) {
	f.Add("app: SELECT true\n# no\n")
	f.Fuzz(func(t *testing.T, content string) {
		list, err := ParseChecks("f", strings.NewReader(content))
		for _, c := range list {
			if c.Database == "" || c.Query == "" {
				t.Errorf("%q, %v", list, err)
			}
		}
	})
}
