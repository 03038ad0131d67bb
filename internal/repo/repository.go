package repo

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/container"
	"github.com/pgmoneta/pgmoneta-go/internal/durable"
	"github.com/pgmoneta/pgmoneta-go/internal/storage"
)

// FormatVersion is the version of the repository layout.
const FormatVersion = 1

// Owners of stages; see [storage.Engine.Sweep].
const (
	OwnerJob = "job"
	OwnerWAL = "wal"
)

// A Format is the content of the object "format".
type Format struct {
	Version    int    `json:"format"`
	Repository string `json:"repository"` // random id
	System     string `json:"system_identifier"`
}

// A SystemMismatchError reports a server that is not the one whose backups and
// WAL the repository holds.
type SystemMismatchError struct {
	Server     string
	Repository string // system identifier in the repository
	Have       string // system identifier of the server
}

func (e *SystemMismatchError) Error() string {
	return fmt.Sprintf("server %q: its system identifier is %s, the repository belongs to %s: "+
		"check host and port, or give the new cluster a section of its own", e.Server, e.Have, e.Repository)
}

// ErrNoBackup reports a label or identifier that names no backup.
var ErrNoBackup = errors.New("no such backup")

// A Repository is the repository of one server. It is safe for concurrent use;
// changing backups also needs [Repository.Lock], across processes.
type Repository struct {
	server string
	dir    string // local directory of receive/, tmp/ and lock
	fs     durable.FS
	engine storage.Engine
	ring   ring

	foreign Foreign // nil for none
}

// Open returns the repository of server below baseDir on the local disk. It
// makes the directory if it is missing; everything it later changes goes
// through fsys.
func Open(fsys durable.FS, baseDir, server string) (*Repository, error) {
	dir := filepath.Join(baseDir, server)
	if err := durable.MkdirAll(fsys, dir); err != nil {
		return nil, fmt.Errorf("server %q: open repository: %w", server, err)
	}
	return &Repository{server: server, dir: dir, fs: fsys, engine: storage.NewLocal(fsys, dir).Only(isObject)}, nil
}

// Server returns the name of the server.
func (r *Repository) Server() string { return r.server }

// Dir returns the local directory of the repository.
func (r *Repository) Dir() string { return r.dir }

// Meter has observe called after each request to the storage; see [storage.NewMeter]. It
// is called before anything else.
func (r *Repository) Meter(observe func(o storage.Operation, elapsed time.Duration, failed bool)) {
	r.engine = storage.NewMeter(r.engine, observe)
}

// Engine returns the storage engine below.
func (r *Repository) Engine() storage.Engine { return r.engine }

// Format reads the object "format". It is [fs.ErrNotExist] before [Repository.Bind].
func (r *Repository) Format(ctx context.Context) (Format, error) {
	b, err := storage.ReadAll(ctx, r.engine, "format", 4096)
	if err != nil {
		return Format{}, err
	}
	var f Format
	if err := json.Unmarshal(b, &f); err != nil {
		return Format{}, fmt.Errorf("server %q: %s: %w", r.server, filepath.Join(r.dir, "format"), err)
	}
	if f.Version != FormatVersion {
		return Format{}, fmt.Errorf("server %q: repository format %d, this program reads %d", r.server, f.Version, FormatVersion)
	}
	return f, nil
}

// Bind ties the repository to a cluster: the first call writes the format
// object, later calls fail with a [*SystemMismatchError] when system differs.
// It also opens, or makes, the key that new objects are sealed with; when they
// must be and cannot be, it fails. owner is the stage owner of the calling process.
func (r *Repository) Bind(ctx context.Context, owner, system string) error {
	f, err := r.Format(ctx)
	if errors.Is(err, fs.ErrNotExist) {
		f = Format{Version: FormatVersion, Repository: rand.Text(), System: system}
		b, _ := json.Marshal(f)
		err = storage.Put(ctx, r.engine, owner, "format", append(b, '\n'))
		if errors.Is(err, fs.ErrExist) { // another process was first
			f, err = r.Format(ctx)
		}
	}
	if err != nil {
		return err
	}
	if f.System != system {
		return &SystemMismatchError{Server: r.server, Repository: f.System, Have: system}
	}
	return r.prepareKeys(ctx, owner)
}

// Lock takes the lock of the process that changes backups. It fails with a
// [*durable.LockedError] when another has it.
func (r *Repository) Lock() (*durable.Lock, error) {
	return durable.TryLock(filepath.Join(r.dir, "lock"))
}

// A Backup is a row of the catalog.
type Backup struct {
	Label   Label
	Summary Summary
	Err     error // why the manifest cannot be read; Summary is then empty

	// The rest is of a backup that another program made; see [Foreign]. Its summary
	// has what is known even if there is an error.
	Foreign  bool
	Keep     bool // it is not to be deleted
	Comments string
}

