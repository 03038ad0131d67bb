package adopt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pgmoneta/pgmoneta-go/internal/container"
	"github.com/pgmoneta/pgmoneta-go/internal/durable"
	"github.com/pgmoneta/pgmoneta-go/internal/foreign"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
	"github.com/pgmoneta/pgmoneta-go/internal/vault"
	"github.com/pgmoneta/pgmoneta-go/internal/verify"
)

func TestDependentsAreOursAndWhole(t *testing.T) {
	t.Parallel()
	ctx, base, want := t.Context(), t.TempDir(), originals(t, 4)
	chain(t, base, 4)
	r := open(t, durable.OS{}, base)
	taken, err := Dependents(ctx, options(t, r), labels[1])
	if err != nil || !slices.Equal(taken, labels[2:]) {
		t.Fatalf("taken over %v, %v", taken, err)
	}
	if again, err := Dependents(ctx, options(t, r), labels[1]); err != nil || again != nil {
		t.Errorf("again: %v, %v", again, err)
	}
	must(t, r.Foreign().Delete(ctx, labels[1]))
	if got := listed(t, r); !slices.Equal(got, []repo.Label{labels[0], labels[2], labels[3]}) {
		t.Errorf("listed %v", got)
	}
	same(t, r, want)
	for i, l := range labels[2:] {
		b, err := r.Find(ctx, string(l))
		must(t, err)
		s := b.Summary
		if b.Foreign || s.Type != repo.Full || s.Base != "" || s.Overlaid || s.Start != start(i+2) || s.End != end(i+2) || s.Checkpoint != start(i+2)+0x38 ||
			s.System != "7710649025785056541" || s.PostgreSQL != 170003 || strings.Contains(s.BackupLabel, "INCREMENTAL") || s.StartedAt.IsZero() {
			t.Errorf("%+v", s)
		}
		n, err := r.Note(ctx, l)
		if err != nil || n.Keep != (i == 1) || !slices.Equal(n.Comments, []repo.Comment{{Key: "why", Text: "because"}, {Key: "who", Text: "me"}}) {
			t.Errorf("note of %s: %+v, %v", l, n, err)
		}
		if report, err := verify.Backup(ctx, r, l, verify.Options{}); err != nil || len(report.Problems) > 0 || report.Segments != 1 {
			t.Errorf("verify %s: %+v, %v", l, report, err)
		}
		entries, err := os.ReadDir(filepath.Join(r.Dir(), "backup", string(l)))
		must(t, err)
		if len(entries) != 3 { // manifest, backup_manifest, note
			t.Errorf("beside the manifest of %s: %v", l, entries)
		}
	}
	// The second has added the blocks of one relation, whose frame has changed, and not what is shared.
	b, err := r.Find(ctx, string(labels[2]))
	if must(t, err); b.Summary.Stored > 7*block {
		t.Errorf("the second has stored %d bytes", b.Summary.Stored)
	}
	if err := r.Delete(ctx, labels[2], labels[3]); err != nil || !slices.Equal(listed(t, r), labels[:1]) {
		t.Errorf("after all are deleted: %v, %v", listed(t, r), err)
	}
}

// One that is to be deleted needs one that is taken over: up to its end it stays whole.
func TestDependentsBetweenDeletedOnes(t *testing.T) {
	t.Parallel()
	ctx, base, want := t.Context(), t.TempDir(), originals(t, 3)
	chain(t, base, 3)
	r := open(t, durable.OS{}, base)
	gone := []repo.Label{labels[0], labels[2]}
	taken, err := Dependents(ctx, options(t, r), gone...)
	if err != nil || !slices.Equal(taken, labels[1:2]) {
		t.Fatalf("taken over %v, %v", taken, err)
	}
	must(t, r.Sweep(ctx))
	same(t, r, want)
	var refused *foreign.ChildError
	if err := r.Delete(ctx, labels[1]); !errors.As(err, &refused) || len(listed(t, r)) != 3 {
		t.Errorf("deleting what still is a part of a chain: %v", err)
	}
	if err := r.Foreign().Delete(ctx, labels[0]); !errors.As(err, &refused) || len(listed(t, r)) != 3 {
		t.Errorf("deleting the beginning of that chain: %v", err)
	}
	must(t, r.Foreign().Delete(ctx, gone...))
	if got := listed(t, r); !slices.Equal(got, labels[1:2]) {
		t.Errorf("listed %v", got)
	}
	same(t, r, want)
	if _, err := os.Stat(filepath.Join(r.Dir(), "backup", string(labels[1]), "data")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what C pgmoneta wrote is left: %v", err)
	}
}

