package walfile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/pgmoneta/pgmoneta-go/internal/durable"
	"github.com/pgmoneta/pgmoneta-go/internal/foreign"
	"github.com/pgmoneta/pgmoneta-go/internal/pg"
)

// What is not in our archive may be in what C pgmoneta left beside it.

// beside opens that for the time of do.
func (a *archive) beside(do func(f *foreign.Repository) error) error {
	f, err := foreign.Open(durable.OS{}, a.repo, a.masterKey)
	if err != nil {
		return err
	}
	err = do(f)
	if errors.Is(err, fs.ErrNotExist) {
		err = ErrNotArchived
	}
	return errors.Join(err, f.Close())
}

// foreign writes a complete segment of C pgmoneta to out.
func (a *archive) foreign(ctx context.Context, name string, out *os.File) (size pg.SegmentSize, err error) {
	err = a.beside(func(f *foreign.Repository) error {
		in, err := f.OpenWAL(ctx, name)
		if err != nil {
			return err
		}
		if size, err = a.copyForeign(in, name, out); err != nil {
			err = fmt.Errorf("segment of C pgmoneta: %w", err)
		}
		return errors.Join(err, in.Close())
	})
	return size, err
}

func (a *archive) copyForeign(in io.Reader, name string, out *os.File) (pg.SegmentSize, error) {
	if err := empty(out); err != nil {
		return 0, err
	}
	if _, err := out.Seek(0, io.SeekStart); err != nil {
		return 0, err
	}
	page, err := readFirst(in)
	if err != nil {
		return 0, err
	}
	if _, err := out.Write(page); err != nil {
		return 0, err
	}
	n, err := io.Copy(out, io.LimitReader(in, int64(pg.MaxSegmentSize)))
	if err != nil {
		return 0, err
	}
	return a.check(name, page, n+int64(len(page)))
}

// foreignSegments lists the complete segments of C pgmoneta.
func (a *archive) foreignSegments(ctx context.Context) (names []string, err error) {
	err = a.beside(func(f *foreign.Repository) error {
		w, err := f.WAL(ctx)
		names = w.Segments
		return err
	})
	return names, err
}

// foreignHistory returns a timeline history of C pgmoneta.
func (a *archive) foreignHistory(ctx context.Context, file string) (content []byte, err error) {
	tli, ok := pg.ParseHistoryName(file)
	if !ok {
		return nil, ErrNotArchived
	}
	err = a.beside(func(f *foreign.Repository) error {
		content, err = f.History(ctx, tli)
		return err
	})
	return content, err
}