// Backups lists the backups, oldest first, without those in the trash.
func (r *Repository) Backups(ctx context.Context) ([]Backup, error) {
	foreign, err := r.foreignBackups(ctx)
	if err != nil {
		return nil, err
	}
	// Before manifests, so that none is listed that is being deleted for good.
	trash, err := r.inTrash(ctx)
	if err != nil {
		return nil, err
	}
	labels, err := r.begun(ctx)
	if err != nil {
		return nil, err
	}
	labels = slices.DeleteFunc(labels, func(l Label) bool { return trash[l] })
	list := make([]Backup, len(labels))
	var next atomic.Int64
	var listers sync.WaitGroup
	for range min(maxListers, len(labels)) {
		listers.Go(func() {
			var s container.Scratch // one for many, because its buffers are much larger than a summary
			defer s.Close()
			for i := next.Add(1) - 1; i < int64(len(labels)); i = next.Add(1) - 1 {
				list[i] = r.backup(ctx, labels[i], &s)
			}
		})
	}
	listers.Wait()
	notListed := func(b Backup) bool { return errors.Is(b.Err, fs.ErrNotExist) }
	return withForeign(slices.DeleteFunc(list, notListed), foreign), nil
}

// maxListers is how many manifests are opened at once: listing waits for the disk.
const maxListers = 4

// backup returns the row of a backup.
func (r *Repository) backup(ctx context.Context, l Label, s *container.Scratch) Backup {
	m, err := r.openSummary(ctx, l, s)
	if err != nil {
		return Backup{Label: l, Err: err}
	}
	_ = m.Close()
	return Backup{Label: l, Summary: m.Summary}
}

// begun returns the labels below backup/, oldest first: backups, what is left of
// unfinished ones, and those that C pgmoneta made.
func (r *Repository) begun(ctx context.Context) ([]Label, error) {
	return r.labelsBelow(ctx, "backup")
}

func (r *Repository) labelsBelow(ctx context.Context, prefix string) ([]Label, error) {
	names, err := storage.Children(ctx, r.engine, prefix)
	if err != nil {
		return nil, err
	}
	var labels []Label
	for _, name := range names {
		if l, err := ParseLabel(name); err == nil {
			labels = append(labels, l)
		}
	}
	return labels, nil
}

// labels returns the labels of our backups, those in the trash included, oldest first.
func (r *Repository) labels(ctx context.Context) ([]Label, error) {
	begun, err := r.begun(ctx)
	if err != nil {
		return nil, err
	}
	var labels []Label
	for _, l := range begun {
		listed, err := r.exists(ctx, manifestName(l))
		if err != nil {
			return nil, err
		}
		if listed {
			labels = append(labels, l)
		}
	}
	return labels, nil
}

func (r *Repository) exists(ctx context.Context, name string) (bool, error) {
	o, err := r.engine.Open(ctx, name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, o.Close()
}

// Find resolves an identifier: "newest" or "latest", "oldest", or a label. It
// wraps [ErrNoBackup] when there is none, and is a [*TrashedError] for one in the trash.
func (r *Repository) Find(ctx context.Context, id string) (Backup, error) {
	none := fmt.Errorf("server %q: backup %q: %w", r.server, id, ErrNoBackup)
	if l, err := ParseLabel(id); err == nil {
		var s container.Scratch
		defer s.Close()
		trashed, err := r.exists(ctx, trashName(l))
		if err != nil {
			return Backup{}, err
		}
		b := r.backup(ctx, l, &s)
		switch {
		case errors.Is(b.Err, fs.ErrNotExist):
			if b, err = r.findForeign(ctx, l, none); errors.Is(err, ErrNoBackup) {
				return r.becameOurs(ctx, l, none)
			}
			return b, err
		case trashed:
			return Backup{}, &TrashedError{r.server, l}
		}
		return b, nil
	}
	list, err := r.Backups(ctx)
	switch {
	case err != nil:
		return Backup{}, err
	case len(list) == 0:
	case id == "oldest":
		return list[0], nil
	case id == "newest" || id == "latest":
		return list[len(list)-1], nil
	}
	return Backup{}, none
}

// becameOurs looks for a backup that was neither ours nor foreign: it may have been the one when
// the other was looked for.
func (r *Repository) becameOurs(ctx context.Context, l Label, none error) (Backup, error) {
	if r.foreign == nil {
		return Backup{}, none
	}
	var s container.Scratch
	defer s.Close()
	if b := r.backup(ctx, l, &s); !errors.Is(b.Err, fs.ErrNotExist) {
		return b, nil
	}
	return Backup{}, none
}

// NextLabel returns the label for a backup that starts now. It avoids the labels of
// backups, leftovers of unfinished ones and those that C pgmoneta made.
func (r *Repository) NextLabel(ctx context.Context, now time.Time) (Label, error) {
	var newest Label
	for _, dir := range []string{"backup", "pack", unfinishedPrefix} {
		entries, err := os.ReadDir(filepath.Join(r.dir, dir))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
		for _, e := range entries {
			if l, err := ParseLabel(e.Name()); err == nil {
				newest = max(newest, l)
			}
		}
	}
	return NewLabel(now, newest), context.Cause(ctx)
}
