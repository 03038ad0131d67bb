package repo

import (
	"context"
	"io"
	"iter"
	"slices"
	"strings"

	"github.com/pgmoneta/pgmoneta-go/internal/pg"
)

// A Foreign reads what another program keeps in the directory of a server, beside our
// own objects: backups, which can be listed, verified, restored and deleted, and WAL.
// Nothing new is ever written in its format. It is safe for concurrent use; the
// caller of Delete, KeepWAL and Settle holds [Repository.Lock].
//
// A backup of it may become one of ours with the same label. It is ours from the moment on
// at which it has a [Manifest]; what the other program wrote is then of no use, and not listed.
type Foreign interface {
	// Backups lists its backups, oldest first. What stands in the way of one is in
	// its row and hides no other.
	Backups(ctx context.Context) ([]Backup, error)

	// Open opens the data of a backup. It fails when the backup cannot be restored.
	Open(ctx context.Context, label Label) (Tree, error)

	// Delete removes backups, each after those of them that need it, and hurts no other one: what
	// others share with them stays theirs. It refuses, before it removes anything, when they have
	// Dependents. After a crash at any moment every backup that is still listed is whole, and
	// repeating the call for what is left, or a sweep, finishes the work.
	Delete(ctx context.Context, labels ...Label) error

	// Dependents lists the backups that cannot be restored without one of labels and are
	// not among them, oldest first.
	Dependents(ctx context.Context, labels ...Label) ([]Backup, error)

	// KeepWAL makes WAL that lies in a backup itself, and that is found neither outside of
	// backups nor among ours, part of the WAL outside of backups.
	KeepWAL(ctx context.Context, label Label, segments []string) error

	// Settle removes what is left of backups that have become ours. Others keep what they share with
	// it. What one of them still needs to be restored stays, which is an error for those of
	// labels. After a crash the next call goes on.
	Settle(ctx context.Context, labels ...Label) error

	// WAL lists the WAL that it keeps outside of backups.
	WAL(ctx context.Context) (ForeignWAL, error)

	// OpenWAL opens the plain bytes of a segment of that WAL; a name with the suffix
	// ".partial" stands for one that was being received. A missing one is [fs.ErrNotExist].
	OpenWAL(ctx context.Context, name string) (io.ReadCloser, error)

	// History returns the history file of a timeline, or [fs.ErrNotExist].
	History(ctx context.Context, tli pg.Timeline) ([]byte, error)
}

// A ForeignWAL is what a [Foreign] has of a server's WAL.
type ForeignWAL struct {
	Segments  []string // complete ones
	Partial   []string // being received, without their suffix
	Histories []pg.Timeline
}

// A Tree is the data of a backup of a [Foreign], seen as the data directory that it
// is restored to. Its methods are safe for concurrent use. Close it.
type Tree interface {
	Summary() Summary

	// Files yields directories, links to tablespaces and regular files. Paths are those
	// of a [Manifest]; what is in pg_wal is left out. Extents are not used. Each call
	// yields the same rows in the same order.
	Files() iter.Seq2[File, error]

	// OpenFile opens the plain bytes of a regular file that Files yielded. The
	// reader ends with [io.EOF] only if they are whole and as recorded.
	OpenFile(ctx context.Context, f File) (io.ReadCloser, error)

	// OpenManifest opens PostgreSQL's own manifest as it was received. It describes
	// the files unless the summary says that they are overlaid.
	OpenManifest(ctx context.Context) (io.ReadCloser, error)

	// WAL lists the segments that lie in the backup itself, and OpenWAL opens one.
	WAL() []string
	OpenWAL(ctx context.Context, name string) (io.ReadCloser, error)

	// CheckStored compares every stored file with what was recorded of it, and
	// calls found for each that differs or is missing; name is that of the stored file.
	CheckStored(ctx context.Context, found func(name string, err error)) error

	Close() error
}

// UseForeign adds what another program keeps in the directory. It is called before
// anything else.
func (r *Repository) UseForeign(f Foreign) { r.foreign = f }

// Foreign returns what was given to [Repository.UseForeign], or nil.
func (r *Repository) Foreign() Foreign { return r.foreign }

// foreignBackups returns what is listed of the other program, oldest first. To miss none that
// becomes ours meanwhile it is called before ours are looked at.
func (r *Repository) foreignBackups(ctx context.Context) ([]Backup, error) {
	if r.foreign == nil {
		return nil, nil
	}
	return r.foreign.Backups(ctx)
}

// withForeign adds foreign backups to our own, in the order of labels. One that is among both has
// become ours after the foreign ones were listed.
func withForeign(own, foreign []Backup) []Backup {
	for _, b := range foreign {
		if !slices.ContainsFunc(own, func(o Backup) bool { return o.Label == b.Label }) {
			own = append(own, b)
		}
	}
	slices.SortStableFunc(own, func(a, b Backup) int { return strings.Compare(string(a.Label), string(b.Label)) })
	return own
}

// findForeign returns the foreign backup of a label, or the error none.
func (r *Repository) findForeign(ctx context.Context, l Label, none error) (Backup, error) {
	list, err := r.foreignBackups(ctx)
	if err != nil {
		return Backup{}, err
	}
	i := slices.IndexFunc(list, func(b Backup) bool { return b.Label == l })
	if i < 0 {
		return Backup{}, none
	}
	return list[i], nil
}

// settle removes what is left of foreign backups that have become ours, all of it of those that
// are about to be deleted: without their manifests they would be foreign ones again.
func (r *Repository) settle(ctx context.Context, gone ...Label) error {
	if r.foreign == nil {
		return nil
	}
	return r.foreign.Settle(ctx, gone...)
}

// isObject reports whether the directory of that name can hold objects. The data of
// another program's backup cannot, and to list it would take long.
func isObject(dir string) bool {
	parts := strings.Split(dir, "/")
	if len(parts) != 3 || parts[0] != "backup" {
		return true
	}
	return parts[2] != "data" && parts[2] != "extra" && !strings.HasPrefix(parts[2], "tblspc_")
}
