package restore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"io/fs"
	"os"
	"path"
	"syscall"

	"github.com/pgmoneta/pgmoneta-go/internal/container"
	"github.com/pgmoneta/pgmoneta-go/internal/durable"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
)

// A restore over what is there, an interrupted restore or a data directory, goes through
// the same steps as one into an empty directory. But first everything is removed that the
// manifest does not list; and of a file that is there, what the frames say is compared
// with what it holds. A frame whose whole content is found in the target is not
// read from the repository at all: its print, or SHA-256, proves that it is the same.

// names is the set of the names of a manifest, as hashes: 8 bytes each. With
// 5 million names two share a hash with a probability of 10^-6; then a file
// that should go stays, or the restore is refused.
type names struct {
	seed maphash.Seed
	have map[uint64]struct{}
}

func (n *names) hash(name string, dir bool) uint64 {
	var h maphash.Hash
	h.SetSeed(n.seed)
	_, _ = h.WriteString(name)
	if dir {
		_ = h.WriteByte('/')
	}
	return h.Sum64()
}

func (n *names) has(name string, dir bool) bool {
	_, ok := n.have[n.hash(name, dir)]
	return ok
}

// add reports whether the name is new.
func (n *names) add(name string, dir bool) bool {
	before := len(n.have)
	n.have[n.hash(name, dir)] = struct{}{}
	return len(n.have) > before
}

func newNames() *names { return &names{seed: maphash.MakeSeed(), have: map[uint64]struct{}{}} }

// namesOf reads the names of a manifest, and those of the directories they lie in.
func namesOf(m *repo.Manifest) (*names, error) {
	n := newNames()
	for row, err := range m.Files() {
		if err != nil {
			return nil, err
		}
		dir := row.Kind == repo.Directory
		if !n.add(row.Path, dir) && !dir {
			return nil, fmt.Errorf("the manifest lists %q twice", row.Path)
		}
		for at := path.Dir(row.Path); at != "." && at != "/" && n.add(at, true); {
			at = path.Dir(at)
		}
	}
	return n, nil
}

// prune removes what keep does not name.
func (t *tree) prune(ctx context.Context, keep *names) error {
	for oid, r := range t.spaces {
		if err := t.pruneBelow(ctx, r, ".", "pg_tblspc/"+oid, keep); err != nil {
			return err
		}
	}
	if t.wal != nil {
		if err := t.pruneBelow(ctx, t.wal, ".", walDirectory, keep); err != nil {
			return err
		}
	}
	return t.pruneBelow(ctx, t.data, ".", "", keep)
}

// pruneBelow removes from the directory dir of a root, which is called name in
// the manifest.
func (t *tree) pruneBelow(ctx context.Context, r *os.Root, dir, name string, keep *names) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	list, err := fs.ReadDir(r.FS(), dir)
	if err != nil {
		return err
	}
	for _, e := range list {
		below, called := path.Join(dir, e.Name()), path.Join(name, e.Name())
		switch {
		case called == marker || t.isLink(called):
			continue
		case e.IsDir() && (called == "pg_tblspc" || keep.has(called, true)):
			err = t.pruneBelow(ctx, r, below, called, keep)
		case e.Type().IsRegular() && keep.has(called, false):
		default:
			err = t.removeAll(r, below)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// reuse opens a file that is there for the content it is to have, and makes it if it
// is not. A file with a second name is replaced: what has that name must not change.
func (t *tree) reuse(r *os.Root, name string) (f *os.File, fresh bool, err error) {
	info, err := r.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		f, err = t.create(r, name, 0o600)
		return f, true, err
	}
	if err != nil {
		return nil, false, err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !info.Mode().IsRegular() || !ok || st.Nlink != 1 {
		if err := t.removeAll(r, name); err != nil {
			return nil, false, err
		}
		f, err = t.create(r, name, 0o600)
		return f, true, err
	}
	if err := t.op("open", name); err != nil {
		return nil, false, err
	}
	if info.Mode().Perm()&0o600 != 0o600 {
		if err := r.Chmod(name, 0o600); err != nil {
			return nil, false, err
		}
	}
	if f, err = r.OpenFile(name, os.O_RDWR, 0); err != nil {
		return nil, false, err
	}
	durable.ForgetPages(f) // what is compared must be what is on disk
	return f, false, nil
}

// A comparer compares what is in the target with what belongs there. It is used by one goroutine.
type comparer struct {
	have  []byte // of a frame
	block []byte // of a piece
}

// newComparer returns a comparer, nil when there is nothing to compare with.
func newComparer(over bool) *comparer {
	if !over {
		return nil
	}
	return &comparer{have: make([]byte, container.FrameLimit), block: make([]byte, container.FrameLimit)}
}

// gather puts the bytes of a task's frame together in have, out of the pieces that the target has, and returns
// those, nil when they do not make up a frame. Only its hash tells whether it is the same.
func (c *comparer) gather(w *files, r *container.Reader, t *task) ([]*piece, error) {
	at := int64(0)
	var used []*piece
	for i := range t.pieces {
		p := &t.pieces[i]
		if p.length == 0 || p.zero || p.skip != at {
			continue // a second use of the same bytes is compared with them later
		}
		if err := w.opened(p.of); err != nil {
			return nil, err
		}
		if p.of.fresh {
			return nil, nil
		}
		n, err := p.of.read(c.have[at:at+p.length], p.offset)
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		if int64(n) < p.length {
			return nil, nil
		}
		at, used = at+p.length, append(used, p)
	}
	if at != int64(r.Frame(t.frame).Plain) {
		return nil, nil
	}
	return used, nil
}

// differs reports whether a run of a file holds other bytes than want.
func (c *comparer) differs(f *file, want []byte, offset int64) (bool, error) {
	b := c.block[:len(want)]
	n, err := f.read(b, offset)
	if err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	return n < len(b) || !bytes.Equal(b, want), nil
}

// zeroRun is how much of what no extent covers is compared at once.
const zeroRun = 128 << 10

// clear makes a run of a file zero where it is not.
func (c *comparer) clear(w *files, f *file, offset, length int64) (wrote int64, err error) {
	zeros := make([]byte, min(length, zeroRun))
	for length > 0 {
		n := min(length, zeroRun)
		other, err := c.differs(f, zeros[:n], offset)
		if err == nil && other {
			if err = w.tree.op("write", f.row.Path); err == nil {
				_, err = f.f.WriteAt(zeros[:n], offset)
			}
			wrote += n
		}
		if err != nil {
			return wrote, err
		}
		offset, length = offset+n, length-n
	}
	return wrote, nil
}
