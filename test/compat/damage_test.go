package compat

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/pgmoneta/pgmoneta-go/internal/foreign"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
	"github.com/pgmoneta/pgmoneta-go/test/pgtest"
)

const damagedLabel = "20261121100000"

// damages are what is done to a backup, and what a restore then says. Verification names
// the same.
func damages() []struct {
	name string
	do   func(t *testing.T, dir string)
	want error // nil: the restore succeeds nevertheless
} {
	edit := func(t *testing.T, path string, change func([]byte) []byte) {
		b, err := os.ReadFile(path)
		must(t, err)
		must(t, os.Remove(path)) // it may be a link
		must(t, os.WriteFile(path, change(b), 0o600))
	}
	cutInfo := func(key string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			edit(t, filepath.Join(dir, "backup.info"), func(b []byte) []byte { return b[:bytes.Index(b, []byte(key))+len(key)] })
		}
	}
	link := func(target string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			path := someFile(t, dir)
			must(t, os.Remove(path))
			must(t, os.Symlink(target, path))
		}
	}
	manifest := func(old, new string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			edit(t, filepath.Join(dir, "data", "backup_manifest"), func(b []byte) []byte { return bytes.Replace(b, []byte(old), []byte(new), 1) })
		}
	}
	return []struct {
		name string
		do   func(t *testing.T, dir string)
		want error
	}{
		{"nothing", func(*testing.T, string) {}, nil},
		{"backup.info cut off in a position", cutInfo("END_WALPOS=0/"), nil},
		{"backup.info cut off before what follows STATUS", cutInfo("STATUS=1\n"), nil},
		{"backup.info empty", cutInfo(""), nil},
		{"backup.info with blank lines and odd ones", func(t *testing.T, dir string) {
			edit(t, filepath.Join(dir, "backup.info"), func(b []byte) []byte {
				return append([]byte("\n\nno pair\r\nFUTURE=a=b\n"), bytes.ReplaceAll(b, []byte("COMMENTS="), []byte("COMMENTS=a|b=c"))...)
			})
		}, nil},
		{"backup.info missing", func(t *testing.T, dir string) { must(t, os.Remove(filepath.Join(dir, "backup.info"))) }, new(foreign.IncompleteError)},
		{"backup.sha512 missing", func(t *testing.T, dir string) { must(t, os.Remove(filepath.Join(dir, "backup.sha512"))) }, new(foreign.IncompleteError)},
		{"not valid", func(t *testing.T, dir string) {
			edit(t, filepath.Join(dir, "backup.info"), func(b []byte) []byte { return bytes.Replace(b, []byte("STATUS=1"), []byte("STATUS=0"), 1) })
		}, new(foreign.IncompleteError)},
		{"file missing", func(t *testing.T, dir string) { must(t, os.Remove(someFile(t, dir))) }, fs.ErrNotExist},
		{"bit flipped", func(t *testing.T, dir string) {
			edit(t, someFile(t, dir), func(b []byte) []byte { b[len(b)/2] ^= 4; return b })
		}, foreign.ErrDamaged},
		{"file cut off", func(t *testing.T, dir string) {
			edit(t, someFile(t, dir), func(b []byte) []byte { return b[:len(b)-1] })
		}, foreign.ErrDamaged},
		{"file longer", func(t *testing.T, dir string) {
			edit(t, someFile(t, dir), func(b []byte) []byte { return append(b, 0) })
		}, foreign.ErrDamaged},
		{"dangling link", link("/gone/primary/backup/20200101000000/data/base/1/1259"), fs.ErrNotExist},
		{"link out of the repository", link("/etc/passwd"), new(foreign.LinkError)},
		{"relative link out of the repository", link("../../../../../../../../etc/passwd"), new(foreign.LinkError)},
		{"link that climbs behind a backup", link("/x/backup/20261121090000/../../../etc/passwd"), new(foreign.LinkError)},
		{"link in a circle", func(t *testing.T, dir string) {
			path := someFile(t, dir)
			must(t, os.Remove(path))
			must(t, os.Symlink(path, path))
		}, new(foreign.LinkError)},
		{"name that climbs", manifest(`"base/1/`, `"../../../`), foreign.ErrDamaged},
		{"absolute name", manifest(`"base/1/`, `"/tmp/`), foreign.ErrDamaged},
		{"manifest altered", manifest(`"Size": `, `"Size": 1`), foreign.ErrDamaged},
	}
}

