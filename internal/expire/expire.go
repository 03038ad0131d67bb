package expire

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/pg"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
	"github.com/pgmoneta/pgmoneta-go/internal/retention"
)

// Options say what to decide by.
type Options struct {
	Repo      *repo.Repository
	Policy    retention.Policy
	Now       func() time.Time
	Unshipped bool   // copies of segments are made ...
	Shipped   pg.LSN // ... and were made up to here
	Progress  func(phase string, done, total int64)
}

// A Result is what was decided and, after [Run], done.
type Result struct {
	retention.Plan
	BackupBytes int64 // that the deleted backups alone take
	WALBytes    int64
	Packs       []string // of deleted backups; some may have become mostly dead
}

// Look decides.
func Look(ctx context.Context, o Options) (Result, error) {
	result, _, err := o.look(ctx)
	return result, err
}

func (o Options) finder() *finder {
	return &finder{repo: o.Repo, unshipped: o.Unshipped, shipped: o.Shipped, foreign: map[repo.Label]bool{}, bytes: map[string]int64{}}
}

func (o Options) look(ctx context.Context) (Result, *finder, error) {
	f := o.finder()
	c, err := f.catalogue(ctx)
	if err != nil {
		return Result{}, nil, err
	}
	result := Result{Plan: retention.Decide(c, o.Policy, o.Now())}
	for _, s := range result.WAL {
		result.WALBytes += f.bytes[s.Name]
	}
	if gone := f.own(o.forGood(&result)); len(gone) > 0 {
		if result.BackupBytes, err = o.Repo.Freed(ctx, gone); err != nil {
			return Result{}, nil, err
		}
	}
	return result, f, nil
}

// forGood returns the labels of the backups whose data goes now.
func (o Options) forGood(result *Result) []repo.Label {
	if o.Policy.Delay > 0 {
		return result.Purge()
	}
	return append(result.Delete(), result.Purge()...)
}

// rounds bounds how often a round begins anew because somebody kept a backup, or brought one back.
const rounds = 5

// Run decides and deletes. The caller holds [repo.Repository.Lock].
func Run(ctx context.Context, o Options) (Result, error) {
	for n := 1; ; n++ {
		result, f, err := o.look(ctx)
		if err != nil {
			return Result{}, err
		}
		err = o.delete(ctx, f, &result)
		var kept *repo.KeptError
		again := errors.As(err, &kept) || errors.Is(err, errUndeleted)
		if err == nil || !again || n == rounds {
			return result, err
		}
	}
}

// errUndeleted reports that somebody brought a backup back that the round was about to
// delete for good.
var errUndeleted = errors.New("a backup was brought back from the trash meanwhile: run the retention again")

func (o Options) delete(ctx context.Context, f *finder, result *Result) error {
	if err := o.deleteBackups(ctx, f, result); err != nil {
		return err
	}
	if purge := result.Purge(); len(purge) > 0 {
		o.Progress("Delete backup", 0, int64(len(purge)))
		result.Packs = append(result.Packs, o.Repo.PacksOf(ctx, f.own(purge)...)...)
		gone, err := o.Repo.Purge(ctx, purge...)
		if err != nil {
			return err
		}
		if len(gone) < len(purge) {
			return errUndeleted // its WAL must not go
		}
	}
	if len(result.WAL) == 0 {
		return nil
	}
	o.Progress("Delete WAL", 0, result.WALBytes)
	names := make([]string, len(result.WAL))
	for i, s := range result.WAL {
		names[i] = s.Name
	}
	_, err := o.Repo.DeleteWAL(ctx, names, f.size)
	return err
}

// deleteBackups deletes what no rule keeps, or puts what is ours of it into the trash.
func (o Options) deleteBackups(ctx context.Context, f *finder, result *Result) error {
	gone := result.Delete()
	switch own := f.own(gone); {
	case len(own) == 0:
	case o.Policy.Delay > 0:
		if _, err := o.Repo.Trash(ctx, o.Now(), false, own...); err != nil {
			return err
		}
	default:
		o.Progress("Delete backup", 0, int64(len(gone)))
		result.Packs = o.Repo.PacksOf(ctx, own...)
		if _, err := o.Repo.Expire(ctx, own...); err != nil {
			return err
		}
	}
	theirs := slices.DeleteFunc(gone, func(l repo.Label) bool { return !f.foreign[l] })
	if len(theirs) == 0 {
		return nil
	}
	if err := o.Repo.Foreign().Delete(ctx, theirs...); err != nil {
		return fmt.Errorf("server %q: delete backups of C pgmoneta: %w", o.Repo.Server(), err)
	}
	return nil
}
