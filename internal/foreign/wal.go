package foreign

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"slices"
	"strings"

	"github.com/pgmoneta/pgmoneta-go/internal/container"
	"github.com/pgmoneta/pgmoneta-go/internal/pg"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
)

const partialSuffix = ".partial"

// historyLimit bounds a timeline history.
const historyLimit = 1 << 20

// WAL implements [repo.Foreign].
func (r *Repository) WAL(ctx context.Context) (repo.ForeignWAL, error) {
	names, err := r.names("wal")
	if err != nil {
		return repo.ForeignWAL{}, err
	}
	var w repo.ForeignWAL
	for _, name := range names {
		plain, c, sealed := split(name)
		segment, partial := strings.CutSuffix(plain, partialSuffix)
		tli, history := pg.ParseHistoryName(name)
		switch {
		case history:
			w.Histories = append(w.Histories, tli)
		case !pg.IsSegmentName(segment):
		case !partial:
			w.Segments = append(w.Segments, segment)
		case c == container.None && !sealed:
			w.Partial = append(w.Partial, segment)
		}
	}
	slices.Sort(w.Segments)
	w.Segments = slices.Compact(w.Segments)
	slices.Sort(w.Histories)
	w.Histories = slices.Compact(w.Histories)
	return w, context.Cause(ctx)
}

// names lists the regular files of a directory, and links. A missing one is empty.
func (r *Repository) names(dir string) ([]string, error) {
	d, err := r.root.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	entries, err := d.ReadDir(-1)
	var names []string
	for _, e := range entries {
		if !e.IsDir() {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	return names, errors.Join(err, d.Close())
}

// walOf lists the segments that lie in a backup itself.
func (r *Repository) walOf(l repo.Label) ([]string, error) {
	names, err := r.names(backupDir(l) + "/data/" + walName)
	if err != nil {
		return nil, err
	}
	var segments []string
	for _, name := range names {
		if plain, _, _ := split(name); pg.IsSegmentName(plain) {
			segments = append(segments, plain)
		}
	}
	return slices.Compact(segments), nil
}

// OpenWAL implements [repo.Foreign]. Nothing says how WAL was encrypted.
func (r *Repository) OpenWAL(ctx context.Context, name string) (io.ReadCloser, error) {
	s, err := r.find("wal/"+name, container.None, false, keySizes(0))
	if err != nil {
		return nil, err
	}
	return r.open(ctx, s)
}

// OpenWAL implements [repo.Tree].
func (t *tree) OpenWAL(ctx context.Context, name string) (io.ReadCloser, error) {
	return t.openMember(ctx, 0, walName+"/"+name)
}

// History implements [repo.Foreign]. C pgmoneta writes the names in lower case, and a NUL behind the text.
func (r *Repository) History(_ context.Context, tli pg.Timeline) ([]byte, error) {
	name := pg.HistoryName(tli)
	b, err := r.small("wal/"+name, historyLimit)
	if lower := strings.ToLower(name); errors.Is(err, fs.ErrNotExist) && lower != name {
		b, err = r.small("wal/"+lower, historyLimit)
	}
	if err != nil {
		return nil, err
	}
	return []byte(strings.TrimRight(string(b), "\x00")), nil
}
