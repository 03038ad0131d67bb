package supervisor

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"syscall"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/config"
	"github.com/pgmoneta/pgmoneta-go/internal/metrics"
)

// A measure is what the metrics page shows of file systems. It is taken in the background, because a file system may
// be slow, or not answer at all.
type measure struct {
	storage metrics.Storage
	servers map[string]serverMeasure
}

// A serverMeasure is that of one server.
type serverMeasure struct {
	own       uint64 // bytes on disk of its repository
	total     uint64 // of that and of what is shipped
	workspace metrics.Directory
	shipping  metrics.Shipping
}

const (
	spaceInterval = 10 * time.Second
	// walkShare bounds what walking through directories costs: after each walk there is a pause of so many times
	// its length.
	walkShare    = 20
	walkInterval = time.Minute // least pause
)

// watchSizes measures until ctx ends.
func (s *Supervisor) watchSizes(ctx context.Context) {
	t := time.NewTicker(spaceInterval)
	defer t.Stop()
	var next time.Time
	used := map[string]uint64{}
	for {
		c := s.config.Load()
		if began := time.Now(); !began.Before(next) {
			used = s.walk(ctx, c)
			next = time.Now().Add(max(walkInterval, walkShare*time.Since(began)))
		}
		s.measured.Store(s.measure(c, used))
		s.listeners.readCertificates()
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// walk returns what the directories of interest take on disk.
func (s *Supervisor) walk(ctx context.Context, c *config.Config) map[string]uint64 {
	used := map[string]uint64{c.Main.BaseDir: diskUsage(ctx, c.Main.BaseDir)}
	for i := range c.Servers {
		sc := &c.Servers[i]
		dirs := []string{filepath.Join(c.Main.BaseDir, sc.Name)}
		if c.Workspace(sc) != "" {
			dirs = append(dirs, scratch(c, sc))
		}
		if sc.WALShipping != "" {
			dirs = append(dirs, filepath.Join(sc.WALShipping, sc.Name), shippedWAL(sc))
		}
		for _, dir := range dirs {
			used[dir] = diskUsage(ctx, dir)
		}
	}
	return used
}

func shippedWAL(sc *config.Server) string { return filepath.Join(sc.WALShipping, sc.Name, "wal") }

// measure adds what is free.
func (s *Supervisor) measure(c *config.Config, used map[string]uint64) *measure {
	m := &measure{servers: map[string]serverMeasure{}}
	m.storage.Used = used[c.Main.BaseDir]
	m.storage.Free, m.storage.Total, _ = space(c.Main.BaseDir) // one that does not answer shows as zero
	for i := range c.Servers {
		sc := &c.Servers[i]
		v := serverMeasure{own: used[filepath.Join(c.Main.BaseDir, sc.Name)]}
		v.total = v.own
		if dir := c.Workspace(sc); dir != "" {
			v.workspace.Used = used[scratch(c, sc)]
			v.workspace.Free, v.workspace.Total, _ = space(dir)
		}
		if sc.WALShipping != "" {
			v.shipping.WAL, v.shipping.Used = used[shippedWAL(sc)], used[filepath.Join(sc.WALShipping, sc.Name)]
			v.shipping.Free, v.shipping.Total, _ = space(sc.WALShipping)
			v.total += v.shipping.Used
		}
		m.servers[sc.Name] = v
	}
	return m
}

// diskUsage returns what everything below dir takes on disk, in bytes. What cannot be read, or is gone again, counts
// nothing.
func diskUsage(ctx context.Context, dir string) (n uint64) {
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			if d != nil && d.IsDir() && !errors.Is(err, fs.ErrNotExist) {
				return fs.SkipDir
			}
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return nil
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			n += uint64(st.Blocks) * 512
		}
		return nil
	})
	return n
}
