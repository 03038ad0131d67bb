package repo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/container"
	"github.com/pgmoneta/pgmoneta-go/internal/storage"
)

// A backup waits in the trash while there is the object
//
//	trash/<label>
//
// whose content tells since when. Its manifest and its data stay as they are, so that
// nothing needs to be put together again when it is brought back: then the object goes.
const trashPrefix = "trash"

func trashName(l Label) string { return path.Join(trashPrefix, string(l)) }

// A TrashedError reports a backup that was deleted and waits in the trash. It wraps
// [ErrNoBackup].
type TrashedError struct {
	Server string
	Label  Label
}

func (e *TrashedError) Error() string {
	return fmt.Sprintf("server %q: backup %s was deleted and waits in the trash: pgmoneta-cli undelete %s %s brings it back", e.Server, e.Label, e.Server, e.Label)
}

func (e *TrashedError) Unwrap() error { return ErrNoBackup }

// A Trashed is a backup in the trash.
type Trashed struct {
	Backup
	DeletedAt time.Time // UTC; zero when that cannot be read
}

type trashMark struct {
	DeletedAt time.Time `json:"deleted_at"`
}

// inTrash returns the labels in the trash.
func (r *Repository) inTrash(ctx context.Context) (map[Label]bool, error) {
	names, err := storage.Children(ctx, r.engine, trashPrefix)
	if err != nil {
		return nil, err
	}
	labels := map[Label]bool{}
	for _, name := range names {
		if l, err := ParseLabel(name); err == nil {
			labels[l] = true
		}
	}
	return labels, nil
}

// InTrash lists the backups in the trash, oldest first.
func (r *Repository) InTrash(ctx context.Context) ([]Trashed, error) {
	labels, err := r.inTrash(ctx)
	if err != nil || len(labels) == 0 {
		return nil, err
	}
	var s container.Scratch
	defer s.Close()
	var list []Trashed
	for l := range labels {
		b := r.backup(ctx, l, &s)
		if errors.Is(b.Err, fs.ErrNotExist) {
			continue // deleted for good; the next sweep removes the mark
		}
		list = append(list, Trashed{b, r.deletedAt(ctx, l)})
	}
	slices.SortFunc(list, func(a, b Trashed) int { return strings.Compare(string(a.Label), string(b.Label)) })
	return list, nil
}

func (r *Repository) deletedAt(ctx context.Context, l Label) time.Time {
	content, err := r.ReadRecord(ctx, trashName(l), recordLimit)
	var mark trashMark
	if err != nil || json.Unmarshal(content, &mark) != nil {
		return time.Time{}
	}
	return mark.DeletedAt
}

// Trash puts backups of ours into the trash: they are not listed any more, and nothing of
// them goes. Like [Repository.Expire] it ends with a [*KeptError] at the first that is to be
// kept, unless forced, and returns the labels of those that are in the trash. The caller
// holds [Repository.Lock].
func (r *Repository) Trash(ctx context.Context, now time.Time, force bool, labels ...Label) ([]Label, error) {
	content, err := json.Marshal(trashMark{now.UTC()})
	if err != nil {
		return nil, err
	}
	var gone []Label
	err = r.changeSeries(ctx, func() error {
		for _, l := range labels {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if n, err := r.Note(ctx, l); (err != nil || n.Keep) && !force {
				return &KeptError{r.server, l, err}
			}
			if err := r.PutRecord(ctx, OwnerNote, trashName(l), append(content, '\n')); err != nil && !errors.Is(err, fs.ErrExist) {
				return err
			}
			gone = append(gone, l)
		}
		return nil
	})
	return gone, err
}

// Undelete brings a backup back from the trash: by its label, or "newest", "latest" or
// "oldest" of those in there. Any process may call it at any time; who deletes it for
// good at the same moment does so either before or not at all.
func (r *Repository) Undelete(ctx context.Context, id string) (Backup, error) {
	var b Backup
	err := r.changeSeries(ctx, func() error {
		list, err := r.InTrash(ctx)
		if err != nil {
			return err
		}
		i := slices.IndexFunc(list, func(t Trashed) bool { return string(t.Label) == id })
		switch {
		case len(list) == 0:
		case id == "oldest":
			i = 0
		case id == "newest" || id == "latest":
			i = len(list) - 1
		}
		if i < 0 {
			return fmt.Errorf("server %q: backup %q is not in the trash: %w", r.server, id, ErrNoBackup)
		}
		b = list[i].Backup
		return r.engine.Delete(ctx, trashName(b.Label))
	})
	return b, err
}

// Purge deletes backups in the trash for good. Those that somebody has brought back
// meanwhile stay. It returns the labels of those that are gone. The caller holds
// [Repository.Lock]; after a crash [Repository.Sweep] finishes the work.
func (r *Repository) Purge(ctx context.Context, labels ...Label) ([]Label, error) {
	var gone []Label
	if err := r.settle(ctx, labels...); err != nil {
		return nil, err
	}
	err := r.changeSeries(ctx, func() error {
		for _, l := range labels {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			there, err := r.exists(ctx, trashName(l))
			if err != nil {
				return err
			}
			if !there {
				continue
			}
			if err := r.engine.Delete(ctx, manifestName(l)); err != nil {
				return err
			}
			gone = append(gone, l)
		}
		return nil
	})
	if len(gone) > 0 && ctx.Err() == nil {
		err = errors.Join(err, r.Sweep(ctx))
	}
	return gone, err
}

// strayMarks lists the marks of backups that are gone for good.
func (r *Repository) strayMarks(ctx context.Context, listed []Label) ([]string, error) {
	labels, err := r.inTrash(ctx)
	if err != nil {
		return nil, err
	}
	var names []string
	for l := range labels {
		if _, found := slices.BinarySearch(listed, l); !found {
			names = append(names, trashName(l))
		}
	}
	return names, nil
}
