package restore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/pgmoneta/pgmoneta-go/internal/manifest"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
)

// A backup of a [repo.Foreign] is restored like our own: only its files come from a
// [repo.Tree] instead of packs, and its WAL may lie in the backup itself.

// withForeign adds the WAL that another program keeps beside ours.
func (a *archive) withForeign(ctx context.Context) error {
	f := a.repo.Foreign()
	if f == nil {
		return nil
	}
	w, err := f.WAL(ctx)
	if err != nil {
		return err
	}
	for _, name := range w.Segments {
		a.whole[name] = true
	}
	for _, name := range w.Partial {
		a.left[name] = !a.partial[name]
		a.partial[name] = true
	}
	a.histories = append(a.histories, w.Histories...)
	return nil
}

// foreignObjects is objects for a backup of another program.
func (m *planner) foreignObjects(ctx context.Context) error {
	t, err := m.repo.Foreign().Open(ctx, m.plan.Backup.Label)
	if err != nil {
		return err
	}
	m.plan.Backup, m.plan.FileBytes = t.Summary(), t.Summary().Logical
	m.found.size = m.plan.Backup.SegmentSize
	for _, name := range t.WAL() {
		m.found.whole[name] = true
	}
	return t.Close()
}

// foreign restores the files of a backup of another program.
func (j *runner) foreign(ctx context.Context) (s last, err error) {
	if j.foreignTree, err = j.plan.repo.Foreign().Open(ctx, j.plan.Backup.Label); err != nil {
		return s, err
	}
	if err := j.tree.open(); err != nil {
		return s, err
	}
	if j.tree.over { // nothing of what is there can be compared before it is read
		if err := j.tree.prune(ctx, newNames()); err != nil {
			return s, err
		}
	}
	w := &foreignFiles{runner: j, source: j.foreignTree}
	if err := w.run(ctx); err != nil {
		return s, err
	}
	if w.control.Path == "" {
		return s, errors.New("the backup has no global/pg_control")
	}
	if err := errors.Join(j.tree.mkdir(filepath.Dir(control)), j.foreignManifest(ctx, w.sums)); err != nil {
		return s, err
	}
	s.modified = w.control.ModTime
	s.content, err = w.content(ctx)
	return s, err
}

// last is what to write last of all.
type last struct {
	content  []byte // of global/pg_control
	modified time.Time
}

// foreignFiles writes the files of a tree, several at once.
type foreignFiles struct {
	*runner
	source  repo.Tree
	control repo.File

	mu   sync.Mutex
	done int64
	sums []string // CRC-32C of the files in their order, if they must be known
}

func (w *foreignFiles) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(w.Workers)
	files := 0
	for f, err := range w.source.Files() {
		if err == nil {
			err = context.Cause(ctx)
		}
		if err == nil {
			err = w.row(ctx, g, f, files)
		}
		if err != nil {
			return cmp.Or(g.Wait(), err) // the first error is the cause of the other
		}
		if f.Kind == repo.Regular {
			files++
		}
	}
	return g.Wait()
}

func (w *foreignFiles) row(ctx context.Context, g *errgroup.Group, f repo.File, place int) error {
	switch {
	case w.tree.isLink(f.Path) && f.Kind != repo.Regular:
		return nil
	case f.Kind == repo.Directory:
		return w.tree.mkdir(f.Path)
	case f.Kind != repo.Regular:
		return fmt.Errorf("the backup holds %q of kind %q: refused", f.Path, f.Kind)
	case f.Path == control && (w.control.Path != "" || f.Size > controlLimit):
		return fmt.Errorf("the manifest lists %s twice, or with %d bytes", control, f.Size)
	}
	w.mu.Lock()
	w.sums = append(w.sums, "")
	w.mu.Unlock()
	if f.Path == control {
		w.control = f
		return w.sumControl(ctx, f, place)
	}
	g.Go(func() error { return w.file(ctx, f, place) })
	return nil
}

func (w *foreignFiles) sumControl(ctx context.Context, f repo.File, place int) error {
	_, sum, err := w.copy(ctx, io.Discard, f)
	w.set(place, sum)
	return err
}

func (w *foreignFiles) set(place int, sum uint32) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sums[place] = manifest.Checksum(sum)
}

