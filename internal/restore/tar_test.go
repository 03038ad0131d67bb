package restore

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/pgmoneta/pgmoneta-go/internal/container"
	"github.com/pgmoneta/pgmoneta-go/internal/durable"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
	"github.com/pgmoneta/pgmoneta-go/test/pgtest"
)

// archived writes a plan as a tar and returns it.
func archived(t *testing.T, b *bed, position string, codec container.Codec) []byte {
	t.Helper()
	target, err := ParsePosition(position)
	if err != nil {
		t.Fatal(err)
	}
	p, err := MakePlan(t.Context(), b.repo, Options{Backup: "newest", Target: target, Tar: true})
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := WriteTar(t.Context(), p, &out, codec, 3, RunOptions{Workers: 2, Log: b.log}); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// What tar unpacks is a cluster that starts, with its tablespaces, up to the target.
func TestArchivedClusterStarts(t *testing.T) {
	t.Parallel()
	pgtest.ForEach(t, func(t *testing.T, major int) {
		t.Parallel()
		s := pgtest.Start(t, pgtest.Options{Major: major})
		b := newBed(t, s)
		space := t.TempDir()
		pgtest.Own(t, space)
		s.Exec(t, "CREATE TABLESPACE elsewhere LOCATION '"+space+"'")
		s.Exec(t, "CREATE TABLE marks (n int)")
		s.Exec(t, "CREATE TABLE far TABLESPACE elsewhere AS SELECT i, md5(i::text) FROM generate_series(1, 20000) i")
		b.mark(1)
		b.backup()
		b.mark(2)
		b.received()
		content := archived(t, b, "latest", container.Zstd)

		dir := t.TempDir()
		tarFile := filepath.Join(dir, "cluster.tar")
		d, err := zstd.NewReader(bytes.NewReader(content))
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		plain, err := io.ReadAll(d)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(tarFile, plain, 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command("tar", "-x", "-f", tarFile, "-C", dir).CombinedOutput(); err != nil {
			t.Fatalf("tar: %v: %s", err, out)
		}
		found, err := filepath.Glob(filepath.Join(dir, "primary-??????????????"))
		if err != nil || len(found) != 1 {
			t.Fatalf("unpacked %v, %v", found, err)
		}
		pgtest.Own(t, dir)
		restored := pgtest.OpenDir(t, major, found[0], pgtest.Options{})
		if got := marks(t, restored); got != "1 2" {
			t.Errorf("marks %s", got)
		}
		if got := restored.QueryString(t, "SELECT count(*) FROM far"); got != "20000" {
			t.Errorf("%s rows in the tablespace", got)
		}
		names := namesIn(t, plain)
		if last := names[len(names)-1]; !strings.HasSuffix(last, "/"+control) {
			t.Errorf("the last file is %s", last)
		}
	})
}

func namesIn(t *testing.T, content []byte) (names []string) {
	t.Helper()
	r := tar.NewReader(bytes.NewReader(content))
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return names
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name)
	}
}

// Whoever unpacks an archive has no os.Root: names that lead out of it are not in it, also
// of a manifest that somebody forged.
func TestArchiveHasNoNamesThatLeadOutOfIt(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"../../etc", "..", "/etc", "base/../../etc", "base//1", "base/./1", "base/", ".", "", "pg_tblspc/16385/../../../etc", "a\x00b"} {
		for _, kind := range []repo.Kind{repo.Directory, repo.Regular, repo.Symlink} {
			var out bytes.Buffer
			b := &tarball{ctx: t.Context(), plan: &Plan{Server: "primary"}, tar: tar.NewWriter(&out), spaces: map[string]string{"16385": "primary-tblspc_fast"}}
			if _, err := b.begin(repo.File{Path: name, Kind: kind}); err == nil || out.Len() > 0 {
				t.Errorf("%s %q: %v, and %d bytes are written", kind, name, err, out.Len())
			}
		}
	}
}

// failing takes some bytes and then no more.
type failing struct{ left int }

var errFull = errors.New("no space left")

func (f *failing) Write(p []byte) (int, error) {
	if f.left -= len(p); f.left < 0 {
		return 0, errFull
	}
	return len(p), nil
}