// Manifests of PostgreSQL before 17 name no system: the WAL in the backup does. Those that C pgmoneta's own
// incremental backups have are like that.
func TestSystemIsKnownFromWAL(t *testing.T) {
	t.Parallel()
	ctx, base := t.Context(), t.TempDir()
	chainOf(t, base, 2, 16)
	o := options(t, open(t, durable.OS{}, base))
	if _, err := Dependents(ctx, o, labels[0]); err != nil {
		t.Fatal(err)
	}
	b, err := o.Repo.Find(ctx, string(labels[1]))
	if must(t, err); b.Foreign || b.Summary.System != "7710649025785056541" || b.Summary.PostgreSQL != 160003 {
		t.Errorf("%+v", b.Summary)
	}
	var text strings.Builder
	must(t, o.Repo.ReadPostgresManifest(ctx, labels[1], &text))
	if !strings.Contains(text.String(), `"PostgreSQL-Backup-Manifest-Version": 1,`) || strings.Contains(text.String(), "System-Identifier") {
		t.Errorf("manifest %.200s", text.String())
	}
	base = t.TempDir()
	chainOf(t, base, 2, 16)
	must(t, os.Remove(filepath.Join(base, "primary", "backup", string(labels[1]), "data", "pg_wal", segmentName(1))))
	if _, err := Dependents(ctx, options(t, open(t, durable.OS{}, base)), labels[0]); err == nil || !strings.Contains(err.Error(), "of which system") {
		t.Errorf("without that: %v", err)
	}
}

// What is shared with a backup of ours is read back too. When that is damaged nothing is taken over; the next attempt
// does without it.
func TestDamagedPackIsNotSharedTwice(t *testing.T) {
	t.Parallel()
	ctx, base, want := t.Context(), t.TempDir(), originals(t, 4)
	chain(t, base, 4)
	o := options(t, open(t, durable.OS{}, base))
	_, err := Dependents(ctx, o, labels[2])
	must(t, err)
	pack := filepath.Join(o.Repo.Dir(), repo.PackName(labels[3], 1))
	content, err := os.ReadFile(pack)
	must(t, err)
	at := bytes.Index(content, shared()[:16])
	if at < 0 {
		t.Fatal("what is shared is not stored as it is")
	}
	content[at] ^= 4
	must(t, os.WriteFile(pack, content, 0o600))
	var damaged *container.DamagedError
	if taken, err := Dependents(ctx, o, labels[0]); !errors.As(err, &damaged) || damaged.Object != repo.PackName(labels[3], 1) || len(taken) > 0 {
		t.Errorf("taken over %v, %v", taken, err)
	}
	taken, err := Dependents(ctx, o, labels[0])
	if err != nil || !slices.Equal(taken, labels[1:3]) {
		t.Fatalf("again: taken over %v, %v", taken, err)
	}
	for _, l := range taken {
		if got := restored(t, o.Repo, l); !maps.Equal(got, want[l]) {
			t.Errorf("backup %s: files %v", l, slices.Sorted(maps.Keys(got)))
		}
	}
}

// TestPowerCutWhileTakingOver cuts the power before every operation. What is listed then is what was
// listed before, and whole; doing it again finishes the work.
func TestPowerCutWhileTakingOver(t *testing.T) {
	t.Parallel()
	const n = 3
	want := originals(t, n)
	model := t.TempDir()
	chain(t, model, n)
	var mu sync.Mutex
	ours := map[int]bool{}
	t.Cleanup(func() {
		if len(ours) != n {
			t.Errorf("backups of ours after cuts: %v", ours)
		}
	})
	atEach(t, model, func(t *testing.T, at int) {
		image, _ := interrupted(t, model, at, durable.ErrPowerCut)
		left := open(t, durable.OS{}, image)
		must(t, left.Sweep(t.Context()))
		list := listed(t, left)
		if !slices.Equal(list, labels[:n]) && !slices.Equal(list, labels[1:n]) {
			t.Fatalf("listed %v", list)
		}
		mu.Lock()
		ours[number(t, left)] = true
		mu.Unlock()
		same(t, left, want)
		if len(list) == n {
			if err := remove(t.Context(), options(t, left), labels[0]); err != nil {
				t.Fatalf("again: %v", err)
			}
		}
		if list := listed(t, left); !slices.Equal(list, labels[1:n]) || number(t, left) != n-1 {
			t.Fatalf("again: listed %v, %d of ours", list, number(t, left))
		}
		same(t, left, want)
	})
}

// atEach calls test with the number of each operation of some kinds, of all without any, that deleting the first
// backup of a model takes.
func atEach(t *testing.T, model string, test func(t *testing.T, at int), kinds ...string) {
	t.Helper()
	dir := t.TempDir()
	must(t, os.CopyFS(dir, os.DirFS(model)))
	var operations []int
	fsys, err := durable.NewFault(filepath.Join(dir, "primary"), func(op durable.Op) error {
		if len(kinds) == 0 || slices.Contains(kinds, op.Kind) {
			operations = append(operations, op.N)
		}
		return nil
	})
	must(t, err)
	must(t, remove(t.Context(), options(t, open(t, fsys, dir)), labels[0]))
	if len(operations) < 20 {
		t.Errorf("only %d operations", len(operations))
	}
	const parts = 4
	for part := range parts {
		t.Run(fmt.Sprintf("part %d", part), func(t *testing.T) {
			t.Parallel()
			for i := part; i < len(operations); i += parts {
				at := operations[i]
				if test(t, at); t.Failed() {
					t.Fatalf("at operation %d", at)
				}
			}
		})
	}
}

