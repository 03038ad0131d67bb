package restore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/durable"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
	"github.com/pgmoneta/pgmoneta-go/internal/storage"
)

// RunOptions tell how to run a plan.
type RunOptions struct {
	Workers int   // 0 = one per CPU
	MaxRate int64 // of what is written and, over what is there, compared, in bytes per second; 0 = unlimited
	// Progress is told the phase, and how many of all bytes are done. Calls do not overlap.
	Progress func(phase string, done, total int64)
	Log      *slog.Logger
	Stats    *Stats      // filled in when not nil
	Planned  func(*Plan) // called by [Do] before it runs a plan

	op func(kind, path string) error // see tree
}

// Stats tell what a restore did to the backup's files. Sizes are bytes.
type Stats struct {
	Read    int64 // stored bytes of frames, from the repository
	Written int64 // plain bytes, to the target
}

// Run restores. The caller holds [repo.Repository.Lock], so that nothing the
// plan needs is deleted and no other restore writes to the same directory.
//
// On an error everything that was written is removed. A restore over an interrupted
// one or over a data directory leaves what there is then, and the marker with it.
func Run(ctx context.Context, p *Plan, o RunOptions) error {
	if o.Workers <= 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.op == nil {
		o.op = func(string, string) error { return nil }
	}
	j := &runner{RunOptions: o, plan: p, tree: &tree{plan: p, op: o.op, spaces: map[string]*os.Root{}, barriers: map[string]*durable.Barrier{}}}
	if o.MaxRate > 0 {
		j.pace = storage.NewBucket(o.MaxRate)
	}
	defer j.close()
	started := time.Now()
	if err := j.run(ctx); err != nil {
		if cerr := j.tree.discard(); cerr != nil {
			o.Log.Warn("leftovers of a failed restore were not removed", "directory", p.Directory, "err", cerr)
		}
		return fmt.Errorf("restore backup %s of server %q: %w", p.Backup.Label, p.Server, err)
	}
	if !j.tree.over && o.MaxRate == 0 {
		recordSpeed(p.repo, speed{Label: p.Backup.Label, Bytes: p.Bytes(), Elapsed: time.Since(started), Finished: time.Now()})
	}
	o.Log.Info("restored", "label", p.Backup.Label, "directory", p.Directory, "bytes", p.Bytes(), "read", j.stats.Read, "written", j.stats.Written, "elapsed", time.Since(started))
	return nil
}

// close closes what the run opened.
func (j *runner) close() {
	j.tree.close()
	if j.foreignTree != nil {
		_ = j.foreignTree.Close()
	}
}

type runner struct {
	RunOptions
	plan *Plan
	tree *tree
	pace *storage.Bucket // nil for as fast as possible

	stats Stats // once the files are written

	foreignTree repo.Tree // of a backup that another program made, else nil

	mu sync.Mutex // held during calls of Progress
}

func (j *runner) progress(phase string, done, total int64) {
	if j.Progress == nil {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.Progress(phase, done, total)
}

// spend waits until n bytes more are within the rate.
func (j *runner) spend(ctx context.Context, n int) error {
	if j.pace == nil {
		return nil
	}
	return j.pace.Take(ctx, n)
}

func (j *runner) run(ctx context.Context) error {
	final, err := j.data(ctx)
	if err != nil {
		return err
	}
	if err := j.wal(ctx); err != nil {
		return err
	}
	if err := j.configure(); err != nil {
		return err
	}
	if err := j.tree.ownAll(); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	j.progress("Sync", 0, 0)
	if err := j.tree.sync(); err != nil {
		return err
	}
	return j.tree.seal(final.content, final.modified)
}

// data writes everything of the backup but what comes last of all, which it returns.
func (j *runner) data(ctx context.Context) (l last, err error) {
	if j.plan.Foreign {
		return j.foreign(ctx)
	}
	m, err := j.plan.repo.OpenManifest(ctx, j.plan.Backup.Label)
	if err != nil {
		return l, err
	}
	defer func() { _ = m.Close() }()
	if err := j.tree.open(); err != nil {
		return l, err
	}
	if err := j.prune(ctx, m); err != nil {
		return l, err
	}
	content, modified, sums, err := j.files(ctx, m)
	if err == nil {
		err = j.postgresManifest(ctx, m, sums)
	}
	return last{content, modified}, err
}

// prune removes what is there and does not belong to the backup.
func (j *runner) prune(ctx context.Context, m *repo.Manifest) error {
	if !j.tree.over {
		return nil
	}
	j.progress("Compare", 0, 0)
	keep, err := namesOf(m)
	if err != nil {
		return err
	}
	return j.tree.prune(ctx, keep)
}

// openPacks is how many packs of a backup are open at once: data that changes here and
// there lies in many.
const openPacks = 64

// files writes the backup's files and returns what to write last of all, and the
// checksums that the manifest does not know.
func (j *runner) files(ctx context.Context, m *repo.Manifest) (content []byte, modified time.Time, sums []string, err error) {
	var mu sync.Mutex
	done := int64(0)
	w := &files{tree: j.tree, manifest: m, workers: j.Workers, spend: j.spend, packs: j.plan.repo.PackSet(m.Packs, j.Workers+waitingWriters+openPacks),
		wrote: func(n int64) {
			mu.Lock()
			defer mu.Unlock()
			done += n
			j.progress("Restore", done, j.plan.Bytes())
		}}
	defer w.packs.Close()
	if w.packs.Printer, err = j.plan.repo.Printer(ctx); err != nil {
		j.Log.Warn("frames are checked by their SHA-256 instead of their prints", "err", err)
	}
	err = w.run(ctx)
	j.stats = w.stats
	if j.Stats != nil {
		*j.Stats = w.stats
	}
	if err != nil {
		return nil, time.Time{}, nil, err
	}
	content, err = w.content(ctx, w.control)
	// The directory is there even if the manifest lists nothing else in it.
	return content, w.control.ModTime, w.sums, errors.Join(err, j.tree.mkdir(filepath.Dir(control)))
}

// configure writes recovery settings and the signal file.
func (j *runner) configure() error {
	content, err := j.tree.data.ReadFile(autoConf)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if rewritten := rewriteConf(content, j.plan); string(rewritten) != string(content) {
		if err := j.tree.write(autoConf, rewritten); err != nil {
			return err
		}
	}
	// A backup of a standby brings its signal file along.
	for _, name := range []string{recoverySignal, standbySignal} {
		if err := j.tree.remove(name); err != nil {
			return err
		}
	}
	if j.plan.Signal != "" {
		if err := j.tree.write(j.plan.Signal, nil); err != nil {
			return err
		}
	}
	j.warn()
	return nil
}

// warn points out settings of postgresql.conf, which is left as it was, that
// contradict the plan's.
func (j *runner) warn() {
	content, err := j.tree.data.ReadFile("postgresql.conf")
	if err != nil || j.plan.Signal == "" {
		return
	}
	if names := conflicts(content); len(names) > 0 {
		j.Log.Warn("postgresql.conf holds recovery targets: comment them out before PostgreSQL is started",
			"file", filepath.Join(j.plan.Directory, "postgresql.conf"), "settings", names)
	}
}
