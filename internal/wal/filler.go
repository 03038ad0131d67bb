package wal

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/container"
	"github.com/pgmoneta/pgmoneta-go/internal/pg"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
	"github.com/pgmoneta/pgmoneta-go/internal/walpage"
)

// A Filler fills holes, before and after they are recorded, from a directory to which another program
// archives the same server: segments under their own names, plain or with the
// suffix .gz, .zst, .lz4 or .bz2. It only reads there.
//
// A segment is taken when every page of it is of this cluster, at its address and
// of its timeline. Whatever is wrong is logged and tried again; nothing of it is
// stored. Damaged segments are not replaced, because nothing that is stored is:
// move the damaged object away first.
type Filler struct {
	Repo  *repo.Repository
	Dir   string
	Codec container.Codec
	Level int
	Log   *slog.Logger
	Every time.Duration // how often holes are looked for; [DefaultFillInterval] when 0
}

// DefaultFillInterval is how soon a new hole, or a new file, is noticed.
const DefaultFillInterval = 5 * time.Second

// Run fills until ctx ends.
func (f *Filler) Run(ctx context.Context) {
	every := f.Every
	if every == 0 {
		every = DefaultFillInterval
	}
	done, last := "", ""
	backoff := newBackoff(time.Minute)
	for {
		// First of all the receiver clears what an earlier worker left in the stage.
		rest(ctx, every)
		if ctx.Err() != nil {
			return
		}
		state, err := f.state(ctx)
		if err == nil && (state == "" || state == done) {
			continue // no hole, or nothing new about those that stay
		}
		if err == nil {
			err = f.fill(ctx)
		}
		if err == nil {
			done, last = state, ""
			backoff = newBackoff(time.Minute)
			continue
		}
		if text := err.Error(); ctx.Err() == nil && text != last {
			last = text
			f.Log.Error("fill holes from the archive directory", "file", f.Dir, "err", err)
		}
		rest(ctx, backoff.delay())
	}
}

// state describes the holes and the directory, "" when there is no hole.
func (f *Filler) state(ctx context.Context) (string, error) {
	holes, err := f.Repo.Holes(ctx)
	if err != nil || len(holes) == 0 {
		return "", err
	}
	info, err := os.Stat(f.Dir)
	if err != nil {
		return "", err
	}
	return fmt.Sprint(info.ModTime().UnixNano(), holes), nil
}

// fill takes what it can for every hole.
func (f *Filler) fill(ctx context.Context) error {
	holes, err := f.Repo.Holes(ctx)
	if err != nil {
		return err
	}
	system, err := f.Repo.SystemIdentifier(ctx)
	if err != nil {
		return err
	}
	size, err := f.segmentSize(ctx)
	if err != nil || size == 0 || system == 0 {
		return err // nothing to compare with yet
	}
	there, err := f.files()
	if err != nil {
		return err
	}
	var errs []error
	for _, h := range holes {
		errs = append(errs, f.hole(ctx, h, walpage.Want{System: system, Timeline: h.Timeline, Size: size}, there))
	}
	return errors.Join(errs...)
}

// before takes what it can of a hole that is not recorded yet, and reports whether
// all of it is stored then.
func (f *Filler) before(ctx context.Context, h repo.Hole, size pg.SegmentSize) (bool, error) {
	if f == nil {
		return false, nil
	}
	system, err := f.Repo.SystemIdentifier(ctx)
	if err != nil {
		return false, err
	}
	there, err := f.files()
	if err != nil {
		return false, err
	}
	want := walpage.Want{System: system, Timeline: h.Timeline, Size: size}
	if err := f.hole(ctx, h, want, there); err != nil {
		return false, err
	}
	for at := size.Start(h.From); at < h.To; at += pg.LSN(size) {
		if have, err := f.Repo.HasSegment(ctx, pg.SegmentName(h.Timeline, at, size)); !have || err != nil {
			return false, err
		}
	}
	return true, nil
}