// number counts the backups that are ours.
func number(t *testing.T, r *repo.Repository) (n int) {
	t.Helper()
	list, err := r.Backups(t.Context())
	must(t, err)
	for _, b := range list {
		if !b.Foreign {
			n++
		}
	}
	return n
}

// interrupted deletes the first backup in a copy of a model, in which operation at fails, and returns where
// what has survived lies.
func interrupted(t *testing.T, model string, at int, failure error) (string, error) {
	t.Helper()
	dir, image := t.TempDir(), t.TempDir()
	must(t, os.CopyFS(dir, os.DirFS(model)))
	fsys, err := durable.NewFault(filepath.Join(dir, "primary"), func(op durable.Op) error {
		if op.N == at {
			return failure
		}
		return nil
	})
	must(t, err)
	err = remove(t.Context(), options(t, open(t, fsys, dir)), labels[0])
	if !errors.Is(failure, durable.ErrPowerCut) {
		return dir, err
	}
	fsys.Cut()
	must(t, os.Mkdir(filepath.Join(image, "primary"), 0o700))
	must(t, fsys.Image(filepath.Join(image, "primary")))
	return image, err
}

// untouched makes sure that nothing of a repository is new, or gone, but empty directories.
func untouched(t *testing.T, base string, before []string) {
	t.Helper()
	after := files(t, base)
	for _, name := range after {
		if !slices.Contains(before, name) && !strings.HasSuffix(name, "/format") && !strings.HasSuffix(name, "/print") && !strings.Contains(name, "/wal/") {
			t.Errorf("%s is left", name)
		}
	}
	for _, name := range before {
		if !slices.Contains(after, name) {
			t.Errorf("%s is gone", name)
		}
	}
}

func files(t *testing.T, base string) (names []string) {
	t.Helper()
	must(t, filepath.WalkDir(base, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			names = append(names, path)
		}
		return err
	}))
	return names
}

// A full disk, at whichever operation that takes room, leaves all backups, and nothing of what was begun.
func TestFullDiskLosesNothing(t *testing.T) {
	t.Parallel()
	const n = 2
	want := originals(t, n)
	model := t.TempDir()
	chain(t, model, n)
	atEach(t, model, func(t *testing.T, at int) {
		base, err := interrupted(t, model, at, unix.ENOSPC)
		if !errors.Is(err, unix.ENOSPC) {
			t.Logf("operation %d: %v", at, err)
		}
		r := open(t, durable.OS{}, base)
		same(t, r, want)
		for _, name := range files(t, filepath.Join(base, "primary")) {
			_, pack, ok := strings.Cut(name, "/pack/")
			if label, _, _ := strings.Cut(pack, "/"); ok {
				if b, err := r.Find(t.Context(), label); err != nil || b.Foreign {
					t.Errorf("%s is left", name)
				}
			}
		}
	}, "create", "write", "sync", "mkdir", "rename")
}

