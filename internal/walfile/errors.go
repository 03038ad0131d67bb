package walfile

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"github.com/pgmoneta/pgmoneta-go/internal/container"
	"github.com/pgmoneta/pgmoneta-go/internal/pg"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
)

// ErrNotArchived reports a file that the archive does not have. It is how
// PostgreSQL finds the end of an archive.
var ErrNotArchived = errors.New("not in the archive")

// A FileError says which file of which server an error is about.
type FileError struct {
	Server string // section name in pgmoneta.conf
	File   string // as PostgreSQL calls it
	Err    error
}

func (e *FileError) Error() string {
	text := fmt.Sprintf("server %q: %s: %v", e.Server, e.File, e.Err)
	if r := remedy(e.Err); r != "" {
		text += ": " + r
	}
	return text
}

func (e *FileError) Unwrap() error { return e.Err }

// remedy says what to do about errors that do not say it themselves.
func remedy(err error) string {
	var damaged *container.DamagedError
	switch {
	case keyless(err):
		return "give the user that runs this the master.key of the daemon, at ~/.pgmoneta/master.key with mode 0600"
	case errors.As(err, &damaged):
		return "move the damaged object away, push the file again if there is another copy, and take a full backup"
	case errors.Is(err, fs.ErrPermission):
		return "run it as the user of the daemon, or give that user and PostgreSQL's the same rights"
	case errors.Is(err, syscall.ENOSPC):
		return "free space on that file system"
	}
	return ""
}

// keyless reports whether the master key is missing or another one.
func keyless(err error) bool {
	return errors.As(err, new(*repo.NoMasterError)) || errors.As(err, new(*repo.WrongMasterError))
}

// annotate wraps an error in a [*FileError].
func annotate(server, file string, err error) error {
	if err == nil {
		return nil
	}
	return &FileError{Server: server, File: file, Err: err}
}

// A HoleError reports a segment that is missing in the middle of the archive.
type HoleError struct {
	Next string // a later segment that is there, of the timeline or of one that continues it
}

func (e *HoleError) Error() string {
	return fmt.Sprintf("it is missing, although %s, which comes after it, is archived: recovery would end here and lose what follows: "+
		"push the segment from another copy, restore a backup that begins after it, or accept the end with --end-at-hole", e.Next)
}

// A RemovedError reports a segment that the archive had, or passed by, and that is
// gone because the retention needed it no more.
type RemovedError struct {
	Timeline pg.Timeline
	Until    pg.LSN // where the removed WAL of the timeline ends
}

func (e *RemovedError) Error() string {
	return fmt.Sprintf("the retention removed WAL of timeline %d up to %s, and this with it: recovery cannot go on from here: "+
		"restore a backup that is listed, or accept the end with --end-at-hole", e.Timeline, e.Until)
}

// A DifferentError reports a push of a file whose name is taken by other content.
type DifferentError struct {
	Path   string // file that was to be archived
	Stored string // what the archive has under this name
}

func (e *DifferentError) Error() string {
	return fmt.Sprintf("%s differs from %s, which is archived under this name: nothing was changed: "+
		"two clusters write to one archive, or a cluster was restored without a new timeline: give it a section of its own", e.Path, e.Stored)
}

// A ForeignError reports WAL of a cluster that is not the archive's.
type ForeignError struct {
	System     string // system identifier in the file
	Repository string // system identifier of the archive
}

func (e *ForeignError) Error() string {
	return fmt.Sprintf("it is of the cluster with system identifier %s, the archive holds that of %s: "+
		"check the server's name on the command line and base_dir", e.System, e.Repository)
}

// A DroppedError reports a segment that was not archived because the queue was
// full and dropping was allowed. It leaves a hole, which is recorded in the
// repository or remembered in pg_wal until it can be.
type DroppedError struct {
	Queued int64 // bytes that wait to be archived
	Limit  int64

	Remembered string // file that remembers the hole; empty when it is recorded
	Err        error  // why it could not be recorded
}

func (e *DroppedError) Error() string {
	text := fmt.Sprintf("DROPPED, the archive has a hole now: %d bytes wait to be archived, the limit is %d: "+
		"find out why archiving is slow and take a full backup", e.Queued, e.Limit)
	if e.Remembered != "" {
		text += fmt.Sprintf("; the hole cannot be recorded in the repository (%v): %s stands for it until a push can", e.Err, e.Remembered)
	}
	return text
}

func (e *DroppedError) Unwrap() error { return e.Err }

// A refusal marks an error that trying again does not mend.
type refusal struct{ error }

func (e refusal) Unwrap() error { return e.error }

// IsRefusal reports whether a push failed because of what it was given or what
// the archive holds, so that somebody has to act; other failures may pass.
func IsRefusal(err error) bool {
	var (
		given     refusal
		different *DifferentError
		foreign   *ForeignError
		damaged   *container.DamagedError
	)
	return keyless(err) || errors.As(err, new(*repo.MissingKeyError)) || errors.As(err, &given) || errors.As(err, &different) || errors.As(err, &foreign) || errors.As(err, &damaged)
}
