package supervisor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/config"
	"github.com/pgmoneta/pgmoneta-go/internal/durable"
	"github.com/pgmoneta/pgmoneta-go/internal/mgmt"
)

// Names of files beside pgmoneta.conf.
const (
	keptStamp    = "20060102T150405.000000Z" // of a former file: pgmoneta.conf.<stamp>, sorts by time
	undoneSuffix = ".undone"                 // of the one that the last rollback replaced
)

// save writes a value into the configuration file. The former file is kept.
func save(path, section, name, value string) (kept string, err error) {
	if path, err = filepath.EvalSymlinks(path); err != nil { // the link stays
		return "", err
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	edited, err := config.Edit(path, content, os.LookupEnv, section, name, value)
	if err != nil {
		return "", err
	}
	kept = path + "." + time.Now().UTC().Format(keptStamp)
	// A second name of the file, which stays its own when the first is replaced.
	if err := os.Link(path, kept); err != nil {
		return "", fmt.Errorf("keep the former configuration: %w", err)
	}
	if err := exchangeFile(path, edited); err != nil {
		forgetIfSame(kept, path)
		return "", err
	}
	return kept, nil
}

// forgetIfSame removes a name that was kept for nothing, because the file has its first name
// still, and reports whether it was one.
func forgetIfSame(kept, path string) bool {
	a, err := os.Stat(kept)
	if err != nil {
		return false
	}
	b, err := os.Stat(path)
	if err != nil || !os.SameFile(a, b) {
		return false
	}
	_ = os.Remove(kept)
	return true
}

// exchangeFile replaces a file and keeps its mode.
func exchangeFile(path string, content []byte) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	return durable.ReplaceFile(durable.OS{}, path, info.Mode().Perm(), content)
}

// keptFiles returns the former files of a configuration, oldest first. The caller holds the
// lock of changes.
func keptFiles(path string) ([]string, error) {
	names, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	var kept []string
	for _, n := range names {
		stamp, ok := strings.CutPrefix(n.Name(), filepath.Base(path)+".")
		if _, err := time.Parse(keptStamp, stamp); !ok || err != nil {
			continue
		}
		name := filepath.Join(filepath.Dir(path), n.Name())
		// One that a crash left before the file was replaced.
		if forgetIfSame(name, path) {
			continue
		}
		kept = append(kept, name)
	}
	slices.Sort(kept)
	return kept, nil
}

// rollback brings the newest former file back and reads it. The present one stays
// beside it until the next rollback.
func (h handler) rollback() (mgmt.Response, error) {
	path, err := filepath.EvalSymlinks(h.config.Load().Path)
	if err != nil {
		return nil, err
	}
	former, err := h.bringBack(path)
	if err != nil {
		return nil, err
	}
	resp, err := h.reloadFiles()
	if err != nil {
		return nil, fmt.Errorf("%s is the former file again, which is not in force yet: %w", path, err)
	}
	resp["Configuration"], resp["Former"], resp["Undone"] = path, former, path+undoneSuffix
	return resp, nil
}

// bringBack puts the newest former file in the place of the present one.
func (h handler) bringBack(path string) (former string, err error) {
	h.changing.Lock()
	defer h.changing.Unlock()
	kept, err := keptFiles(path)
	if err != nil {
		return "", err
	}
	if len(kept) == 0 {
		return "", &mgmt.Error{Code: mgmt.CodeConfRollbackNone, Workflow: "conf rollback", Err: fmt.Errorf("%s: no former file is kept: conf set --save keeps one", path)}
	}
	former = kept[len(kept)-1]
	if _, err := config.Load(former); err != nil {
		return "", fmt.Errorf("the former file is not right, nothing was changed: %w", err)
	}
	undone := path + undoneSuffix
	if err := os.Remove(undone); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	if err := os.Link(path, undone); err != nil {
		return "", err
	}
	if err := os.Rename(former, path); err != nil {
		return "", err
	}
	return former, durable.OS{}.SyncDir(filepath.Dir(path))
}
