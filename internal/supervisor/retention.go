package supervisor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/config"
	"github.com/pgmoneta/pgmoneta-go/internal/job"
	"github.com/pgmoneta/pgmoneta-go/internal/mgmt"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
)

// policy returns what the retention of a server keeps.
func policy(c *config.Config, sc *config.Server) job.Policy {
	r := c.Retention(sc)
	return job.Policy{Days: r.Days, Weeks: r.Weeks, Months: r.Months, Years: r.Years,
		Count: c.RetentionCount(sc), Min: c.RetentionMin(sc), Window: c.RecoveryWindow(sc), WALAll: c.WALKeep(sc) == config.WALKeepAll, Delay: c.DeleteDelay(sc)}
}

// expire deletes what is not needed any more, every retention_interval, until ctx ends.
func (s *Supervisor) expire(ctx context.Context, v *server) {
	t := time.NewTicker(s.config.Load().Main.RetentionInterval)
	defer t.Stop()
	alarm, failed := "", ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		if v.busy.Load() != nil {
			continue
		}
		report, err := s.expireOnce(v)
		switch {
		case ctx.Err() != nil, errors.As(err, new(*busyError)):
			continue
		case err != nil:
			if err.Error() != failed { // once, and again when it is another
				failed = err.Error()
				v.log.Error("retention", "err", err)
			}
			continue
		case failed != "":
			failed = ""
			v.log.Info("the retention works again")
		}
		switch {
		case len(report.Refused) == 0:
			alarm = ""
		case report.Refused[0] != alarm:
			alarm = report.Refused[0]
			v.log.Error("retention deletes nothing", "why", alarm)
		}
	}
}

// expireOnce runs the retention of a server. It looks first, beside other jobs, so that
// the server is held only when there is something to delete.
func (s *Supervisor) expireOnce(v *server) (*job.RetentionReport, error) {
	report, err := s.retentionJob(v, job.PlanRetention)
	if err != nil || report.Deletes() == 0 && report.Purges() == 0 && report.Segments == 0 {
		return report, err
	}
	return s.retentionJob(v, job.Retention)
}

func (s *Supervisor) retentionJob(v *server, kind job.Kind) (*job.RetentionReport, error) {
	result, err := handler{Supervisor: s}.job(v, kind, job.Spec{})
	if err != nil {
		return nil, err
	}
	if result.Retention == nil {
		return nil, fmt.Errorf("the %s of server %q has no result", kind, v.name)
	}
	return result.Retention, nil
}

// retention answers the command, for one server or all.
func (h handler) retention(req *mgmt.Request) (mgmt.Response, error) {
	servers := h.fleet.list()
	if name := req.Server(); name != "" {
		v := h.server(name)
		if v == nil {
			return nil, &mgmt.Error{Code: mgmt.CodeRetentionNoServer, Err: fmt.Errorf("server %q is not configured", name)}
		}
		servers = []*server{v}
	}
	run := h.expireOnce
	dry := req.Args.Bool("DryRun")
	if dry {
		run = func(v *server) (*job.RetentionReport, error) { return h.retentionJob(v, job.PlanRetention) }
	}
	rows := []mgmt.Document{}
	var first string // that failed
	var failed error
	for _, v := range servers {
		report, err := run(v)
		if err != nil { // the others have their turn all the same
			first, failed = cmp.Or(first, v.name), errors.Join(failed, err)
			continue
		}
		rows = append(rows, mgmt.RetentionDocument(v.name, report))
	}
	if failed != nil {
		refused := protocolError(req, "retention", failed)
		refused.Server, refused.Response = first, mgmt.Document{"DryRun": dry, "Servers": rows}
		return nil, refused
	}
	return mgmt.Response{"DryRun": dry, "NumberOfServers": len(rows), "Servers": rows}, nil
}

// note returns whether a backup is kept and the comments on it. One whose note cannot be
// read is kept.
func (v *server) note(ctx context.Context, b repo.Backup) (keep bool, comments any) {
	if b.Foreign {
		return b.Keep, b.Comments
	}
	n, err := v.repo.Note(ctx, b.Label)
	if err != nil {
		return true, "the note cannot be read: " + err.Error()
	}
	return n.Keep, mgmt.CommentText(n.Comments)
}

// foreignNoteError refuses to change a backup that is only read.
type foreignNoteError struct{ label repo.Label }

func (e *foreignNoteError) Error() string {
	return fmt.Sprintf("backup %s was made by pgmoneta in C, whose files are only read: its flag and comments stay as they are", e.label)
}

// retain sets or removes the flag of a backup that retention leaves it alone.
func (h handler) retain(ctx context.Context, req *mgmt.Request, v *server) (mgmt.Response, error) {
	b, err := v.repo.Find(ctx, req.Backup())
	if err != nil {
		return nil, err
	}
	if b.Err != nil {
		return nil, b.Err
	}
	labels := []repo.Label{b.Label}
	if req.Args.Bool("Cascade") {
		if labels, err = v.lineage(ctx, b); err != nil {
			return nil, err
		}
	}
	changed := []string{}
	for _, l := range labels {
		if _, err := v.changeNote(ctx, l, func(n *repo.Note) error { n.Keep = req.Command == mgmt.Retain; return nil }); err != nil {
			return nil, err
		}
		changed = append(changed, string(l))
	}
	resp := mgmt.DescribeBackup(b.Summary)
	resp["Backups"], resp["Cascade"] = changed, req.Args.Bool("Cascade")
	resp["Keep"], resp["Comments"] = v.note(ctx, b)
	return resp, nil
}

func (v *server) changeNote(ctx context.Context, l repo.Label, change func(*repo.Note) error) (repo.Note, error) {
	b, err := v.repo.Find(ctx, string(l))
	if err != nil {
		return repo.Note{}, err
	}
	if b.Foreign {
		return repo.Note{}, &foreignNoteError{l}
	}
	n, err := v.repo.ChangeNote(ctx, l, time.Now(), change)
	v.catalogChanged()
	return n, err
}

// lineage returns a backup and those that it is based on, which need not exist any more.
func (v *server) lineage(ctx context.Context, b repo.Backup) ([]repo.Label, error) {
	list, err := v.repo.Backups(ctx)
	if err != nil {
		return nil, err
	}
	labels, next := []repo.Label{b.Label}, b.Summary.Base
	for _, o := range slices.Backward(list) { // a base is older
		if o.Label == next {
			labels, next = append(labels, o.Label), o.Summary.Base
		}
	}
	return labels, nil
}

// annotate changes the comments on a backup.
func (h handler) annotate(ctx context.Context, req *mgmt.Request, v *server) (mgmt.Response, error) {
	a, err := mgmt.ParseAnnotation(req)
	if err != nil {
		return nil, err
	}
	b, err := v.repo.Find(ctx, req.Backup())
	if err != nil {
		return nil, err
	}
	if _, err := v.changeNote(ctx, b.Label, a.Apply); err != nil {
		return nil, &mgmt.Error{Code: mgmt.CodeAnnotateFailed, Workflow: "annotate", Err: err}
	}
	return h.info(ctx, req, v)
}