// someFile returns a large stored file, which may be a link.
func someFile(t *testing.T, dir string) string {
	names, err := filepath.Glob(filepath.Join(dir, "data", "base", "1", "1255*"))
	must(t, err)
	names = slices.DeleteFunc(names, func(n string) bool { return strings.Contains(filepath.Base(n), "_") })
	return names[0]
}

func TestDamageIsFoundAndNothingElseIsTouched(t *testing.T) {
	t.Parallel()
	major := pgtest.Newest(t)
	s := pgtest.Start(t, pgtest.Options{Major: major})
	for _, how := range []Storage{{"", 0}, {"lz4", 0}, {"zstd", 256}} {
		t.Run(how.String(), func(t *testing.T) {
			whole := New(t, base(t), "primary")
			whole.Backup(t, s, "20261121090000", "", how)
			whole.Backup(t, s, damagedLabel, "", how)
			whole.Link(t, damagedLabel, "20261121090000", how)
			for i, d := range damages() {
				// What has nothing to do with how files are stored is done once.
				if ofData := d.want == foreign.ErrDamaged && strings.HasPrefix(d.name, "file") || d.name == "bit flipped"; i > 0 && !ofData && how != (Storage{}) {
					continue
				}
				t.Run(d.name, func(t *testing.T) {
					r := whole.copied(t)
					d.do(t, r.Path("backup/"+damagedLabel))
					r.shows(t, d.want)
					// The directory listing goes on, and the other backup is what it was.
					list, err := r.open(t).Backups(context.Background())
					if err != nil || len(list) != 2 || list[0].Err != nil {
						t.Errorf("listing: %v, %v", list, err)
					}
				})
			}
		})
	}
}

// shows restores and verifies the damaged backup.
func (r *Repository) shows(t *testing.T, want error) {
	t.Helper()
	dir, err := r.try(t, damagedLabel, "")
	if want == nil {
		must(t, err)
		return
	}
	if !matches(err, want) {
		t.Errorf("restore into %q: error %v, want %T %v", dir, err, want, want)
	}
	if len(r.problems(t, damagedLabel)) == 0 {
		t.Error("verification finds nothing")
	}
}

func matches(err, want error) bool {
	switch want.(type) {
	case *foreign.IncompleteError:
		return errors.As(err, new(*foreign.IncompleteError))
	case *foreign.LinkError:
		return errors.As(err, new(*foreign.LinkError))
	}
	// Several things may be said of altered data: that it is damaged is always among them, but for
	// the manifest, whose reader has an error of its own.
	return errors.Is(err, want) || want == foreign.ErrDamaged && err != nil && regexp.MustCompile(`backup_manifest`).MatchString(err.Error())
}

// copied returns a copy of the repository that shares its files by hard links.
func (r *Repository) copied(t testing.TB) *Repository {
	t.Helper()
	c := *r
	c.Base = filepath.Join(t.TempDir(), "copy")
	must(t, filepath.WalkDir(r.Base, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(r.Base, path)
		if err != nil {
			return err
		}
		to := filepath.Join(c.Base, rel)
		switch {
		case d.IsDir():
			return os.MkdirAll(to, 0o700)
		case d.Type()&fs.ModeSymlink != 0:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			return os.Symlink(target, to)
		}
		return os.Link(path, to)
	}))
	return &c
}

func TestListingKnowsWhatBackupInfoSays(t *testing.T) {
	t.Parallel()
	major := pgtest.Newest(t)
	s := pgtest.Start(t, pgtest.Options{Major: major, WALSegmentSize: 1})
	s.Tablespace(t, "fast")
	r := New(t, base(t), "primary")
	r.Backup(t, s, damagedLabel, "", Storage{"zstd", 192})
	list, err := r.open(t).Backups(context.Background())
	must(t, err)
	b := list[0]
	if b.Err != nil || !b.Foreign || b.Keep {
		t.Errorf("row %+v", b)
	}
	sum := b.Summary
	if sum.SegmentSize != 1<<20 || sum.PostgreSQL.Major() != major || sum.Type != repo.Full || sum.Codec != "zstd" || sum.Cipher != "aes-192-gcm" ||
		len(sum.Tablespaces) != 1 || sum.Tablespaces[0].Name != "fast" || sum.End <= sum.Start || sum.Checkpoint < sum.Start || sum.Stored == 0 {
		t.Errorf("summary %+v", sum)
	}
}
