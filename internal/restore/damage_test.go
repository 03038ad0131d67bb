package restore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pgmoneta/pgmoneta-go/internal/container"
	"github.com/pgmoneta/pgmoneta-go/internal/durable"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
	"github.com/pgmoneta/pgmoneta-go/internal/verify"
)

// A damage is something that a disk or a person does to an object.
type damage struct {
	name string
	do   func(path string, content []byte) error
}

// damages of an object: gone, every kind of truncation, more than there was, and a flipped bit in each part of it.
func damages(size int) []damage {
	list := []damage{
		{"gone", func(path string, _ []byte) error { return os.Remove(path) }},
		{"longer", func(path string, b []byte) error { return os.WriteFile(path, append(b, 0), 0o600) }},
	}
	for _, n := range []int{0, 1, min(63, size/3), size / 2, size - 40, size - 1} {
		if n >= 0 && n < size {
			list = append(list, damage{fmt.Sprintf("cut to %d of %d", n, size), func(path string, _ []byte) error { return os.Truncate(path, int64(n)) }})
		}
	}
	for at := 0; at < size; at += max(1, size/15) {
		list = append(list, damage{fmt.Sprintf("bit flipped at %d of %d", at, size), func(path string, b []byte) error {
			b[at] ^= 1 << (at % 8)
			return os.WriteFile(path, b, 0o600)
		}})
	}
	return list
}

// Whatever happens to whatever object of a repository: verify finds it and names the object, and of a pack the files; a restore
// writes exactly the right bytes, or fails, names the object and leaves nothing. Only a flipped bit that changes no
// byte of the content may pass: one in a codec's header that means nothing.
func TestEveryDamageIsFoundAndNoneIsRestored(t *testing.T) {
	t.Parallel()
	for _, keys := range []repo.Keys{{}, sealedBy(t, "a", container.AES256)} {
		t.Run(keys.Cipher.String(), func(t *testing.T) {
			t.Parallel()
			f := newSealedFixture(t, keys)
			f.must(f.Bind(t.Context(), repo.OwnerJob, "1"))
			f.plainBackup(summary(first, 2, 3, 4))
			f.segments(2, 3, 4)
			f.history(2, "1 0/280000")
			want := f.restoredTree(planIn(f, t.TempDir(), first, ""))
			seen := map[string]bool{}
			for _, object := range f.objects() {
				seen[kindOfObject(object)] = true
				path := filepath.Join(f.Dir(), object)
				whole, err := os.ReadFile(path)
				f.must(err)
				for _, d := range damages(len(whole)) {
					f.must(d.do(path, append([]byte(nil), whole...)))
					f.damaged(keys, object, d.name, want)
					f.must(os.WriteFile(path, whole, 0o600))
				}
			}
			for _, kind := range []string{"pack", "manifest", "backup_manifest", "segment", "history", "format", "print"} {
				if !seen[kind] {
					t.Errorf("no %s was damaged: %v", kind, seen)
				}
			}
		})
	}
}

func kindOfObject(object string) string {
	switch top, _, _ := strings.Cut(object, "/"); {
	case strings.HasSuffix(object, ".history"):
		return "history"
	case top == "wal":
		return "segment"
	case top == "backup":
		return filepath.Base(object)
	default:
		return top
	}
}

// namesObject reports whether an error tells which object to look for.
func namesObject(err error, object string, gone bool) bool {
	text := err.Error()
	switch kindOfObject(object) {
	case "manifest":
		if errors.Is(err, repo.ErrNoBackup) {
			return gone
		}
	case "format": // or the key: they have not the same id
		return strings.Contains(text, "key/1") || strings.Contains(text, object)
	case "key":
		return strings.Contains(text, "key/1")
	case "segment", "history":
		if gone && strings.Contains(text, "is not archived") {
			return true
		}
	}
	return strings.Contains(text, object)
}

// objects returns the names of what is stored.
func (f *fixture) objects() (list []string) {
	f.t.Helper()
	f.must(filepath.WalkDir(f.Dir(), func(path string, d fs.DirEntry, err error) error {
		name, _ := filepath.Rel(f.Dir(), path)
		top, _, _ := strings.Cut(name, "/")
		if err == nil && d.Type().IsRegular() && top != "tmp" && top != "receive" && !strings.HasSuffix(name, "lock") && name != "restore.json" {
			list = append(list, name)
		}
		return err
	}))
	return list
}

// restoredTree runs a plan and returns what it wrote.
func (f *fixture) restoredTree(p *Plan) map[string]string {
	f.t.Helper()
	f.must(Run(context.Background(), p, RunOptions{}))
	return restored(f.t, p)
}

// damaged looks at a repository one object of which is damaged, as a process that begins now.
func (f *fixture) damaged(keys repo.Keys, object, what string, want map[string]string) {
	f.t.Helper()
	r, err := repo.Open(durable.OS{}, filepath.Dir(f.Dir()), "primary")
	f.must(err)
	r.UseKeys(keys)
	names := func(err error) bool { return namesObject(err, object, what == "gone") }

	report, err := verify.Backup(context.Background(), r, first, verify.Options{})
	found := err != nil || len(report.Problems) > 0
	kind := kindOfObject(object)
	named := err != nil && names(err)
	for _, p := range report.Problems {
		named = named || (p.Object == object || names(p.Err)) && (kind != "pack" || len(p.Files) > 0)
	}
	// print finds equal frames when a backup is taken, format and key are JSON with a newline behind it.
	harmless := kind == "print" || kind == "format" || kind == "key" || strings.HasPrefix(what, "bit")
	if found && !named || !found && !harmless {
		f.t.Errorf("%s, %s: verify says %+v, %v", object, what, report.Problems, err)
	}

	dir := f.t.TempDir()
	err = func() error {
		p, err := MakePlan(context.Background(), r, Options{Backup: first, Directory: dir})
		if err != nil {
			return err
		}
		if err := Run(context.Background(), p, RunOptions{}); err != nil {
			return err
		}
		for _, line := range differences(restored(f.t, p), want) {
			f.t.Errorf("%s, %s: restored: %s", object, what, line)
		}
		return nil
	}()
	if (err != nil) != found {
		f.t.Errorf("%s, %s: verify says %+v, the restore %v", object, what, report.Problems, err)
	}
	if err == nil {
		return
	}
	if !names(err) || kind == "pack" && what != "gone" && !strings.Contains(err.Error(), "file ") {
		f.t.Errorf("%s, %s: the restore says only: %v", object, what, err)
	}
	if left := contents(f.t, dir); len(left) > 0 {
		f.t.Errorf("%s, %s: %d names were left by the restore", object, what, len(left))
	}
}