func TestWhatCannotBeTakenOver(t *testing.T) {
	t.Parallel()
	in := func(l repo.Label, name string) string { return filepath.Join("primary", "backup", string(l), name) }
	noKey := errors.New("no key here")
	tests := []struct {
		name string
		do   func(t *testing.T, base string, o *Options)
		want any // an error, or a pointer to a pointer to one
		says []string
	}{
		{"damaged root of the chain", func(t *testing.T, base string, _ *Options) {
			write(t, filepath.Join(base, in(labels[0], "data/base/1/100")), make([]byte, 5*block))
		}, foreign.ErrDamaged, []string{"backup " + string(labels[2]), "backup/" + string(labels[0]) + "/data/base/1/100"}},
		{"missing link of the chain", func(t *testing.T, base string, _ *Options) {
			must(t, os.Remove(filepath.Join(base, in(labels[1], "data/base/1/INCREMENTAL.100"))))
		}, fs.ErrNotExist, []string{"backup " + string(labels[2]), "backup/" + string(labels[1]) + "/data/base/1/INCREMENTAL.100"}},
		{"missing manifest of the root", func(t *testing.T, base string, _ *Options) {
			must(t, os.Remove(filepath.Join(base, in(labels[0], "data/backup_manifest"))))
		}, new(*foreign.ChainError), []string{"backup " + string(labels[1]), "backup/" + string(labels[0]) + "/data/backup_manifest"}},
		{"not valid", func(t *testing.T, base string, _ *Options) {
			must(t, os.Remove(filepath.Join(base, in(labels[2], "backup.sha512"))))
		}, new(*foreign.IncompleteError), []string{string(labels[2])}},
		{"of another system", func(t *testing.T, base string, o *Options) {
			must(t, o.Repo.Bind(t.Context(), repo.OwnerJob, "1"))
		}, new(*repo.SystemMismatchError), nil},
		{"without its WAL", func(t *testing.T, base string, _ *Options) {
			must(t, os.Remove(filepath.Join(base, in(labels[2], "data/pg_wal"), segmentName(2))))
		}, nil, []string{"WAL segment " + segmentName(2) + " is missing"}},
		{"with WAL of another place", func(t *testing.T, base string, _ *Options) {
			write(t, filepath.Join(base, in(labels[2], "data/pg_wal"), segmentName(2)), segment(1))
		}, new(*foreign.FileError), []string{segmentName(2), "it is the page of 0/200000"}},
		{"with WAL that is not what was recorded", func(t *testing.T, base string, _ *Options) {
			write(t, filepath.Join(base, in(labels[2], "backup.sha512")), []byte(strings.Repeat("0a", 64)+" *./data/pg_wal/"+segmentName(2)+"\n"))
		}, foreign.ErrDamaged, []string{"backup/" + string(labels[2]) + "/data/pg_wal/" + segmentName(2), "SHA-512"}},
		{"with a list of hashes that is none", func(t *testing.T, base string, _ *Options) {
			write(t, filepath.Join(base, in(labels[2], "backup.sha512")), []byte("x\n"))
		}, foreign.ErrDamaged, []string{"backup/" + string(labels[2]) + "/backup.sha512", "line 1"}},
		{"encrypted", func(t *testing.T, base string, _ *Options) {
			write(t, filepath.Join(base, in(labels[0], "backup.info")), []byte(strings.Replace(string(info(0)), "ENCRYPTION=0", "ENCRYPTION=1", 1)))
		}, new(*ProtectionError), []string{"aes-256-gcm", "none"}},
		{"without the master key", func(t *testing.T, base string, o *Options) {
			o.Repo.UseKeys(repo.Keys{Cipher: container.AES256, Master: func() (*vault.MasterKey, error) { return nil, noKey }})
		}, nil, []string{noKey.Error()}},
		{"no space", func(_ *testing.T, _ string, o *Options) { o.free = func() (int64, error) { return 100, nil } }, new(*SpaceError), []string{"about 2 MiB", "0 MiB are free"}},
		{"space that nobody knows", func(_ *testing.T, _ string, o *Options) { o.free = func() (int64, error) { return 0, noKey } }, noKey, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			base := t.TempDir()
			chain(t, base, 3)
			o := options(t, open(t, durable.OS{}, base))
			tt.do(t, base, &o)
			before, list := files(t, base), len(labels[:3])
			taken, err := Dependents(t.Context(), o, labels[0])
			sentinel, is := tt.want.(error)
			switch {
			case err == nil:
				t.Fatal("it was taken over")
			case is && !errors.Is(err, sentinel), !is && tt.want != nil && !errors.As(err, tt.want):
				t.Errorf("error %v", err)
			}
			for _, part := range tt.says {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%q does not say %q", err, part)
				}
			}
			if backups, err := o.Repo.Backups(t.Context()); err != nil || len(backups) != list || len(taken) > 0 {
				t.Errorf("%d backups, %v; taken over %v", len(backups), err, taken)
			}
			untouched(t, base, before)
		})
	}
}

func TestCancelledWhileTakingOver(t *testing.T) {
	t.Parallel()
	want := originals(t, 3)
	for _, phase := range []string{"Take over", "Compare", "Verify", "WAL"} {
		base := t.TempDir()
		chain(t, base, 3)
		ctx, cancel := context.WithCancelCause(t.Context())
		stopped := errors.New("stopped")
		o := options(t, open(t, durable.OS{}, base))
		seen := map[string]bool{}
		o.Progress = func(p string, _, _ int64) {
			if seen[p] = true; p == phase {
				cancel(stopped)
			}
		}
		before := files(t, base)
		taken, err := Dependents(ctx, o, labels[0])
		if !errors.Is(err, stopped) || len(taken) > 0 {
			t.Errorf("cancelled in %q: %v, %v; phases %v", phase, taken, err, slices.Sorted(maps.Keys(seen)))
		}
		untouched(t, base, before)
		same(t, o.Repo, want)
		if taken, err := Dependents(t.Context(), options(t, o.Repo), labels[0]); err != nil || len(taken) != 2 {
			t.Errorf("after it was cancelled in %q: %v, %v", phase, taken, err)
		}
		cancel(nil)
	}
}
