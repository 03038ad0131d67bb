package restore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// fakeProgram writes a program that ends with a status, and returns the command.
func fakeProgram(t *testing.T, status int) *Command {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, WALProgram)
	script := fmt.Sprintf("#!/bin/sh\necho \"asked: $*\" >&2\nexit %d\n", status)
	if err := os.WriteFile(path, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	c := FindCommand(filepath.Join(dir, "pgmoneta"), filepath.Join(dir, "pgmoneta 1%.conf"))
	if c == nil || c.Program != path {
		t.Fatalf("found %+v, want %s", c, path)
	}
	return c
}

func TestWALIsSuppliedByTheCommandWhereItWorks(t *testing.T) {
	f := branched(t)
	works, fails := fakeProgram(t, 0), fakeProgram(t, 200)
	tests := []struct {
		name, backup, position string
		command                *Command
		ask, want              Supply
		why                    string
		copied                 int
	}{
		{"it works", second, "latest", works, AnySupply, CommandSupply, "", 2},
		{"it fails", second, "latest", fails, AnySupply, CopySupply, "asked: check -c", 9},
		{"there is none", second, "latest", nil, AnySupply, CopySupply, "was not found", 9},
		{"copying is asked for", second, "latest", works, CopySupply, CopySupply, "asked for", 9},
		{"nothing after the backup is needed", second, "", works, AnySupply, CopySupply, "all that is needed", 2},
		{"little after the backup is needed", second, "immediate", works, AnySupply, CopySupply, "little more", 3},
		{"asked for with little needed", second, "immediate", works, CommandSupply, CommandSupply, "", 2},
		{"the position has one", second, "latest,restore_command=cp /a/%f %p", works, AnySupply, CopySupply, "the position sets", 9},
		{"a replica", third, "replica", works, AnySupply, CommandSupply, "", 1},
	}
	for _, tt := range tests {
		target, err := ParsePosition(tt.position)
		f.must(err)
		p, err := MakePlan(context.Background(), f.Repository, Options{Backup: tt.backup, Target: target, Directory: t.TempDir(), WAL: tt.ask, Command: tt.command})
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if p.Supply != tt.want || !strings.Contains(p.SupplyWhy, tt.why) || len(p.Segments) != tt.copied {
			t.Errorf("%s: %s, %d segments, %q; want %s, %d, %q", tt.name, p.Supply, len(p.Segments), p.SupplyWhy, tt.want, tt.copied, tt.why)
		}
		if tt.want == CommandSupply && !strings.Contains(conf(p), " get --partial -c '"+strings.ReplaceAll(tt.command.Config, "%", "%%")) {
			t.Errorf("%s: settings\n%s", tt.name, conf(p))
		}
	}
	target, err := ParsePosition("latest")
	f.must(err)
	_, err = MakePlan(context.Background(), f.Repository, Options{Backup: second, Target: target, Directory: t.TempDir(), WAL: CommandSupply, Command: fails})
	if !errors.As(err, new(*OptionError)) || !strings.Contains(err.Error(), "does not work here") {
		t.Errorf("asked for and not working: %v", err)
	}
	_, err = MakePlan(context.Background(), f.Repository, Options{Backup: second, Target: target, Directory: t.TempDir(), WAL: "tape"})
	if !errors.As(err, new(*OptionError)) {
		t.Errorf("an unknown supply: %v", err)
	}
}

// conf is what the plan's settings look like to PostgreSQL once it has unquoted them.
func conf(p *Plan) string {
	var b strings.Builder
	for _, s := range p.Settings {
		fmt.Fprintf(&b, "%s = %s\n", s.Name, s.Value)
	}
	return b.String()
}

// PostgreSQL would replay what the old timeline wrote after it was left: it asks the
// archive before it looks into pg_wal, where the segment could be cut.
func TestWALIsCopiedWhereASegmentHasToBeCut(t *testing.T) {
	f := newFixture(t)
	f.plainBackup(summary(first, 1, 3, 3))
	f.segments(1, 3, 9)
	f.history(2, "1 0/980000")
	target, err := ParsePosition("latest")
	f.must(err)
	p, err := MakePlan(context.Background(), f.Repository, Options{Backup: first, Target: target, Directory: t.TempDir(), Command: fakeProgram(t, 0)})
	if err != nil || p.Supply != CopySupply || !strings.Contains(p.SupplyWhy, "only what lies before 0/980000") {
		t.Errorf("%+v, %v", p, err)
	}
}

// PostgreSQL reads ahead of its target and would be stopped by the hole behind it.
func TestWALIsCopiedWhereAHoleFollowsTheTarget(t *testing.T) {
	f := newFixture(t)
	f.plainBackup(summary(first, 1, 3, 3))
	f.segments(1, 3, 5)
	f.segments(1, 7, 9)
	target, err := ParsePosition("lsn=0/500000")
	f.must(err)
	p, err := MakePlan(context.Background(), f.Repository, Options{Backup: first, Target: target, Directory: t.TempDir(), Command: fakeProgram(t, 0)})
	if err != nil || p.Supply != CopySupply || !strings.Contains(p.SupplyWhy, "a hole in WAL begins at 0/600000") || len(p.Segments) != 3 {
		t.Errorf("%+v, %v", p, err)
	}
}

func TestShellWordsAreQuoted(t *testing.T) {
	for word, want := range map[string]string{"/usr/bin/pgmoneta-wal": "/usr/bin/pgmoneta-wal", "": "''", "a b": "'a b'", "it's": `'it'\''s'`, "$HOME": "'$HOME'", "a;b": "'a;b'"} {
		if got := shellWord(word); got != want {
			t.Errorf("shellWord(%q) = %s, want %s", word, got, want)
		}
	}
}

func TestPreviewTellsEverythingThatIsInTheWay(t *testing.T) {
	f := branched(t)
	f.must(os.Remove(filepath.Join(f.Dir(), "wal/00000001", f.name(1, 8))))
	f.must(os.Remove(filepath.Join(f.Dir(), "wal/00000002", f.name(2, 10))))
	dir := t.TempDir()
	f.must(os.WriteFile(filepath.Join(dir, "letter"), nil, 0o600))
	target, err := ParsePosition("latest")
	f.must(err)
	p, problems := Preview(context.Background(), f.Repository, Options{Backup: second, Target: target, Directory: dir, Exact: true})
	r := p.Report(problems)
	if len(r.Problems) != 2 || len(r.Holes) != 2 || r.Backup.Label != second || r.WALEnd != 8*mib || r.Need == 0 || r.Free == 0 || r.Speed == 0 {
		t.Errorf("%+v", r)
	}
	if len(r.Nearest) != 2 || r.Nearest[0].Position != "immediate" || r.Nearest[1].Backup != third {
		t.Errorf("nearest %+v", r.Nearest)
	}
	if got := contents(t, dir); len(got) != 1 {
		t.Errorf("the preview left %v", got)
	}
}

func TestSpeedOfTheLastRestoreIsTheEstimateOfTheNext(t *testing.T) {
	f := deltaFixture(t)
	if bytes, from := expectedSpeed(f.Repository); bytes != assumedSpeed || !strings.Contains(from, "assumed") {
		t.Errorf("before any restore: %d, %s", bytes, from)
	}
	f.must(Run(context.Background(), planIn(f, t.TempDir(), first, ""), RunOptions{}))
	if bytes, from := expectedSpeed(f.Repository); bytes == assumedSpeed || !strings.Contains(from, "the restore of backup "+first) {
		t.Errorf("after one: %d, %s", bytes, from)
	}
}
