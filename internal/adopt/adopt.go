package adopt

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pgmoneta/pgmoneta-go/internal/backup"
	"github.com/pgmoneta/pgmoneta-go/internal/container"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
	"github.com/pgmoneta/pgmoneta-go/internal/verify"
)

// Options tell how to store what is taken over.
type Options struct {
	Repo     *repo.Repository
	Codec    container.Codec
	Level    int
	Workers  int // 0 = one per CPU
	Progress func(phase string, done, total int64)
	Now      func() time.Time
	Log      *slog.Logger

	free func() (int64, error) // bytes free for the repository, for tests; nil = what the file system says
}

// A ProtectionError refuses to store what is encrypted with less protection than it has.
type ProtectionError struct {
	Label      repo.Label
	Have, Want container.Cipher
}

func (e *ProtectionError) Error() string {
	return fmt.Sprintf("backup %s, or one it is based on, is encrypted with %s, and what is stored now with %s: set encryption to what protects as much", e.Label, e.Have, e.Want)
}

// A SpaceError refuses to begin what probably does not fit. Sizes are bytes.
type SpaceError struct {
	Dir        string
	Need, Free int64
}

func (e *SpaceError) Error() string {
	const mib = 1 << 20
	return fmt.Sprintf("that takes about %d MiB in %s, where %d MiB are free: make room", (e.Need+mib-1)/mib, e.Dir, e.Free/mib)
}

// Dependents takes over every backup of C pgmoneta that needs one of gone and is not among them. It
// returns the labels of those that are taken over, oldest first, also with an error: then the others are as they were. The
// caller holds [repo.Repository.Lock].
func Dependents(ctx context.Context, o Options, gone ...repo.Label) ([]repo.Label, error) {
	list, err := o.Repo.Foreign().Dependents(ctx, gone...)
	if err != nil || len(list) == 0 {
		return nil, err
	}
	// What an earlier attempt has left is in the way, and takes room.
	if err := o.Repo.Sweep(ctx); err != nil {
		return nil, err
	}
	a := &adoption{Options: o, read: map[string]bool{}, copier: backup.NewCopier(backup.CopyOptions{
		Repo: o.Repo, Codec: o.Codec, Level: o.Level, Workers: o.Workers, Progress: o.Progress, Log: o.Log})}
	defer a.copier.Close()
	if err := a.check(ctx, list); err != nil {
		return nil, err
	}
	taken, err := a.all(ctx, list)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil && !errors.Is(err, cause) {
			err = fmt.Errorf("%w: %w", cause, err)
		}
		a.clean(ctx)
	}
	slices.Sort(taken)
	return taken, err
}

// clean removes the packs of a backup that was not taken over.
func (a *adoption) clean(ctx context.Context) {
	if err := a.Repo.Sweep(context.WithoutCancel(ctx)); err != nil {
		a.Log.Warn("what was stored of a backup that was not taken over stays for now", "err", err)
	}
}

type adoption struct {
	Options
	copier *backup.Copier
	read   map[string]bool // packs whose frames were read back, for one or another
}

// check refuses what cannot work before anything is stored.
func (a *adoption) check(ctx context.Context, list []repo.Backup) error {
	all, err := a.Repo.Foreign().Backups(ctx)
	if err != nil {
		return err
	}
	by := map[repo.Label]repo.Backup{}
	for _, b := range all {
		by[b.Label] = b
	}
	need := int64(0)
	for i, b := range list {
		t, err := a.Repo.Foreign().Open(ctx, b.Label)
		if err != nil {
			return fmt.Errorf("backup %s: %w", b.Label, err)
		}
		logical := t.Summary().Logical
		if err := t.Close(); err != nil {
			return err
		}
		stored, err := a.chain(b, by)
		if err != nil {
			return err
		}
		// The newest is stored whole, the others as what they do not share with it.
		switch last := i == len(list)-1; {
		case !last:
			need += min(b.Summary.Stored, logical)
		case a.Codec == container.None:
			need += logical
		default:
			need += min(stored, logical)
		}
	}
	return a.room(need)
}

// chain returns what a backup and those it is based on take, as C pgmoneta recorded it.
func (a *adoption) chain(b repo.Backup, by map[repo.Label]repo.Backup) (stored int64, err error) {
	label := b.Label
	for range len(by) {
		have, err := container.ParseCipher(b.Summary.Cipher)
		if err == nil && have > a.Repo.Cipher() {
			err = &ProtectionError{Label: label, Have: have, Want: a.Repo.Cipher()}
		}
		if err != nil {
			return 0, err
		}
		stored += b.Summary.Stored
		parent, ok := by[b.Summary.Base]
		if !ok {
			break
		}
		b = parent
	}
	return stored, nil
}

