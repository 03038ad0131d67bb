package repo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pgmoneta/pgmoneta-go/internal/container"
	"github.com/pgmoneta/pgmoneta-go/internal/pg"
	"github.com/pgmoneta/pgmoneta-go/internal/storage"
)

// ReceiveDir is where segments are received before they are stored. A name
// with the suffix ".partial" is being filled; one without is complete and durable.
func (r *Repository) ReceiveDir() string { return filepath.Join(r.dir, "receive") }

func segmentObject(name string) string { return "wal/" + name[:8] + "/" + name }

func historyObject(tli pg.Timeline) string { return "wal/" + pg.HistoryName(tli) }

// StoreSegment stores a complete segment of the given name from in, which must
// hold exactly size bytes. It fails with [fs.ErrExist] if it is there already, and
// when it should be sealed and cannot be. Holes that it is the last to fill are
// not recorded any more.
func (r *Repository) StoreSegment(ctx context.Context, name string, size pg.SegmentSize, in io.Reader, codec container.Codec, level int) (stored int64, err error) {
	// Segments of an earlier run are stored before a server was reached and Bind called.
	if err := r.prepareKeys(ctx, OwnerWAL); err != nil {
		return 0, err
	}
	stage, err := r.engine.Stage(ctx, OwnerWAL)
	if err != nil {
		return 0, err
	}
	defer func() { _ = stage.Abort() }()
	up, err := stage.Create(ctx, segmentObject(name))
	if err != nil {
		return 0, err
	}
	cw, err := r.NewContainer(up, segmentObject(name), container.Segment, codec)
	if err != nil {
		return 0, err
	}
	w, err := cw.Stream(level)
	if err != nil {
		return 0, err
	}
	n, err := io.Copy(w, in)
	if err != nil {
		return 0, err
	}
	if n != int64(size) {
		return 0, fmt.Errorf("segment %s has %d bytes, want %d", name, n, size)
	}
	if err := w.Finish(); err != nil {
		return 0, err
	}
	if err := up.Close(); err != nil {
		return 0, err
	}
	if err := stage.Commit(ctx); err != nil {
		return 0, err
	}
	// The segment is stored, whatever becomes of the record: one that stays says
	// too much, never too little, and a check of the archive removes it.
	_ = r.FillHolesAround(ctx, name, size)
	return w.Len(), nil
}

// A WALSegment is an opened segment. Close it.
type WALSegment struct {
	*container.Reader
	object storage.Object
}

// Close closes the segment's object.
func (s *WALSegment) Close() error { return s.object.Close() }

// OpenSegment opens a stored segment. A missing one is [fs.ErrNotExist].
func (r *Repository) OpenSegment(ctx context.Context, name string) (*WALSegment, error) {
	if !pg.IsSegmentName(name) {
		return nil, fmt.Errorf("%q is no name of a WAL segment", name)
	}
	c, o, err := r.OpenContainer(ctx, segmentObject(name), container.Segment)
	if err != nil {
		return nil, err
	}
	return &WALSegment{Reader: c, object: o}, nil
}

// HasSegment reports whether a segment is stored.
func (r *Repository) HasSegment(ctx context.Context, name string) (bool, error) {
	o, err := r.engine.Open(ctx, segmentObject(name))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, o.Close()
}

// A WALListing is what is stored of a server's WAL.
type WALListing struct {
	Segments  []string // names, ascending
	Sizes     []int64  // of Segments, stored
	Histories []pg.Timeline
	Bytes     int64 // stored
}

// ListWAL lists the stored WAL.
func (r *Repository) ListWAL(ctx context.Context) (WALListing, error) {
	objects, err := r.engine.List(ctx, "wal")
	if err != nil {
		return WALListing{}, err
	}
	var l WALListing
	for _, o := range objects {
		base := o.Name[strings.LastIndexByte(o.Name, '/')+1:]
		if pg.IsSegmentName(base) && o.Name == segmentObject(base) {
			l.Segments, l.Sizes = append(l.Segments, base), append(l.Sizes, o.Size)
			l.Bytes += o.Size
		} else if tli, ok := pg.ParseHistoryName(base); ok {
			l.Histories = append(l.Histories, tli)
			l.Bytes += o.Size
		}
	}
	return l, nil
}

