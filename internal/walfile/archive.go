package walfile

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/pgmoneta/pgmoneta-go/internal/container"
	"github.com/pgmoneta/pgmoneta-go/internal/durable"
	"github.com/pgmoneta/pgmoneta-go/internal/pg"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
	"github.com/pgmoneta/pgmoneta-go/internal/storage"
	"github.com/pgmoneta/pgmoneta-go/internal/vault"
	"github.com/pgmoneta/pgmoneta-go/internal/walpage"
)

const (
	partialSuffix = ".partial"
	// smallLimit is the largest history file that is read, of a timeline or of a backup.
	smallLimit = 1 << 20
)

// An archive is the WAL of one server, open for reading.
type archive struct {
	repo      *repo.Repository
	format    repo.Format
	masterKey func() (*vault.MasterKey, error)
}

// openArchive opens an archive that exists. What looks like an empty archive,
// such as the directory of a file system that is not mounted, is an error: it
// must not end a recovery.
//
// masterKey returns the master key, if the archive turns out to need one.
func openArchive(ctx context.Context, baseDir, server string, masterKey func() (*vault.MasterKey, error)) (*archive, error) {
	dir := filepath.Join(baseDir, server)
	if _, err := os.Stat(dir); err != nil {
		return nil, fmt.Errorf("no repository: %w: check base_dir, and that its file system is mounted", err)
	}
	r, err := repo.Open(durable.OS{}, baseDir, server)
	if err != nil {
		return nil, err
	}
	r.UseKeys(repo.Keys{Master: masterKey})
	format, err := r.Format(ctx)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s holds no repository: check base_dir, and that its file system is mounted", dir)
	}
	if err != nil {
		return nil, err
	}
	return &archive{repo: r, format: format, masterKey: masterKey}, nil
}

// check tells whether page begins the segment of that name and of bytes bytes in this archive.
func (a *archive) check(segment string, page []byte, bytes int64) (pg.SegmentSize, error) {
	h, err := firstPage(segment, page, bytes)
	if err != nil {
		return 0, err
	}
	if s := strconv.FormatUint(h.System, 10); s != a.format.System {
		return 0, &ForeignError{System: s, Repository: a.format.System}
	}
	return pg.SegmentSize(bytes), nil
}

// firstPage reads the first header of a segment and checks it against name and size.
func firstPage(segment string, page []byte, bytes int64) (walpage.Header, error) {
	size := pg.SegmentSize(bytes)
	if !size.Valid() {
		return walpage.Header{}, fmt.Errorf("it has %d bytes, which is no size of a segment", bytes)
	}
	h, err := walpage.Parse(page)
	if err != nil {
		return h, fmt.Errorf("first page: %w", err)
	}
	tli, start, err := pg.ParseSegmentName(segment, size)
	switch {
	case err != nil:
		return h, err
	// All magics begin with 0xD1 since PostgreSQL 14. A server newer than this
	// program must be able to archive.
	case h.Magic>>8 != 0xD1 || !h.Long():
		return h, fmt.Errorf("it does not begin with the page header of a WAL segment (magic %#04x, flags %#04x)", h.Magic, h.Info)
	case h.SegmentSize != uint32(size):
		return h, fmt.Errorf("it has %d bytes, its first page says %d", size, h.SegmentSize)
	case h.Address != start:
		return h, fmt.Errorf("its first page is that of %s, want %s", h.Address, start)
	// A segment in which a timeline begins has pages of the former one in front.
	case h.Timeline == 0 || h.Timeline > tli:
		return h, fmt.Errorf("its first page is of timeline %d, want %d or an ancestor", h.Timeline, tli)
	}
	return h, nil
}

// openContainer opens the object of a segment or partial segment. It is
// [ErrNotArchived] when there is none. Close the object.
func (a *archive) openContainer(ctx context.Context, file string) (*container.Reader, storage.Object, error) {
	name, _ := repo.WALObject(file)
	c, o, err := a.repo.OpenContainer(ctx, name, container.Segment)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, ErrNotArchived
	}
	return c, o, err
}

