package wal

import (
	"context"
	"fmt"
	"io"
	"path"
	"path/filepath"

	"github.com/pgmoneta/pgmoneta-go/internal/container"
	"github.com/pgmoneta/pgmoneta-go/internal/durable"
	"github.com/pgmoneta/pgmoneta-go/internal/pg"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
	"github.com/pgmoneta/pgmoneta-go/internal/storage"
)

// ownerShip owns the stages of shipping in the directory shipped to.
const ownerShip = "ship"

// sealed reports whether copies are those of the sealed objects.
func (s *shipper) sealed() bool { return s.r.Repo.Cipher() != container.Plain && !s.r.ShipPlain }

// shipSealed copies the objects of WAL as they are, with the repository's identity
// and its keys before them. So <to>/<server> becomes a repository of its own, which
// holds WAL and no backups, and is read with the same master key.
func (s *shipper) shipSealed(ctx context.Context) error {
	root := filepath.Dir(s.dir)
	from, to := s.r.Repo.Engine(), storage.NewLocal(s.r.FS, root)
	missing, segments, err := s.missing(ctx, from, to)
	if err != nil {
		return err
	}
	s.tell(segments)
	if err := durable.MkdirAll(s.r.FS, root); err != nil {
		return err
	}
	if err := to.Sweep(ctx, ownerShip); err != nil {
		return err
	}
	for _, name := range missing {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := s.copy(ctx, from, to, name); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if pg.IsSegmentName(path.Base(name)) {
			segments--
			s.tell(segments)
		}
	}
	return nil
}

// missing lists the objects that are not in to yet, keys before what they open,
// and how many of them are segments.
func (s *shipper) missing(ctx context.Context, from, to storage.Engine) (names []string, segments int, err error) {
	for _, prefix := range []string{"format", "key", "wal"} {
		have, err := from.List(ctx, prefix)
		if err != nil {
			return nil, 0, err
		}
		there, err := to.List(ctx, prefix)
		if err != nil {
			return nil, 0, err
		}
		shipped := map[string]bool{}
		for _, o := range there {
			shipped[o.Name] = true
		}
		for _, o := range have {
			if shipped[o.Name] || prefix == "wal" && !isWAL(o.Name) {
				continue
			}
			names = append(names, o.Name)
			if pg.IsSegmentName(path.Base(o.Name)) {
				segments++
			}
		}
	}
	return names, segments, nil
}

// isWAL reports whether an object is one of ours; C pgmoneta keeps WAL there too.
func isWAL(name string) bool {
	object, ok := repo.WALObject(path.Base(name))
	return ok && object == name
}

func (s *shipper) copy(ctx context.Context, from, to storage.Engine, name string) error {
	in, err := from.Open(ctx, name)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	stage, err := to.Stage(ctx, ownerShip)
	if err != nil {
		return err
	}
	defer func() { _ = stage.Abort() }()
	out, err := stage.Create(ctx, name)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, io.NewSectionReader(in, 0, in.Size())); err != nil {
		return err
	}
	if err := out.Close(); err != nil {
		return err
	}
	if err := stage.Commit(ctx); err != nil {
		return err
	}
	return s.arrived(ctx, path.Base(name))
}

// arrived reports a segment as shipped.
func (s *shipper) arrived(ctx context.Context, segment string) error {
	if !pg.IsSegmentName(segment) {
		return nil
	}
	seg, err := s.r.Repo.OpenSegment(ctx, segment)
	if err != nil {
		return err
	}
	defer func() { _ = seg.Close() }()
	tli, start, err := pg.ParseSegmentName(segment, pg.SegmentSize(seg.Plain()))
	if err == nil {
		s.r.Monitor.Shipped(tli, start+pg.LSN(seg.Plain()))
	}
	return err
}
