package restore

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pgmoneta/pgmoneta-go/internal/job"
)

// shaped plans a restore of the first backup of a fixture.
func shaped(f *fixture, o Options) (*Plan, error) {
	o.Backup = first
	return MakePlan(context.Background(), f.Repository, o)
}

func TestTablespacesGoWhereTheyAreSent(t *testing.T) {
	f := deltaFixture(t)
	dir := t.TempDir()
	tests := []struct {
		name string
		o    Options
		want string
	}{
		{"beside", Options{}, filepath.Join(dir, "data-tblspc_fast disk")},
		{"by name", Options{Tablespaces: []Mapping{{"fast disk", filepath.Join(dir, "a")}}}, filepath.Join(dir, "a")},
		{"by OID", Options{Tablespaces: []Mapping{{"16385", filepath.Join(dir, "b")}}}, filepath.Join(dir, "b")},
		{"by path", Options{Tablespaces: []Mapping{{"/srv/fast/", filepath.Join(dir, "c")}}}, filepath.Join(dir, "c")},
		{"in place", Options{InPlace: true}, "/srv/fast"},
		{"in place, but this one", Options{InPlace: true, Tablespaces: []Mapping{{"16385", filepath.Join(dir, "d")}}}, filepath.Join(dir, "d")},
		{"none of this name", Options{Tablespaces: []Mapping{{"fast", filepath.Join(dir, "a")}}}, `!it has "fast disk" (16385, /srv/fast)`},
		{"twice", Options{Tablespaces: []Mapping{{"16385", filepath.Join(dir, "a")}, {"fast disk", filepath.Join(dir, "b")}}}, "!it is sent to"},
		{"into the data directory", Options{Tablespaces: []Mapping{{"16385", filepath.Join(dir, "data/x")}}}, "!one lies in the other"},
		{"around the data directory", Options{WALDirectory: dir}, "!one lies in the other"},
		{"WAL beside a tablespace", Options{WALDirectory: filepath.Join(dir, "a"), Tablespaces: []Mapping{{"16385", filepath.Join(dir, "a")}}}, "!one lies in the other"},
		{"WAL at no absolute path", Options{WALDirectory: "wal"}, "!an absolute path is needed"},
	}
	for _, tt := range tests {
		tt.o.Directory, tt.o.Exact = filepath.Join(dir, "data"), true
		p, err := shaped(f, tt.o)
		if why, refused := strings.CutPrefix(tt.want, "!"); refused {
			if !errors.As(err, new(*OptionError)) || !strings.Contains(err.Error(), why) {
				t.Errorf("%s: %v, want an OptionError with %q", tt.name, err, why)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
		} else if got := p.Tablespaces[0].Directory; got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}

func TestRestoreToOtherDirectories(t *testing.T) {
	f := deltaFixture(t)
	dir := t.TempDir()
	data, space, wal := filepath.Join(dir, "data"), filepath.Join(dir, "space"), filepath.Join(dir, "wal")
	p, err := shaped(f, Options{Directory: data, Exact: true, WALDirectory: wal, Tablespaces: []Mapping{{"16385", space}}})
	f.must(err)
	f.must(Run(context.Background(), p, RunOptions{}))
	for link, want := range map[string]string{"pg_wal": wal, "pg_tblspc/16385": space} {
		if to, err := os.Readlink(filepath.Join(data, link)); err != nil || to != want {
			t.Errorf("%s leads to %q, %v; want %s", link, to, err, want)
		}
	}
	if got := contents(t, wal); got[f.name(1, 3)] != walText(1, 3) || got["archive_status/"+f.name(1, 3)+".done"] != "" {
		t.Errorf("pg_wal holds %d names", len(got))
	}
	if got := contents(t, space)["PG_17/5/2000"]; got != plain()["pg_tblspc/16385/PG_17/5/2000"] {
		t.Error("the tablespace is not in its directory")
	}
	// A delta restore finds both by the links.
	p, err = shaped(f, Options{Directory: data, Delta: true})
	f.must(err)
	if p.WALDirectory != wal || p.Tablespaces[0].Directory != space {
		t.Errorf("a delta restore goes to %s and %s", p.WALDirectory, p.Tablespaces[0].Directory)
	}
	f.must(Run(context.Background(), p, RunOptions{}))
	// With one of them foreign, nothing is touched.
	f.must(os.WriteFile(filepath.Join(wal, "letter"), nil, 0o600))
	if _, err = shaped(f, Options{Directory: data, Delta: true}); !errors.As(err, new(*OccupiedError)) {
		t.Errorf("over a foreign WAL directory: %v", err)
	}
}

func TestOwnerIsForRoot(t *testing.T) {
	if _, err := ParseOwner("nobody:no such group"); !errors.As(err, new(*OptionError)) {
		t.Errorf("an unknown group: %v", err)
	}
	if _, err := ParseOwner("no such user"); !errors.As(err, new(*OptionError)) {
		t.Errorf("an unknown user: %v", err)
	}
	o, err := ParseOwner("65534:65534")
	if os.Geteuid() != 0 {
		if !errors.As(err, new(*OptionError)) || !strings.Contains(err.Error(), "only root") {
			t.Errorf("as another user than root: %v", err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	f := deltaFixture(t)
	dir := t.TempDir()
	p, err := shaped(f, Options{Directory: filepath.Join(dir, "data"), Exact: true, WALDirectory: filepath.Join(dir, "wal"), Owner: o})
	f.must(err)
	f.must(Run(context.Background(), p, RunOptions{}))
	for _, name := range []string{"data", "data/global/pg_control", "data/base/5/1259", "data/pg_wal", "data/pg_tblspc/16385", "wal", "wal/" + f.name(1, 3), "data-tblspc_fast disk/PG_17"} {
		info, err := os.Lstat(filepath.Join(dir, name))
		if err != nil || ownerID(info) != 65534 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
}

func TestParseSpecRefuses(t *testing.T) {
	for _, s := range []job.RestoreSpec{{Position: "never"}, {Tablespaces: []string{"fast"}}, {Tablespaces: []string{"fast=relative"}}, {Tablespaces: []string{"=/x"}}, {Owner: "no such user"}} {
		if _, err := ParseSpec("newest", s); !IsRefusal(err) {
			t.Errorf("%+v: %v", s, err)
		}
	}
	o, err := ParseSpec("newest", job.RestoreSpec{Tablespaces: []string{"a=b=/srv/x/", "/old/dir=/new"}})
	if err != nil || o.Tablespaces[0] != (Mapping{"a=b", "/srv/x"}) || o.Tablespaces[1] != (Mapping{"/old/dir", "/new"}) {
		t.Errorf("%+v, %v", o.Tablespaces, err)
	}
}