// copy copies a file. The reader checks it.
func (w *foreignFiles) copy(ctx context.Context, out io.Writer, f repo.File) (int64, uint32, error) {
	in, err := w.source.OpenFile(ctx, f)
	if err != nil {
		return 0, 0, err
	}
	sum := crc32.New(castagnoli)
	n, err := io.Copy(io.MultiWriter(out, sum), paced{ctx, w.runner, in})
	if err == nil && n != f.Size {
		err = fmt.Errorf("file %q has %d bytes, want %d", f.Path, n, f.Size)
	}
	return n, sum.Sum32(), errors.Join(err, in.Close())
}

// paced reads no faster than the restore may write.
type paced struct {
	ctx context.Context
	*runner
	in io.Reader
}

func (p paced) Read(b []byte) (int, error) {
	n, err := p.in.Read(b)
	if serr := p.spend(p.ctx, n); serr != nil {
		return n, serr
	}
	return n, err
}

func (w *foreignFiles) file(ctx context.Context, f repo.File, place int) error {
	root, name, err := w.tree.locate(f.Path)
	if err != nil {
		return err
	}
	out, err := w.tree.create(root, name, 0o600)
	if err != nil {
		return err
	}
	if err := w.fill(ctx, out, f, place); err != nil {
		return errors.Join(err, out.Close())
	}
	if err := out.Close(); err != nil {
		return err
	}
	return root.Chtimes(name, f.ModTime, f.ModTime)
}

func (w *foreignFiles) fill(ctx context.Context, out *os.File, f repo.File, place int) error {
	if err := w.tree.op("write", f.Path); err != nil {
		return err
	}
	n, sum, err := w.copy(ctx, out, f)
	if err != nil {
		return err
	}
	w.set(place, sum)
	w.mu.Lock()
	w.done += n
	done := w.done
	w.mu.Unlock()
	w.progress("Restore", done, max(done, w.plan.FileBytes))
	if mode := fs.FileMode(f.Mode) & fs.ModePerm; mode != 0 && mode != 0o600 {
		return out.Chmod(mode)
	}
	return nil
}

// content returns the bytes of global/pg_control.
func (w *foreignFiles) content(ctx context.Context) ([]byte, error) {
	in, err := w.source.OpenFile(ctx, w.control)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(in)
	return b, errors.Join(err, in.Close())
}

// foreignManifest writes backup_manifest: the one that was received, or for a backup whose files were
// put together a new one.
func (j *runner) foreignManifest(ctx context.Context, sums []string) error {
	in, err := j.foreignTree.OpenManifest(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	f, err := j.tree.create(j.tree.data, "backup_manifest", 0o600)
	if err != nil {
		return err
	}
	if err = j.tree.op("write", f.Name()); err == nil {
		err = j.describeForeign(f, in, sums)
	}
	return errors.Join(err, f.Close())
}

func (j *runner) describeForeign(out io.Writer, in io.Reader, sums []string) error {
	if !j.plan.Backup.Overlaid {
		_, err := io.Copy(out, in)
		return err
	}
	sent, err := readSent(in)
	if err != nil {
		return err
	}
	return describe(out, sent, j.foreignTree.Files(), sums)
}

// foreign copies a segment that another program keeps.
func (w walSource) foreign(ctx context.Context, s Segment, out io.Writer) (whole bool, err error) {
	f := w.repo.Foreign()
	if f == nil {
		return false, fs.ErrNotExist
	}
	in, err := f.OpenWAL(ctx, s.Name)
	whole = true
	if errors.Is(err, fs.ErrNotExist) && w.tree != nil {
		in, err = w.tree.OpenWAL(ctx, s.Name)
	}
	if errors.Is(err, fs.ErrNotExist) {
		in, err = f.OpenWAL(ctx, s.Name+partialSuffix)
		whole = false
	}
	if err != nil {
		return false, err
	}
	n, err := io.Copy(out, io.LimitReader(in, int64(w.size)+1))
	if err == nil && n != int64(w.size) {
		err = fmt.Errorf("it has %d plain bytes, want %d", n, w.size)
	}
	return whole, errors.Join(err, in.Close())
}
