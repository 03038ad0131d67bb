package rehearse

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/repo"
	"github.com/pgmoneta/pgmoneta-go/internal/restore"
)

// Options say what to rehearse, where, and what to ask of it.
type Options struct {
	Repo   *repo.Repository
	Backup string         // identifier, as for a restore
	Target restore.Target // where recovery ends

	Scratch   string // directory for the restored cluster; made, and emptied of what earlier rehearsals left
	BinDir    string // see [FindPrograms]
	Settings  string // file of additional settings for the server, "" for none
	Checks    string // file for [ParseChecks], "" for none
	NoAmcheck bool
	User      string // a role of the cluster that may log in, superuser or not
	Workers   int

	// Progress is told phases, and bytes of the current one.
	Progress func(phase string, done, total int64)
	Log      *slog.Logger
}

// Run rehearses the restore of a backup and records what came of it with the backup,
// unless another program made that.
// The caller holds [repo.Repository.Lock].
//
// A rehearsal that proves nothing is no error of Run: [repo.Rehearsal.Failure] says
// what went wrong. Errors are those that say nothing about the backup: a backup that
// does not exist, a file of checks that cannot be read, a context that ended, or a
// record that could not be written.
func Run(ctx context.Context, o Options) (repo.Summary, repo.Rehearsal, error) {
	checks, err := readChecks(o.Checks)
	if err != nil {
		return repo.Summary{}, repo.Rehearsal{}, err
	}
	began := time.Now()
	r := &run{Options: o, began: began, asked: checks, result: repo.Rehearsal{At: began.UTC(), Target: o.Target.String()}}
	err = r.run(ctx)
	if ctx.Err() != nil {
		return r.backup, r.result, context.Cause(ctx)
	}
	if err != nil {
		r.result.Failure = err.Error()
	}
	if r.backup.Label == "" { // there was no plan
		b, ferr := o.Repo.Find(ctx, o.Backup)
		if ferr != nil {
			return repo.Summary{}, r.result, ferr
		}
		r.backup = b.Summary
		r.backup.Label, r.foreign = b.Label, b.Foreign
	}
	if r.foreign { // nothing is written beside what another program made
		return r.backup, r.result, nil
	}
	return r.backup, r.result, o.Repo.AddRehearsal(ctx, r.backup.Label, r.result)
}

func readChecks(name string) ([]Check, error) {
	if name == "" {
		return nil, nil
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("checks of the rehearsal: %w", err)
	}
	defer func() { _ = f.Close() }()
	return ParseChecks(name, f)
}

type run struct {
	Options
	began   time.Time
	asked   []Check
	backup  repo.Summary
	foreign bool // another program made the backup
	result  repo.Rehearsal
}

func (r *run) phase(name string) {
	if r.Progress != nil {
		r.Progress(name, 0, 0)
	}
}

func (r *run) run(ctx context.Context) (err error) {
	if err := Clear(ctx, r.Scratch); err != nil {
		return err
	}
	scratch := directory(r.Scratch)
	if err := os.MkdirAll(scratch, 0o700); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(scratch)) }()
	plan, err := restore.MakePlan(ctx, r.Repo, restore.Options{Backup: r.Backup, Target: r.Target, Directory: scratch})
	if err != nil {
		return err
	}
	r.backup, r.foreign = plan.Backup, plan.Foreign
	programs, missing := FindPrograms(ctx, r.BinDir, plan.Backup.PostgreSQL.Major())
	if err := restore.Run(ctx, plan, restore.RunOptions{Workers: r.Workers, Progress: r.Progress, Log: r.Log}); err != nil {
		return err
	}
	r.result.RestoreBytes, r.result.Restore = plan.Bytes(), time.Since(r.began)
	if missing != nil {
		return fmt.Errorf("the backup was restored and its frames are whole, but nothing was started: %w", missing)
	}
	return r.start(ctx, programs, plan.Directory)
}

// directory is what of the directory for rehearsals is ours.
func directory(scratch string) string { return filepath.Join(scratch, "rehearsal") }

// Clear ends and removes what a rehearsal in this directory left when its process was
// killed. The caller holds [repo.Repository.Lock].
func Clear(ctx context.Context, scratch string) error {
	scratch = directory(scratch)
	left, err := filepath.Glob(filepath.Join(scratch, "*", "postmaster.pid"))
	if err != nil {
		return err
	}
	for _, file := range left {
		if err := reap(ctx, filepath.Dir(file)); err != nil {
			return err
		}
	}
	if err := removePrivate(scratch); err != nil {
		return err
	}
	// The files one by one, which can be stopped, then the directories.
	err = filepath.WalkDir(scratch, func(path string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return err
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case d.IsDir():
			return nil
		}
		return os.Remove(path)
	})
	if err != nil {
		return err
	}
	return os.RemoveAll(scratch)
}

// start starts the restored cluster and examines it.
func (r *run) start(ctx context.Context, programs Programs, data string) (err error) {
	private, err := makePrivate(directory(r.Scratch))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(private)) }()
	r.phase("Recover")
	r.result.Server = programs.Version
	c := &cluster{programs: programs, data: data, private: private, conf: r.Settings}
	defer func() { err = errors.Join(err, c.stop()) }()
	if err := c.start(ctx); err != nil {
		return err
	}
	if err := c.ready(ctx, r.User); err != nil {
		return err
	}
	r.result.Started, r.result.RTO = true, time.Since(r.began)
	done := readReplay(c.log())
	r.result.ReplayFrom, r.result.ReplayTo, r.result.Replay = done.from, done.to, done.elapsed
	r.phase("Examine")
	return r.examine(ctx, c)
}

// examine asks the cluster. Checks that fail are a failure of the rehearsal.
func (r *run) examine(ctx context.Context, c *cluster) error {
	user, err := c.superuser(ctx, r.User)
	if err != nil {
		return err
	}
	if r.result.LastCommit, err = c.lastCommit(ctx, user); err != nil {
		return err
	}
	e := &examiner{cluster: c, user: user, workers: r.Workers}
	e.operator(ctx, r.asked)
	if !r.NoAmcheck {
		if err := e.amcheck(ctx); err != nil {
			return err
		}
	}
	r.result.Checks = e.checks
	return failed(e.checks)
}

// failed returns what the checks that did not pass come to.
func failed(checks []repo.RehearsalCheck) error {
	n, first := 0, ""
	for _, c := range checks {
		if c.Problem != "" {
			n++
			first = cmp.Or(first, fmt.Sprintf("%s in database %s: %s", c.Name, c.Database, c.Problem))
		}
	}
	if n == 0 {
		return nil
	}
	return fmt.Errorf("%d of %d checks failed, the first is %s", n, len(checks), first)
}

// lastCommit returns the commit time of the last transaction that was replayed, zero
// if there was none.
func (c *cluster) lastCommit(ctx context.Context, user string) (time.Time, error) {
	text, err := c.one(ctx, user, maintenance, "SELECT coalesce(extract(epoch FROM pg_last_xact_replay_timestamp()) * 1000000, 0)::bigint")
	if err != nil {
		return time.Time{}, err
	}
	micros, err := strconv.ParseInt(text, 10, 64)
	if err != nil || micros == 0 {
		return time.Time{}, err
	}
	return time.UnixMicro(micros).UTC(), nil
}
