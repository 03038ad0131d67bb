package backup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"sync"

	"github.com/pgmoneta/pgmoneta-go/internal/datadir"
	"github.com/pgmoneta/pgmoneta-go/internal/pgrepl"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
)

// A CorruptError reports pages whose checksums are wrong on the server's disk.
type CorruptError struct {
	Pages int64
	Found []datadir.BadPage // the first of them; none when only the server found them
}

func (e *CorruptError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d pages on the server have a wrong checksum: ", e.Pages)
	for i, p := range e.Found {
		if i == 5 {
			b.WriteString(", ...")
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(p.String())
	}
	if len(e.Found) == 0 {
		b.WriteString("its log tells which")
	}
	b.WriteString(". The backup was dropped, older ones are still there: restore the relations from one of them, " +
		"or keep what there is with allow-corrupt")
	return b.String()
}

// checkPages checks the pages in a frame, and reports whether all are sound. Those of a
// frame that an earlier backup has were checked then: only sound frames can be found.
func checkPages(ctx context.Context, tree datadir.Tree, pages *datadir.Pages, f *frame) (bool, error) {
	all := true
	for _, pc := range f.pieces {
		sound, err := pages.Check(ctx, tree, pc.of.file.Path, pc.offset, f.plain[pc.skip:][:pc.length])
		if err != nil {
			return false, fmt.Errorf("check %s: %w", pc.of.file.Path, err)
		}
		all = all && sound
	}
	return all, nil
}

// streamPages returns how pages of BASE_BACKUP are checked, nil when the server writes
// no checksums.
func streamPages(ctx context.Context, conn *pgrepl.Conn) (*datadir.Pages, error) {
	if on, err := conn.Checksums(ctx); err != nil || !on {
		return nil, err
	}
	block, err := conn.BlockSize(ctx)
	if err != nil {
		return nil, err
	}
	segment, err := conn.RelationSegment(ctx)
	return &datadir.Pages{BlockSize: int(block), SegmentOf: segment / block}, err
}

// corrupt decides about the pages that were found, and marks the backup with them if it
// may be kept. With rejected the server itself has found some: then those that could
// not be read again are bad too. Otherwise they were being written when they were read.
func (j *job) corrupt(pages *datadir.Pages, kept datadir.BadPages, rejected bool) error {
	var bad datadir.BadPages
	if pages != nil {
		bad = pages.Bad
	}
	if rejected {
		bad.Found = append(bad.Found, pages.Doubtful.Found...)
		bad.Count = max(bad.Count+pages.Doubtful.Count, 1)
	}
	slices.SortFunc(bad.Found, func(a, b datadir.BadPage) int {
		return cmp.Or(strings.Compare(a.Path, b.Path), cmp.Compare(a.Block, b.Block))
	})
	for _, p := range append(bad.Found, kept.Found...) {
		j.summary.Corrupt = append(j.summary.Corrupt, repo.CorruptPage{Path: p.Path, Block: p.Block})
		j.Log.Warn("page with a wrong checksum", "label", string(j.summary.Label), "file", p.Path, "block", p.Block)
	}
	if bad.Count > 0 && !j.AllowCorrupt {
		return &CorruptError{Pages: bad.Count, Found: bad.Found}
	}
	j.summary.CorruptPages = bad.Count + kept.Count
	if n := j.summary.CorruptPages; n > 0 {
		j.Log.Error("the backup holds pages with a wrong checksum", "label", string(j.summary.Label), "pages", n)
	}
	return nil
}

// inherit returns the corrupt pages of the base that an overlaid file keeps.
func (f *files) inherit(name string, sent blockMap) {
	if f.pages == nil {
		return
	}
	first, _ := datadir.FirstBlock(name, f.pages.SegmentOf)
	for _, p := range f.base.summary.Corrupt {
		block := p.Block - first
		if p.Path != name || block >= int64(sent.truncation) {
			continue
		}
		if _, replaced := slices.BinarySearch(sent.blocks, uint32(block)); !replaced {
			f.kept.Add(datadir.BadPage{Path: p.Path, Block: p.Block})
		}
	}
}

// unnamed returns how many corrupt pages of the base are not listed, and so may be kept.
func (b *base) unnamed() int64 {
	return max(b.summary.CorruptPages-int64(len(b.summary.Corrupt)), 0)
}

// secondLook reads pages again that BASE_BACKUP has sent, over a plain connection that
// is made when the first one is needed. Where the user may not read files, or the
// connection cannot be had, it is [datadir.ErrUnreadable].
type secondLook struct {
	params pgrepl.Params

	mu   sync.Mutex // held while connecting: whoever else has a bad page waits
	tree datadir.Tree
	err  error
}

// List implements [datadir.Tree]. Nobody lists.
func (s *secondLook) List(context.Context, string) ([]datadir.File, error) {
	return nil, datadir.ErrUnreadable
}

// Open implements [datadir.Tree].
func (s *secondLook) Open(ctx context.Context, name string) (datadir.Handle, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tree == nil && s.err == nil {
		tree, err := datadir.OpenSQL(ctx, s.params, 1)
		if err != nil {
			s.err = fmt.Errorf("%w: %w", datadir.ErrUnreadable, err)
		} else {
			s.tree = tree
		}
	}
	if s.err != nil {
		return nil, s.err
	}
	h, err := s.tree.Open(ctx, name)
	return secondHandle{h}, err
}

// Close implements [datadir.Tree].
func (s *secondLook) Close() error {
	if s.tree == nil {
		return nil
	}
	return s.tree.Close()
}

type secondHandle struct{ datadir.Handle }

func (h secondHandle) ReadAt(p []byte, at int64) (int, error) {
	n, err := h.Handle.ReadAt(p, at)
	if err == nil || errors.Is(err, fs.ErrNotExist) || errors.Is(err, io.EOF) {
		return n, err
	}
	return n, fmt.Errorf("%w: %w", datadir.ErrUnreadable, err)
}
