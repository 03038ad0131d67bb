package restore

import (
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
	Nearest  string // position that can be reached, empty for none
}

func (e *HoleError) Error() string {
	remedy := "backup " + string(e.Label) + " cannot be restored, choose another one"
	if e.Nearest != "" {
		remedy = fmt.Sprintf("the nearest position backup %s can be restored to is %s; past the hole only a newer backup leads", e.Label, e.Nearest)
	}
	return fmt.Sprintf("server %q: hole in WAL: timeline %d from %s to %s is not archived: %s", e.Server, e.Timeline, e.From, e.To, remedy)
}

// A TargetError reports a target that the chosen backup and the archive cannot reach.
type TargetError struct {
	Server string
	Label  repo.Label
	Target Target
	Why    string // with the remedy
}

func (e *TargetError) Error() string {
	return fmt.Sprintf("server %q: backup %s cannot be restored to %q: %s", e.Server, e.Label, e.Target, e.Why)
}

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