// Whatever stops an archive, the error says so, nothing hangs, and what came out has
// no end that a reader would take for one.
func TestArchiveThatIsStopped(t *testing.T) {
	t.Parallel()
	s := pgtest.Start(t, pgtest.Options{})
	b := newBed(t, s)
	b.backup()
	target, err := ParsePosition("current")
	if err != nil {
		t.Fatal(err)
	}
	p, err := MakePlan(t.Context(), b.repo, Options{Backup: "newest", Target: target, Tar: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, left := range []int{0, 1 << 20, 3 << 20} {
		if err := WriteTar(t.Context(), p, &failing{left}, container.None, 0, RunOptions{Workers: 2}); !errors.Is(err, errFull) {
			t.Errorf("after %d bytes: %v", left, err)
		}
	}
	stop := errors.New("stopped")
	ctx, cancel := context.WithCancelCause(t.Context())
	var out bytes.Buffer
	err = WriteTar(ctx, p, &out, container.Gzip, 1, RunOptions{Workers: 2, Progress: func(_ string, done, _ int64) {
		if done > 4<<20 {
			cancel(stop)
		}
	}})
	if !errors.Is(err, stop) {
		t.Errorf("stopped: %v", err)
	}
	if r, err := gzip.NewReader(bytes.NewReader(out.Bytes())); err == nil {
		tr := tar.NewReader(r)
		for err == nil {
			var h *tar.Header
			if h, err = tr.Next(); err == nil && strings.HasSuffix(h.Name, "/"+control) {
				t.Error("it has a pg_control")
			}
		}
	}
}

// An archive has its name when it is whole, wherever it is stopped, and what an
// interrupted one left is touched only by who holds the lock.
func TestArchiveFileIsWholeOrAbsent(t *testing.T) {
	t.Parallel()
	b := newBed(t, pgtest.Start(t, pgtest.Options{}))
	b.backup()
	target, err := ParsePosition("current")
	if err != nil {
		t.Fatal(err)
	}
	p, err := MakePlan(t.Context(), b.repo, Options{Backup: "newest", Target: target, Tar: true})
	if err != nil {
		t.Fatal(err)
	}
	write := func(dir string, decide func(durable.Op) error) (*durable.Fault, string, error) {
		f, err := durable.NewFault(dir, decide)
		if err != nil {
			t.Fatal(err)
		}
		path, err := WriteArchive(t.Context(), p, dir, ArchiveOptions{Codec: container.Zstd, Level: 1, FS: f, Run: RunOptions{Workers: 2}})
		return f, path, err
	}
	dir := t.TempDir()
	whole, _, err := write(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	ops := whole.Ops()
	for _, cut := range []int{1, 2, 3, ops / 2, ops - 5, ops - 4, ops - 3, ops - 2, ops - 1, ops} {
		for _, failure := range []error{durable.ErrPowerCut, syscall.ENOSPC} {
			dir, after := t.TempDir(), t.TempDir()
			f, _, err := write(dir, func(op durable.Op) error {
				if op.N == cut {
					return failure
				}
				return nil
			})
			f.Cut()
			if err := f.Image(after); err != nil {
				t.Fatal(err)
			}
			names, nerr := filepath.Glob(filepath.Join(after, "archive-*"))
			if nerr != nil || (err == nil) != (len(names) == 1) || err == nil && cut > 1 { // the first removes what is not there
				t.Errorf("%v at operation %d of %d: %v, and there are %v, %v", failure, cut, ops, err, names, nerr)
			}
			left, err := filepath.Glob(filepath.Join(dir, ".*.part"))
			if err != nil || failure == syscall.ENOSPC && len(left) > 0 {
				t.Errorf("%v at operation %d of %d leaves %v, %v", failure, cut, ops, left, err)
			}
		}
	}

	if _, err := WriteArchive(t.Context(), p, dir, ArchiveOptions{Codec: container.Zstd, Run: RunOptions{Progress: func(string, int64, int64) {
		t.Error("something is written although there is an archive of that name")
	}}}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("over another archive: %v", err)
	}
	dir = t.TempDir()
	left := filepath.Join(dir, ".archive-primary-"+string(p.Backup.Label)+".tar.part")
	if err := os.WriteFile(left, []byte("of another process"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := WriteArchive(t.Context(), p, dir, ArchiveOptions{Unlocked: true}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("without the lock beside another: %v", err)
	}
	if content, err := os.ReadFile(left); err != nil || string(content) != "of another process" {
		t.Errorf("without the lock: %q, %v", content, err)
	}
	if _, err := WriteArchive(t.Context(), p, dir, ArchiveOptions{}); err != nil {
		t.Errorf("with the lock: %v", err)
	}
}
