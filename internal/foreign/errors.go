package foreign

import (
	"errors"
	"fmt"

	"github.com/pgmoneta/pgmoneta-go/internal/repo"
)

// ErrDamaged reports stored bytes that are not what was stored: cut off, altered, or
// sealed with another key.
var ErrDamaged = errors.New("damaged")

var errNotRegular = errors.New("not a regular file")

// A FileError reports a stored file that cannot be read back.
type FileError struct {
	File string // name in the repository
	Err  error
}

func (e *FileError) Error() string { return fmt.Sprintf("%s: %v", e.File, e.Err) }

func (e *FileError) Unwrap() error { return e.Err }

// An InfoError reports a backup.info without what is needed of it.
type InfoError struct {
	File string
	Line int // from 1; 0 when something is missing
	Key  string
	Why  string
}

func (e *InfoError) Error() string {
	if e.Line > 0 {
		return fmt.Sprintf("%s line %d: %s: %s", e.File, e.Line, e.Key, e.Why)
	}
	return fmt.Sprintf("%s: %s: %s", e.File, e.Key, e.Why)
}

// An IncompleteError reports a backup that C pgmoneta did not finish, or marked as not valid.
type IncompleteError struct {
	Label repo.Label
	Why   string
}

func (e *IncompleteError) Error() string {
	return fmt.Sprintf("backup %s of C pgmoneta is not valid: %s: choose another one; this one can be deleted", e.Label, e.Why)
}

// A LinkError reports a link of the repository that is not followed.
type LinkError struct {
	File   string
	Target string
	Why    string
}

func (e *LinkError) Error() string {
	return fmt.Sprintf("%s is a link to %s: %s", e.File, e.Target, e.Why)
}

// A ChainError reports an incremental backup whose parents are not all there.
type ChainError struct {
	Label  repo.Label
	Parent repo.Label
	Err    error
}

func (e *ChainError) Error() string {
	return fmt.Sprintf("incremental backup %s needs backup %s, which cannot be used: %v: choose another backup", e.Label, e.Parent, e.Err)
}

func (e *ChainError) Unwrap() error { return e.Err }

// A ChildError refuses to delete a backup that incremental ones need.
type ChildError struct {
	Label repo.Label
	Child repo.Label
}

func (e *ChildError) Error() string {
	return fmt.Sprintf("backup %s of C pgmoneta is the parent of incremental backup %s: delete that one first", e.Label, e.Child)
}