// segmentSize returns the size of a stored segment, 0 when there is none.
func (f *Filler) segmentSize(ctx context.Context) (pg.SegmentSize, error) {
	listing, err := f.Repo.ListWAL(ctx)
	if err != nil || len(listing.Segments) == 0 {
		return 0, err
	}
	seg, err := f.Repo.OpenSegment(ctx, listing.Segments[len(listing.Segments)-1])
	if err != nil {
		return 0, err
	}
	size := pg.SegmentSize(seg.Plain())
	if err := seg.Close(); err != nil || !size.Valid() {
		return 0, err
	}
	return size, nil
}

// files maps the segments in the directory to their files.
func (f *Filler) files() (map[string]string, error) {
	entries, err := os.ReadDir(f.Dir)
	if err != nil {
		return nil, err
	}
	there := map[string]string{}
	for _, e := range entries {
		if segment, _ := container.CutSuffix(e.Name()); pg.IsSegmentName(segment) {
			there[segment] = e.Name()
		}
	}
	return there, nil
}

// hole takes the missing segments of one hole. want is filled in but for the start.
func (f *Filler) hole(ctx context.Context, h repo.Hole, want walpage.Want, there map[string]string) error {
	var errs []error
	for want.Start = want.Size.Start(h.From); want.Start < h.To; want.Start += pg.LSN(want.Size) {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if file := there[name(want)]; file != "" {
			errs = append(errs, f.take(ctx, file, want))
		}
		if want.Start+pg.LSN(want.Size) < want.Start { // past the largest LSN
			break
		}
	}
	return errors.Join(errs...)
}

func name(want walpage.Want) string { return pg.SegmentName(want.Timeline, want.Start, want.Size) }

// take stores the segment that is wanted from a file, if it is still missing and
// the file is what it says.
func (f *Filler) take(ctx context.Context, file string, want walpage.Want) error {
	segment := name(want)
	if have, err := f.Repo.HasSegment(ctx, segment); have || err != nil {
		return err
	}
	path := filepath.Join(f.Dir, file)
	in, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // cleaned up meanwhile
	}
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	_, codec := container.CutSuffix(file)
	plain, err := container.Decompress(codec, in)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	defer func() { _ = plain.Close() }()
	// One byte more than belongs there shows a file that is too long.
	checked := newCheckedReader(io.LimitReader(plain, int64(want.Size)+1), want)
	defer checked.close()
	stored, err := f.Repo.StoreSegment(ctx, segment, want.Size, checked, f.Codec, f.Level)
	if errors.Is(err, fs.ErrExist) {
		return nil // came another way meanwhile
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	f.Log.Warn("WAL of a hole taken from the archive directory", "segment", segment, "file", path, "bytes", stored)
	return nil
}

// A checkedReader passes a segment on while it is checked. The end of it is the
// error of the check, if there is one: nobody sees a clean end of a wrong segment.
type checkedReader struct {
	in   io.Reader
	pipe *io.PipeWriter
	done chan error // holds the outcome of the check
}

func newCheckedReader(in io.Reader, want walpage.Want) *checkedReader {
	r, w := io.Pipe()
	c := &checkedReader{in: in, pipe: w, done: make(chan error, 1)}
	go func() {
		err := walpage.CheckSegment(r, want)
		_ = r.CloseWithError(err) // what is wrong already stops the copying at once
		c.done <- err
	}()
	return c
}

func (c *checkedReader) Read(p []byte) (int, error) {
	n, err := c.in.Read(p)
	if n > 0 {
		if _, err := c.pipe.Write(p[:n]); err != nil && !errors.Is(err, io.ErrClosedPipe) {
			return 0, err
		}
	}
	if errors.Is(err, io.EOF) {
		_ = c.pipe.Close()
		checked := <-c.done
		c.done <- checked // for close, and for whoever reads on
		if checked != nil {
			return 0, checked
		}
	}
	return n, err
}

// close ends the check and waits for it.
func (c *checkedReader) close() {
	_ = c.pipe.CloseWithError(errors.New("not read to the end"))
	<-c.done
}