// StoreHistory stores a timeline history file as the server sent it. One that
// is there already must have the same content up to the last ancestor.
func (r *Repository) StoreHistory(ctx context.Context, tli pg.Timeline, content []byte) error {
	err := r.PutRecord(ctx, OwnerWAL, historyObject(tli), content)
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	taken, err := r.takeHistory(ctx, tli, content)
	if taken || err != nil {
		return err
	}
	have, err := r.HistoryContent(ctx, tli)
	if err != nil {
		return err
	}
	if string(have) != string(content) {
		return fmt.Errorf("server %q: history of timeline %d differs from the stored %s: two servers were promoted to the same timeline",
			r.server, tli, filepath.Join(r.dir, historyObject(tli)))
	}
	return nil
}

// takeHistory exchanges a history file of C pgmoneta for one of ours if the server sent the
// same. Theirs have the names of our objects, if no digit is a letter, and end in a NUL, which
// no server sends; they are never sealed. After a crash in between the server sends it again.
func (r *Repository) takeHistory(ctx context.Context, tli pg.Timeline, content []byte) (taken bool, err error) {
	name := historyObject(tli)
	have, err := storage.ReadAll(ctx, r.engine, name, historyLimit)
	if err != nil || string(have) != string(content)+"\x00" {
		return false, err
	}
	if err := r.engine.Delete(ctx, name); err != nil {
		return false, err
	}
	return true, r.PutRecord(ctx, OwnerWAL, name, content)
}

const historyLimit = 1 << 20

// HistoryContent returns the stored history file of tli, byte for byte, or that of the
// [Foreign] when we have none. One that cannot be read is damaged.
func (r *Repository) HistoryContent(ctx context.Context, tli pg.Timeline) ([]byte, error) {
	b, err := r.ReadRecord(ctx, historyObject(tli), historyLimit)
	if errors.Is(err, fs.ErrNotExist) && r.foreign != nil {
		return r.foreign.History(ctx, tli)
	}
	if err != nil {
		return nil, err
	}
	b = bytes.TrimRight(b, "\x00") // one that C pgmoneta wrote ends in a NUL
	h, err := pg.ParseHistory(tli, b)
	if err == nil && len(h.Ancestors) == 0 {
		err = fmt.Errorf("%s has no ancestor", pg.HistoryName(tli))
	}
	if err != nil {
		return nil, &container.DamagedError{Object: historyObject(tli), Frame: -1, Err: err}
	}
	return b, nil
}

// History returns the history of tli. Timeline 1 needs no file.
func (r *Repository) History(ctx context.Context, tli pg.Timeline) (pg.History, error) {
	if tli == 1 {
		return pg.History{Timeline: 1}, nil
	}
	b, err := r.HistoryContent(ctx, tli)
	if err != nil {
		return pg.History{}, fmt.Errorf("server %q: history of timeline %d: %w", r.server, tli, err)
	}
	return pg.ParseHistory(tli, b)
}

// Received lists the segments in the receive directory: those complete but not
// yet stored, and those being filled, without their suffix.
func (r *Repository) Received() (complete, partial []string, err error) {
	entries, err := os.ReadDir(r.ReceiveDir())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	for _, e := range entries {
		// One whose conversion was cut short (see ReceiveFS) has its last suffix still.
		name, isPartial := strings.CutSuffix(strings.TrimSuffix(e.Name(), convertedSuffix), partialSuffix)
		switch {
		case !pg.IsSegmentName(name):
		case isPartial && !slices.Contains(partial, name):
			partial = append(partial, name)
		case isPartial:
		default:
			complete = append(complete, name)
		}
	}
	return complete, partial, err
}

// OwnerPush owns the stages of archive_command; see [storage.Engine.Sweep].
const OwnerPush = "push"

// WALObject returns the name of the object that holds a file of an archive: a
// segment, one left partial by a promotion (suffix ".partial"), a backup
// history file (suffix ".<offset>.backup") or a timeline history file. The first
// two are containers of their own kind, the others records. ok is false for any other name.
//
// See PostgreSQL documentation, "Continuous Archiving and PITR".
func WALObject(file string) (object string, ok bool) {
	if tli, ok := pg.ParseHistoryName(file); ok && file == pg.HistoryName(tli) {
		return historyObject(tli), true
	}
	segment, suffix, _ := strings.Cut(file, ".")
	if !pg.IsSegmentName(segment) {
		return "", false
	}
	offset, isLabel := strings.CutSuffix(suffix, ".backup")
	isLabel = isLabel && len(offset) == 8 && strings.Trim(offset, "0123456789ABCDEF") == ""
	if file != segment && suffix != "partial" && !isLabel {
		return "", false
	}
	return "wal/" + segment[:8] + "/" + file, true
}
