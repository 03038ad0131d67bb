package repo

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pgmoneta/pgmoneta-go/internal/container"
	"github.com/pgmoneta/pgmoneta-go/internal/durable"
	"github.com/pgmoneta/pgmoneta-go/internal/storage"
)

// shared is a repository of two backups: the second uses pack 2 of the first too.
func shared(t *testing.T) *Repository {
	t.Helper()
	ctx := context.Background()
	r := open(t, durable.OS{}, t.TempDir())
	for l, others := range map[Label][]string{"20261121120000": nil, "20261121120001": {"pack/20261121120000/2"}} {
		if err := addBackup(ctx, r, l, 2, others...); err != nil {
			t.Fatal(err)
		}
		stage, err := r.engine.Stage(ctx, OwnerJob)
		if err != nil {
			t.Fatal(err)
		}
		up, err := stage.Create(ctx, PostgresManifestName(l))
		if err != nil {
			t.Fatal(err)
		}
		w, err := container.NewStreamWriter(up, container.Header{Kind: container.Manifest}, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Finish(); err != nil {
			t.Fatal(err)
		}
		if err := up.Close(); err != nil {
			t.Fatal(err)
		}
		if err := stage.Commit(ctx); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

func check(t *testing.T, r *Repository, full bool) CheckReport {
	t.Helper()
	report, err := r.Check(context.Background(), CheckOptions{Full: full, Workers: 2})
	if err != nil {
		t.Fatal(err)
	}
	return report
}

func TestCheckOfAWholeRepository(t *testing.T) {
	r := shared(t)
	if err := storage.Put(context.Background(), r.engine, OwnerJob, "pack/20261121110000/1", packBytes(t)); err != nil {
		t.Fatal(err)
	}
	fast, full := check(t, r, false), check(t, r, true)
	if len(fast.Findings) > 0 || len(full.Findings) > 0 || fast.Read > 0 || len(fast.Checked) != 2 || len(full.Checked) != 7 {
		t.Errorf("fast %+v\nfull %+v", fast, full)
	}
	if full.Read == 0 || full.Packs != 5 || full.Shared == 0 || full.Dead != int64(len(packBytes(t))) {
		t.Errorf("full: %+v", full)
	}
	alone := []bool{full.Backups[0].Alone > 0, full.Backups[1].Alone > full.Backups[0].Alone}
	if !slices.Equal(alone, []bool{true, true}) {
		t.Errorf("what each backup uses alone: %+v", full.Backups)
	}
}

// packBytes is a pack of one frame.
func packBytes(t *testing.T) []byte {
	t.Helper()
	var b strings.Builder
	w, err := container.NewStreamWriter(&b, container.Header{Kind: container.Pack}, 0)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(w, "left by a crash")
	if err := w.Finish(); err != nil {
		t.Fatal(err)
	}
	return []byte(b.String())
}

func TestCheckNamesObjectBackupsAndFiles(t *testing.T) {
	const first, second = Label("20261121120000"), Label("20261121120001")
	flip := func(at int) func(string) error {
		return func(path string) error {
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			b[(at+len(b))%len(b)] ^= 1
			return os.WriteFile(path, b, 0o600)
		}
	}
	tests := []struct {
		name, object string
		damage       func(path string) error
		fast         bool // shows without reading everything
		backups      []Label
		files        bool
	}{
		{"missing pack", "pack/20261121120000/2", os.Remove, true, []Label{first, second}, false},
		{"cut pack", "pack/20261121120000/2", func(p string) error { return os.Truncate(p, 90) }, true, []Label{first, second}, false},
		{"index of a pack", "pack/20261121120001/1", flip(-60), true, []Label{second}, false},
		{"frame of a pack", "pack/20261121120000/1", flip(70), false, []Label{first}, true},
		{"shared frame", "pack/20261121120000/2", flip(70), false, []Label{first, second}, true},
		{"manifest", "backup/20261121120001/manifest", flip(-50), true, []Label{second}, false},
		{"PostgreSQL's manifest", "backup/20261121120001/backup_manifest", os.Remove, true, []Label{second}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := shared(t)
			if err := tt.damage(filepath.Join(r.Dir(), tt.object)); err != nil {
				t.Fatal(err)
			}
			for _, full := range []bool{false, true} {
				report := check(t, r, full)
				if !full && !tt.fast {
					if len(report.Findings) > 0 {
						t.Errorf("a fast check found %+v", report.Findings)
					}
					continue
				}
				if len(report.Findings) != 1 {
					t.Fatalf("full %t: %+v", full, report.Findings)
				}
				f := report.Findings[0]
				slices.Sort(f.Backups)
				if f.Object != tt.object || !slices.Equal(f.Backups, tt.backups) || f.Err == nil || len(f.Files) > 0 != tt.files {
					t.Errorf("full %t: %+v", full, f)
				}
				_, err := os.Stat(filepath.Join(r.Dir(), tt.object))
				marked := slices.Collect(maps.Keys(report.Damaged()))
				if want := err == nil && !strings.HasSuffix(tt.object, "/manifest"); (len(marked) == 1) != want {
					t.Errorf("full %t: to be marked: %v, there: %v", full, marked, !errors.Is(err, fs.ErrNotExist))
				}
			}
		})
	}
}
