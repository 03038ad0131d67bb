package walfile

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/durable"
	"github.com/pgmoneta/pgmoneta-go/internal/pg"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
)

// droppedDirectory remembers, in pg_wal, the segments that were given up and whose
// hole could not be recorded, because the repository's disk was full for instance.
//
//	<key>.<segment>.<size>   empty: that takes no space; its time is that of the drop
//
// The key stands for the repository: several may archive one server.
const droppedDirectory = "pgmoneta-dropped"

// recordedBy is the origin of holes that a push records.
const recordedBy = "archive_command"

// drop gives a segment up. It returns a [*DroppedError] when that is known to the
// repository, or will be; any other error means that the segment is not given up,
// because nobody would ever know.
func (p *Pusher) drop(ctx context.Context, r *repo.Repository, src *source, queued int64) error {
	dropped := &DroppedError{Queued: queued, Limit: p.MaxQueue}
	g := given{segment: src.name, size: pg.SegmentSize(src.size), at: time.Now()}
	if dropped.Err = g.record(ctx, r); dropped.Err == nil {
		return dropped
	}
	var err error
	if dropped.Remembered, err = g.remember(r, filepath.Dir(src.Name())); err != nil {
		return fmt.Errorf("not dropped: the hole can neither be recorded (%w) nor remembered: %w", dropped.Err, err)
	}
	return dropped
}

// A given is a segment that was given up.
type given struct {
	segment string
	size    pg.SegmentSize
	at      time.Time
}

// record records the hole that the segment leaves, unless the receiver has
// stored it or is about to.
func (g given) record(ctx context.Context, r *repo.Repository) error {
	tli, start, err := pg.ParseSegmentName(g.segment, g.size)
	if err != nil {
		return err
	}
	if (&archive{repo: r}).has(ctx, g.segment) {
		return nil
	}
	h := repo.Hole{Timeline: tli, From: start, To: start + pg.LSN(g.size), Cause: repo.CauseDropped, NoticedAt: g.at, By: recordedBy}
	if err := r.RecordHole(ctx, h); err != nil {
		return err
	}
	// The receiver may have stored it while we recorded: it looks for holes after
	// the segment is there, we look for the segment after the hole is.
	return r.FillHolesAround(ctx, g.segment, g.size)
}

// remember makes the file that stands for the hole, durably, and returns its path.
func (g given) remember(r *repo.Repository, walDir string) (string, error) {
	key, err := droppedKey(r)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(walDir, droppedDirectory)
	if err := durable.MkdirAll(durable.OS{}, dir); err != nil {
		return "", err
	}
	path := filepath.Join(dir, fmt.Sprintf("%s.%s.%d", key, g.segment, g.size))
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return "", err
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return "", err
	}
	return path, durable.OS{}.SyncDir(dir)
}

func droppedKey(r *repo.Repository) (string, error) {
	dir, err := filepath.Abs(r.Dir())
	sum := sha256.Sum256([]byte(dir))
	return hex.EncodeToString(sum[:8]), err
}

// parseDropped reads the name of a file that stands for a hole of the repository
// with that key.
func parseDropped(key, name string) (g given, ok bool) {
	parts := strings.Split(name, ".")
	if len(parts) != 3 || parts[0] != key {
		return given{}, false
	}
	size, err := strconv.ParseInt(parts[2], 10, 64)
	g = given{segment: parts[1], size: pg.SegmentSize(size)}
	if err != nil || !g.size.Valid() {
		return given{}, false
	}
	_, _, err = pg.ParseSegmentName(g.segment, g.size)
	return g, err == nil
}

// recall records the holes that earlier pushes could only remember.
func recall(ctx context.Context, r *repo.Repository, walDir string) error {
	dir := filepath.Join(walDir, droppedDirectory)
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	key, errKey := droppedKey(r)
	if err := errors.Join(err, errKey); err != nil {
		return err
	}
	for _, e := range entries {
		g, ok := parseDropped(key, e.Name())
		if !ok {
			continue
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		g.at = info.ModTime()
		if err := g.record(ctx, r); err != nil {
			return err
		}
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	_ = os.Remove(dir) // unless it holds what is another repository's
	return nil
}
