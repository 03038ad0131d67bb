package foreign

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

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

// A ChildError refuses to delete backups without the incremental ones that need them, because those
// did not become backups of ours.
type ChildError struct {
	Server   string
	Gone     []repo.Backup // of C pgmoneta, that were to be deleted
	Children []repo.Backup // that need one of them, and each other, oldest first
	Also     []repo.Label  // that were to be deleted with them
	Force    bool          // they were to be deleted by force
	Err      error         // why they did not; nil when that was not tried
}

func (e *ChildError) Error() string {
	parents, noun, need := "backup "+join(e.Gone), "backup", "needs"
	if len(e.Gone) > 1 {
		parents = "one of " + join(e.Gone)
	}
	if len(e.Children) > 1 {
		noun, need = "backups", "need"
	}
	why := ""
	if e.Err != nil {
		why = fmt.Sprintf(" %s cannot be taken over: %v.", map[bool]string{true: "They", false: "It"}[len(e.Children) > 1], e.Err)
	}
	return fmt.Sprintf("incremental %s %s of C pgmoneta %s %s: nothing was deleted.%s They are recorded to take %d MiB together; to delete them all: %s",
		noun, join(e.Children), need, parents, why, e.mebibytes(), e.Command())
}

func (e *ChildError) Unwrap() error { return e.Err }

// Command returns the command that deletes what was to be deleted and what needs it, by force
// where one of them has the keep flag.
func (e *ChildError) Command() string {
	all := slices.Clone(e.Also)
	force := e.Force
	for _, b := range slices.Concat(e.Gone, e.Children) {
		all = append(all, b.Label)
		force = force || b.Keep
	}
	slices.Sort(all)
	words := []string{"pgmoneta-cli", "delete"}
	if force {
		words = append(words, "--force")
	}
	words = append(words, e.Server)
	for _, l := range slices.Compact(all) {
		words = append(words, string(l))
	}
	return strings.Join(words, " ")
}

// mebibytes returns what C pgmoneta recorded as the size of the backups, rounded up. Files that other backups
// share with them are in it and stay.
func (e *ChildError) mebibytes() int64 {
	bytes := int64(0)
	for _, b := range slices.Concat(e.Gone, e.Children) {
		bytes += min(b.Summary.Stored, math.MaxInt64-bytes-1<<20)
	}
	return (bytes + 1<<20 - 1) >> 20
}

func join(list []repo.Backup) string {
	labels := make([]string, len(list))
	for i, b := range list {
		labels[i] = string(b.Label)
	}
	return strings.Join(labels, ", ")
}
