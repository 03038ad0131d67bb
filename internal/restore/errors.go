package restore

import (
	"errors"
	"fmt"

	"github.com/pgmoneta/pgmoneta-go/internal/pg"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
)

// A HoleError reports archived WAL with a gap before the target.
type HoleError struct {
	Server   string
	Label    repo.Label
	Timeline pg.Timeline
	From     pg.LSN // first byte that is missing
	To       pg.LSN // where archived WAL goes on, or where it must reach at least
	Nearest  string // position that the backup can be restored to, empty for none
	After    Point  // first one behind the hole
}

func (e *HoleError) Error() string {
	remedy := "backup " + string(e.Label) + " cannot be restored, choose another one"
	if e.Nearest != "" {
		remedy = fmt.Sprintf("the nearest position backup %s can be restored to is %s", e.Label, e.Nearest)
	}
	if e.After != (Point{}) {
		remedy += fmt.Sprintf("; past the hole the nearest is %s", e.After)
	} else if e.Nearest != "" {
		remedy += "; past the hole only a newer backup leads"
	}
	return fmt.Sprintf("server %q: hole in WAL: timeline %d from %s to %s is not archived: %s", e.Server, e.Timeline, e.From, e.To, remedy)
}

// A TargetError reports a target that the chosen backup, or any backup, and the archive
// cannot reach.
type TargetError struct {
	Server string
	Label  repo.Label // empty when no backup leads there
	Target Target
	Why    string // with the remedy
	Before Point  // nearest one that can be reached
	After  Point
	Err    error // [repo.ErrNoBackup], or nil
}

func (e *TargetError) Error() string {
	if e.Label == "" {
		return fmt.Sprintf("server %q: %s%s", e.Server, e.Why, instead(e.Before, e.After))
	}
	return fmt.Sprintf("server %q: backup %s cannot be restored to %q: %s%s", e.Server, e.Label, e.Target, e.Why, instead(e.Before, e.After))
}

func (e *TargetError) Unwrap() error { return e.Err }

// A MissingError reports an object that a backup refers to and that is gone.
type MissingError struct {
	Server string
	Label  repo.Label
	Object string
}

func (e *MissingError) Error() string {
	return fmt.Sprintf("server %q: backup %s needs %s, which is missing: verify the backups and choose one that is whole", e.Server, e.Label, e.Object)
}

// A SpaceError reports a file system too small for a restore. Sizes are bytes.
type SpaceError struct {
	Path string
	Need int64
	Free int64
}

func (e *SpaceError) Error() string {
	return fmt.Sprintf("%s: the restore needs %d bytes, the file system has %d free: make space or choose another directory", e.Path, e.Need, e.Free)
}

// An OccupiedError reports a target directory that cannot be used.
type OccupiedError struct {
	Path string
	Why  string // with the remedy
}

func (e *OccupiedError) Error() string { return fmt.Sprintf("restore into %s: %s", e.Path, e.Why) }

// IsRefusal reports whether an error says that a restore was asked for something that
// makes no sense or cannot be reached, rather than that something went wrong.
func IsRefusal(err error) bool {
	var (
		position *PositionError
		target   *TargetError
		option   *OptionError
	)
	return errors.As(err, &position) || errors.As(err, &target) || errors.As(err, &option) || errors.Is(err, repo.ErrNoBackup)
}

// An OptionError reports an option that makes no sense, or not here.
type OptionError struct {
	Option string
	Why    string // with the remedy
}

func (e *OptionError) Error() string { return fmt.Sprintf("restore: %s: %s", e.Option, e.Why) }