// segment writes a complete segment to out, decoding with as many goroutines as
// there are scratches. It is [ErrNotArchived] when there is none.
func (a *archive) segment(ctx context.Context, name string, out *os.File, scratch []container.Scratch) (pg.SegmentSize, error) {
	// While we look it may move from the receive directory to the store: the
	// second round finds it there.
	for range 2 {
		size, err := a.stored(ctx, name, name, out, scratch)
		if !errors.Is(err, ErrNotArchived) {
			return size, err
		}
		size, err = a.received(ctx, name, out)
		if !errors.Is(err, ErrNotArchived) {
			return size, err
		}
	}
	return a.foreign(ctx, name, out)
}

// stored writes a stored file, which is a segment or a partial one.
func (a *archive) stored(ctx context.Context, file, segment string, out *os.File, scratch []container.Scratch) (pg.SegmentSize, error) {
	c, object, err := a.openContainer(ctx, file)
	if err != nil {
		return 0, err
	}
	defer func() { _ = object.Close() }()
	err = eachFrame(ctx, c, scratch, func(at int64, plain []byte) error {
		if at == 0 {
			if _, err := a.check(segment, plain, c.Plain()); err != nil {
				return &container.DamagedError{Object: c.Name(), Frame: 0, Err: err}
			}
		}
		_, err := out.WriteAt(plain, at)
		return err
	})
	if err == nil && c.Frames() == 0 {
		err = &container.DamagedError{Object: c.Name(), Frame: -1, Err: errors.New("it is empty")}
	}
	return pg.SegmentSize(c.Plain()), err
}

// eachFrame decodes the frames of c, one goroutine for each scratch, and calls
// do with each frame's position in the plain bytes. plain is valid during the
// call; calls run side by side.
func eachFrame(ctx context.Context, c *container.Reader, scratch []container.Scratch, do func(at int64, plain []byte) error) error {
	starts := make([]int64, c.Frames())
	at := int64(0)
	for i := range starts {
		starts[i] = at
		at += int64(c.Frame(i).Plain)
	}
	var next atomic.Int64
	work := func(ctx context.Context, s *container.Scratch) error {
		for ctx.Err() == nil {
			i := int(next.Add(1)) - 1
			if i >= len(starts) {
				return nil
			}
			plain, err := c.ReadFrame(i, s)
			if err != nil {
				return err
			}
			if err := do(starts[i], plain); err != nil {
				return err
			}
		}
		return context.Cause(ctx)
	}
	if len(scratch) == 1 {
		return work(ctx, &scratch[0])
	}
	g, ctx := errgroup.WithContext(ctx)
	for i := range min(len(scratch), max(1, len(starts))) {
		g.Go(func() error { return work(ctx, &scratch[i]) })
	}
	return g.Wait()
}

func closeAll(scratch []container.Scratch) {
	for i := range scratch {
		scratch[i].Close()
	}
}

// received writes a segment that is complete in the receive directory.
func (a *archive) received(ctx context.Context, name string, out *os.File) (pg.SegmentSize, error) {
	in, err := a.openReceived(ctx, name)
	if err != nil {
		return 0, err
	}
	defer func() { _ = in.Close() }()
	page, err := readFirst(in)
	if err != nil {
		return 0, err
	}
	size, err := a.check(name, page, in.Size())
	if err != nil {
		return 0, fmt.Errorf("%s: %w: move it away", in.Name(), err)
	}
	return size, copyWhole(out, in)
}

// partial writes a segment that is being received, as far as it has come, and
// fills it up with zeros. It is [ErrNotArchived] when not one byte has come.
func (a *archive) partial(ctx context.Context, name string, out *os.File) (pg.SegmentSize, error) {
	in, err := a.openReceived(ctx, name+partialSuffix)
	if err != nil {
		return 0, err
	}
	defer func() { _ = in.Close() }()
	page, err := readFirst(in)
	if err != nil {
		return 0, err
	}
	h, err := walpage.Parse(page)
	if h == (walpage.Header{}) {
		return 0, ErrNotArchived // made, or made longer, but nothing written yet
	}
	if err == nil {
		_, err = a.check(name, page, int64(h.SegmentSize))
	}
	if err == nil && in.Size() > int64(h.SegmentSize) {
		err = fmt.Errorf("it has %d bytes, its first page says %d", in.Size(), h.SegmentSize)
	}
	if err != nil {
		return 0, fmt.Errorf("%s: %w: move it away", in.Name(), err)
	}
	if err := copyWhole(out, in); err != nil {
		return 0, err
	}
	return pg.SegmentSize(h.SegmentSize), out.Truncate(int64(h.SegmentSize))
}

