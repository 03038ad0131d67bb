package restore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/pgmoneta/pgmoneta-go/internal/repo"
)

// A volume is a file system that is written to.
type volume struct {
	at   string // where it was looked at
	free int64  // bytes, those of what will be replaced included
	need int64
}

// space compares the bytes to write with what is free, on each file system.
func (m *planner) space(ctx context.Context) error {
	p := m.plan
	volumes, of := map[uint64]*volume{}, map[string]*volume{}
	for _, dir := range p.roots() {
		device, free, err := freeAt(dir)
		if err != nil {
			return err
		}
		if volumes[device] == nil {
			volumes[device] = &volume{at: dir, free: free}
			p.Free += free
		}
		of[dir] = volumes[device]
		if p.over() {
			there := allocated(dir)
			of[dir].free += there
			p.Free += there
		}
	}
	if len(volumes) == 1 {
		of[p.Directory].at, of[p.Directory].need = p.Directory, p.need()
	} else if err := m.spread(ctx, of); err != nil {
		return err
	}
	for _, dir := range p.roots() {
		if v := of[dir]; v.need > v.free || v.need < 0 || p.need() < 0 {
			return &SpaceError{Path: v.at, Need: v.need, Free: v.free}
		}
	}
	return nil
}

// spread adds up what each file system needs, for which every row of the manifest
// has to be read.
func (m *planner) spread(ctx context.Context, of map[string]*volume) error {
	p := m.plan
	manifest, err := m.repo.OpenManifest(ctx, p.Backup.Label)
	if err != nil {
		return err
	}
	defer func() { _ = manifest.Close() }()
	spaces := map[string]*volume{}
	for _, ts := range p.Tablespaces {
		spaces[fmt.Sprint(ts.OID)] = of[ts.Directory]
	}
	for row, err := range manifest.Files() {
		if err != nil {
			return err
		}
		v := of[p.Directory]
		if rest, ok := strings.CutPrefix(row.Path, "pg_tblspc/"); ok && row.Kind == repo.Regular {
			oid, _, _ := strings.Cut(rest, "/")
			if other := spaces[oid]; other != nil {
				v = other
			}
		}
		v.need += row.Size + row.Size/100
	}
	v := of[p.Directory]
	if p.WALDirectory != "" {
		v = of[p.WALDirectory]
	}
	v.need += p.WALBytes + p.WALBytes/100
	return nil
}

// freeAt returns the file system that a directory is or will be on, and the bytes
// free on it.
func freeAt(dir string) (device uint64, free int64, err error) {
	for at := dir; ; at = filepath.Dir(at) {
		var st unix.Stat_t
		var vfs unix.Statfs_t
		err := unix.Stat(at, &st)
		if err == nil {
			err = unix.Statfs(at, &vfs)
		}
		if err == nil {
			return st.Dev, int64(min(vfs.Bavail, 1<<62/uint64(vfs.Bsize))) * vfs.Bsize, nil
		}
		if !errors.Is(err, fs.ErrNotExist) || at == filepath.Dir(at) {
			return 0, 0, fmt.Errorf("statfs %s: %w", at, err)
		}
	}
}

// allocated returns the bytes below dir, as far as they can be seen.
func allocated(dir string) int64 {
	var sum int64
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		if info, err := d.Info(); err == nil {
			if st, ok := info.Sys().(*syscall.Stat_t); ok {
				sum += st.Blocks * 512
			}
		}
		return nil
	})
	return sum
}
