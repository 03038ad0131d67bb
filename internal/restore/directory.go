package restore

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/pgmoneta/pgmoneta-go/internal/pg"
)

const (
	// marker is the name of the file that says that a restore is not finished.
	marker = ".pgmoneta-restore"
	// freshControl is where global/pg_control is written before it takes its place.
	freshControl = marker + ".new"
	control      = "global/pg_control"
)

// inspect notes what is in the directories of a plan, and refuses them when they hold
// anything but an interrupted restore or, for a delta restore, a data directory on
// which no server runs.
func inspect(p *Plan, delta bool) error {
	names, err := entries(p.Directory)
	if err != nil {
		return err
	}
	marked, controlled := has(p.Directory, marker), has(p.Directory, control)
	switch {
	case marked && !controlled:
		p.Interrupted = true
	case marked && !delta:
		return &OccupiedError{p.Directory, "it holds a data directory beside the marker of an interrupted restore: look at it, then remove it"}
	case len(names) > 0 && !delta:
		return &OccupiedError{p.Directory, "it is not empty: remove it, or choose another directory"}
	case len(names) > 0 && !has(p.Directory, "PG_VERSION"):
		return &OccupiedError{p.Directory, "it holds no data directory: remove it, or choose another directory"}
	case len(names) > 0:
		p.Existing = true
	}
	if err := stopped(p.Directory); err != nil {
		return err
	}
	return inspectOthers(p)
}

// inspectOthers looks at the directories beside the data directory. What is not seen
// to be of a server of this version is nobody's to remove.
func inspectOthers(p *Plan) error {
	version := "PG_" + strconv.Itoa(p.Backup.PostgreSQL.Major())
	for _, ts := range p.Tablespaces {
		if err := inspectOther(ts.Directory, p.over(), func(name string) bool {
			return name == version || strings.HasPrefix(name, version+"_")
		}); err != nil {
			return err
		}
	}
	if p.WALDirectory == "" {
		return nil
	}
	return inspectOther(p.WALDirectory, p.over(), ofWAL)
}

func inspectOther(dir string, over bool, known func(name string) bool) error {
	names, err := entries(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if !over {
			return &OccupiedError{dir, "it is not empty: remove it, or choose another directory"}
		}
		if !known(name) {
			return &OccupiedError{dir, fmt.Sprintf("it holds %q, which is not of this server: remove that, or choose another directory", name)}
		}
	}
	return nil
}

// ofWAL reports whether a name is one that PostgreSQL and pgmoneta-wal use in pg_wal.
func ofWAL(name string) bool {
	switch name {
	case "archive_status", "summaries", "pgmoneta-prefetch", "pgmoneta-dropped":
		return true
	}
	_, history := pg.ParseHistoryName(name)
	return history || strings.HasPrefix(name, "xlogtemp.") || strings.HasPrefix(name, "RECOVERY") ||
		len(name) >= 24 && pg.IsSegmentName(name[:24])
}

// stopped refuses a data directory on which a server runs. The file that says so
// stays behind when a server is killed; its number may then be another process's.
func stopped(dir string) error {
	f, err := os.Open(filepath.Join(dir, "postmaster.pid"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	line, _ := bufio.NewReader(f).ReadString('\n')
	// A standalone backend writes its number as negative.
	pid, err := strconv.Atoi(strings.TrimPrefix(strings.TrimSpace(line), "-"))
	if err != nil || pid <= 0 || errors.Is(unix.Kill(pid, 0), unix.ESRCH) {
		return nil
	}
	at, err := os.Stat(fmt.Sprintf("/proc/%d/cwd", pid))
	if here, herr := os.Stat(dir); err == nil && herr == nil && !os.SameFile(at, here) {
		return nil // PostgreSQL works in its data directory
	}
	return &OccupiedError{dir, fmt.Sprintf("a server runs on it (postmaster.pid names process %d): stop it first", pid)}
}

// entries returns the names in a directory; one that does not exist has none.
func entries(dir string) ([]string, error) {
	info, err := os.Lstat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		// A link would also break the relative links to tablespaces.
		return nil, &OccupiedError{dir, "it is not a directory: remove it, or choose another directory"}
	}
	list, err := os.ReadDir(dir)
	names := make([]string, len(list))
	for i, e := range list {
		names[i] = e.Name()
	}
	return names, err
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func has(dir, name string) bool { return exists(filepath.Join(dir, name)) }