func (a *archive) openReceived(ctx context.Context, file string) (*repo.Received, error) {
	in, err := a.repo.OpenReceived(ctx, file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNotArchived
	}
	return in, err
}

// readFirst reads the header of a segment's first page, or what there is of it.
func readFirst(in io.Reader) ([]byte, error) {
	page := make([]byte, walpage.LongSize)
	n, err := io.ReadFull(in, page)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil
	}
	return page[:n], err
}

// copyWhole replaces the content of out by that of in.
func copyWhole(out *os.File, in *repo.Received) error {
	if err := errors.Join(empty(out), in.Rewind()); err != nil {
		return err
	}
	if _, err := out.Seek(0, io.SeekStart); err != nil {
		return err
	}
	n, err := io.Copy(out, io.LimitReader(in, in.Size()))
	if err == nil && n != in.Size() {
		err = fmt.Errorf("%s ended after %d of %d bytes", in.Name(), n, in.Size())
	}
	return err
}

// small returns a history file, of a timeline or of a backup.
func (a *archive) small(ctx context.Context, file string) ([]byte, error) {
	name, _ := repo.WALObject(file)
	content, err := a.repo.ReadRecord(ctx, name, smallLimit)
	if errors.Is(err, fs.ErrNotExist) {
		content, err = a.foreignHistory(ctx, file)
	}
	if err != nil {
		return nil, err
	}
	content = bytes.TrimRight(content, "\x00") // C pgmoneta ends histories so
	if err := checkSmall(file, content); err != nil {
		return nil, &container.DamagedError{Object: name, Frame: -1, Err: err}
	}
	return content, nil
}

// checkSmall tells whether the content of a history file can be read.
func checkSmall(file string, content []byte) error {
	if tli, ok := pg.ParseHistoryName(file); ok {
		h, err := pg.ParseHistory(tli, content)
		if err == nil && len(h.Ancestors) == 0 {
			err = errors.New("it names no ancestor")
		}
		return err
	}
	_, err := pg.ParseBackupLabel(content)
	return err
}

// has reports whether a complete segment is there.
func (a *archive) has(ctx context.Context, name string) bool {
	if stored, err := a.repo.HasSegment(ctx, name); stored || err != nil {
		return stored
	}
	_, err := os.Stat(filepath.Join(a.repo.ReceiveDir(), name))
	return err == nil
}

// after returns a complete segment that follows name on the same timeline, ""
// if there is none.
func (a *archive) after(ctx context.Context, name string) (string, error) {
	stored, err := a.repo.Engine().List(ctx, "wal/"+name[:8])
	if err != nil {
		return "", err
	}
	received, _, err := a.repo.Received()
	if err != nil {
		return "", err
	}
	for _, o := range stored {
		received = append(received, filepath.Base(o.Name))
	}
	foreign, err := a.foreignSegments(ctx)
	if err != nil {
		return "", err
	}
	received = append(received, foreign...)
	next := ""
	for _, s := range received {
		if pg.IsSegmentName(s) && s[:8] == name[:8] && s > name && (next == "" || s < next) {
			next = s
		}
	}
	return next, nil
}

// clusterOf returns the system identifier of the data directory that holds
// walDir, "" if there is none to be seen.
//
// It is the first field of ControlFileData; see src/include/catalog/pg_control.h.
func clusterOf(walDir string) string {
	f, err := os.Open(filepath.Join(filepath.Dir(walDir), "global", "pg_control"))
	if err != nil {
		return ""
	}
	defer func() { _ = f.Close() }()
	var b [8]byte
	if _, err := f.ReadAt(b[:], 0); err != nil {
		return ""
	}
	return strconv.FormatUint(binary.LittleEndian.Uint64(b[:]), 10)
}