func (a *adoption) room(need int64) error {
	free := a.free
	if free == nil {
		free = func() (int64, error) {
			var st unix.Statfs_t
			err := unix.Statfs(a.Repo.Dir(), &st)
			return int64(st.Bavail) * st.Bsize, err
		}
	}
	have, err := free()
	if err == nil && have < need {
		err = &SpaceError{Dir: a.Repo.Dir(), Need: need, Free: have}
	}
	return err
}

// all takes over backups, those first that no other of them needs: they are read through the others.
func (a *adoption) all(ctx context.Context, list []repo.Backup) (taken []repo.Label, err error) {
	for len(list) > 0 {
		i, err := a.last(ctx, list)
		if err != nil {
			return taken, err
		}
		b := list[i]
		if err := a.one(ctx, b); err != nil {
			return taken, fmt.Errorf("backup %s: %w", b.Label, err)
		}
		taken, list = append(taken, b.Label), slices.Delete(list, i, i+1)
		if err := a.Repo.Foreign().Settle(ctx); err != nil {
			return taken, err
		}
	}
	return taken, nil
}

// last returns the place of a backup that no other of the list needs.
func (a *adoption) last(ctx context.Context, list []repo.Backup) (int, error) {
	for i, b := range slices.Backward(list) {
		needed, err := a.Repo.Foreign().Dependents(ctx, b.Label)
		if err != nil {
			return 0, err
		}
		if !slices.ContainsFunc(needed, func(n repo.Backup) bool {
			return slices.ContainsFunc(list, func(l repo.Backup) bool { return l.Label == n.Label })
		}) {
			return i, nil
		}
	}
	return 0, errors.New("they are based on each other")
}

// one takes over one backup.
func (a *adoption) one(ctx context.Context, b repo.Backup) error {
	started := time.Now()
	t, err := a.Repo.Foreign().Open(ctx, b.Label)
	if err != nil {
		return err
	}
	defer func() { _ = t.Close() }()
	c, err := a.copier.Copy(ctx, t)
	if err != nil {
		return err
	}
	defer c.Abort()
	if err := a.readBack(ctx, c); err != nil {
		return err
	}
	if err := a.wal(ctx, c.Summary); err != nil {
		return err
	}
	if note := noteOf(b); note.Keep || len(note.Comments) > 0 {
		note.At = a.Now()
		if err := a.Repo.PutFirstNote(ctx, b.Label, note); err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err := c.Commit(ctx); err != nil {
		return err
	}
	a.Log.Info("took over a backup of C pgmoneta", "label", string(b.Label), "bytes", c.Summary.Logical, "stored", c.Summary.Stored,
		"elapsed", time.Since(started).Round(time.Millisecond))
	return nil
}

// readBack reads every frame that a backup refers to, those of packs that it shares with one before it once.
func (a *adoption) readBack(ctx context.Context, c *backup.Copy) error {
	packs := slices.DeleteFunc(slices.Clone(c.Packs), func(p repo.PackRef) bool { return a.read[p.Name] })
	bad, err := verify.Stored(ctx, a.Repo, c.Summary, packs, verify.Options{Workers: a.Workers, Progress: a.Progress})
	if err != nil {
		return err
	}
	if bad != nil {
		// The next attempt shares nothing with it.
		err := a.Repo.RecordDamage(ctx, a.Now(), nil, map[string]error{bad.Object: bad.Err})
		return errors.Join(fmt.Errorf("it is stored, but not to be read back: %w", bad.Err), err)
	}
	for _, p := range packs {
		a.read[p.Name] = true
	}
	return nil
}

// wal makes sure that the WAL of a backup is there without what C pgmoneta wrote of it.
func (a *adoption) wal(ctx context.Context, s repo.Summary) error {
	a.Progress("WAL", 0, 0)
	plan, err := verify.PlanWAL(ctx, a.Repo, s)
	if err != nil {
		return err
	}
	var missing []string
	for _, name := range plan {
		have, err := a.Repo.HasSegment(ctx, name)
		if err != nil {
			return err
		}
		if !have {
			missing = append(missing, name)
		}
	}
	if err := a.Repo.Foreign().KeepWAL(ctx, s.Label, missing); err != nil {
		return err
	}
	return verify.Segments(ctx, a.Repo, plan, s.SegmentSize, max(a.Workers, 1))
}

// noteOf returns keep flag and comments, which C pgmoneta writes as "key|text,key|text".
func noteOf(b repo.Backup) repo.Note {
	n := repo.Note{Keep: b.Keep}
	for pair := range strings.SplitSeq(b.Comments, ",") {
		key, text, _ := strings.Cut(pair, "|")
		if key != "" {
			n.Comments = append(n.Comments, repo.Comment{Key: key, Text: text})
		}
	}
	return n
}
