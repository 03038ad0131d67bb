package supervisor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pgmoneta/pgmoneta-go/internal/config"
	"github.com/pgmoneta/pgmoneta-go/internal/job"
	"github.com/pgmoneta/pgmoneta-go/internal/mgmt"
	"github.com/pgmoneta/pgmoneta-go/internal/pg"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
	"github.com/pgmoneta/pgmoneta-go/internal/shmem"
)

// handler answers requests of the management protocol.
type handler struct {
	*Supervisor
	asking asking // how the request wants its job
}

// Handle implements [mgmt.Handler].
func (h handler) Handle(ctx context.Context, req *mgmt.Request) (resp mgmt.Response, err error) {
	h.asking = asking{wait: !req.Args.Bool("NoWait"), ticket: req.Args.Text("Ticket"), request: h.requests.Add(1)}
	began := time.Now()
	defer func() {
		h.Log.Debug("request", "request", h.asking.request, "command", req.Command.String(), "server", req.Server(), "elapsed", time.Since(began).Round(time.Millisecond), "err", err)
	}()
	switch req.Command {
	case mgmt.Ping:
		return mgmt.Response{}, nil
	case mgmt.Shutdown:
		h.stop(errShutdown)
		return nil, nil
	case mgmt.Reload:
		return h.reloadFiles()
	case mgmt.ConfLs:
		return h.confLs(), nil
	case mgmt.ConfGet:
		return h.confGet(), nil
	case mgmt.ConfSet:
		return h.confSet(ctx, req)
	case mgmt.ConfRollback:
		return h.rollback()
	case mgmt.Jobs:
		return h.jobList(ctx, req)
	case mgmt.Reset:
		for _, level := range levels {
			h.Segment.LogCounter(level).Store(0)
		}
		if page := h.page.Load(); page != nil {
			page.Clear()
		}
		return nil, nil
	case mgmt.Status, mgmt.StatusDetails:
		return h.status(ctx, req.Command == mgmt.StatusDetails)
	case mgmt.Retention:
		return h.retention(req)
	case mgmt.Schedule:
		return h.schedule(req)
	}
	if kind := fileJob(req.Command); kind != "" {
		return h.ofFile(req, kind)
	}
	if req.Command == mgmt.Progress && req.Server() == "" && req.Args.Bool("Cancel") {
		return h.progress(ctx, req, h.files)
	}
	return h.ofServer(ctx, req)
}

// ofServer answers the commands that name a server.
func (h handler) ofServer(ctx context.Context, req *mgmt.Request) (mgmt.Response, error) {
	handle := map[mgmt.Command]func(context.Context, *mgmt.Request, *server) (mgmt.Response, error){
		mgmt.Backup:     h.backup,
		mgmt.ListBackup: h.listBackup,
		mgmt.Info:       h.info,
		mgmt.Restore:    h.restore,
		mgmt.Archive:    h.archive,
		mgmt.Verify:     h.verify,
		mgmt.Delete:     h.deleteBackups,
		mgmt.Progress:   h.progress,
		mgmt.WALCheck:   h.walCheck,
		mgmt.RepoCheck:  h.repoCheck,
		mgmt.RepoStats:  h.repoStats,
		mgmt.Rehearse:   h.rehearse,
		mgmt.Mode:       h.mode,
		mgmt.Retain:     h.retain,
		mgmt.Expunge:    h.retain,
		mgmt.Undelete:   h.undelete,
		mgmt.Annotate:   h.annotate,
	}[req.Command]
	if handle == nil {
		return nil, &mgmt.Error{Code: req.Command.Codes().Other, Err: fmt.Errorf("%s is not possible in this version", req.Command)}
	}
	v := h.server(req.Server())
	if v == nil {
		return nil, &mgmt.Error{Code: req.Command.Codes().NoServer, Err: fmt.Errorf("server %q is not configured", req.Server())}
	}
	resp, err := handle(ctx, req, v)
	v.tally.answered(err)
	if err != nil {
		var known *mgmt.Error
		if !errors.As(err, &known) {
			err = protocolError(req, req.Command.String(), err)
		}
		return nil, err
	}
	version := pg.Version(v.slot.ServerVersion.Load())
	if _, ok := resp["MajorVersion"]; !ok {
		resp["MajorVersion"], resp["MinorVersion"] = version.Major(), version.Minor()
	}
	resp["Server"] = v.name
	return resp, nil
}

// job runs a job and turns its failure into an error.
func (h handler) job(v *server, kind job.Kind, spec job.Spec) (job.Result, error) {
	result, err := h.runAsked(v, kind, spec, h.asking)
	if err == nil && result.Failure != nil {
		err = result.Failure
	}
	return result, err
}

func (h handler) backup(_ context.Context, req *mgmt.Request, v *server) (mgmt.Response, error) {
	if v.slot.Offline.Load() == 1 {
		return nil, &mgmt.Error{Code: mgmt.CodeBackupOffline, Workflow: "Backup", Err: fmt.Errorf("server %q is offline: take it online first (pgmoneta-cli mode %s online)", v.name, v.name)}
	}
	if v.slot.Streaming.Load() != 1 {
		why, _ := v.slot.LastError.Load()
		return nil, &mgmt.Error{Code: mgmt.CodeBackupNoWAL, Workflow: "Backup", Err: fmt.Errorf("server %q: no WAL is being received, so a backup could not become consistent (%s)", v.name, why)}
	}
	result, err := h.job(v, job.Backup, job.Spec{Backup: req.Backup(), Corrupt: req.Args.Bool("AllowCorrupt")})
	if err != nil {
		return nil, err
	}
	return mgmt.DescribeBackup(*result.Backup), nil
}

func (h handler) restore(_ context.Context, req *mgmt.Request, v *server) (mgmt.Response, error) {
	spec, err := mgmt.RestoreSpec(req)
	if err != nil {
		return nil, err
	}
	kind := job.Restore
	if spec.DryRun {
		kind = job.PlanRestore
	}
	result, err := h.job(v, kind, job.Spec{Backup: req.Backup(), Restore: spec})
	if err == nil {
		return mgmt.AnswerRestore(result.Restore, spec.DryRun), nil
	}
	refused := protocolError(req, req.Command.String(), err)
	if result.Restore != nil {
		refused.Response = mgmt.AnswerRestore(result.Restore, spec.DryRun)
	}
	return nil, refused
}

func (h handler) archive(_ context.Context, req *mgmt.Request, v *server) (mgmt.Response, error) {
	spec := job.RestoreSpec{Position: req.Args.Text("Position"), Directory: req.Args.Text("Directory")}
	switch {
	case spec.Directory == "-":
		return nil, errors.New("an archive to standard output is made by pgmoneta-cli and not by the daemon: say --offline")
	case !filepath.IsAbs(spec.Directory):
		return nil, fmt.Errorf("directory %q: an absolute path is needed, because the daemon runs elsewhere", spec.Directory)
	}
	result, err := h.job(v, job.Archive, job.Spec{Backup: req.Backup(), Restore: spec, Plain: req.Args.Bool("Plain")})
	if err != nil {
		return nil, err
	}
	return mgmt.Response{"Backup": string(result.Backup.Label), "FileName": result.Path}, nil
}

func (h handler) verify(_ context.Context, req *mgmt.Request, v *server) (mgmt.Response, error) {
	files := req.Args.Text("Files")
	if files != "" && files != "failed" && files != "all" {
		return nil, &mgmt.Error{Code: mgmt.CodeVerifyOther, Workflow: "verify", Err: fmt.Errorf("files %q: want failed or all", files)}
	}
	result, err := h.job(v, job.Verify, job.Spec{Backup: req.Backup(), AllFiles: files == "all"})
	if err != nil {
		return nil, err
	}
	failed, good := []mgmt.Document{}, []mgmt.Document{}
	for _, f := range result.Files {
		row := mgmt.Document{"Directory": f.Directory, "FileName": f.Name, "Original": f.Original, "HashAlgorithm": cmp.Or(f.Algorithm, "CRC32C")}
		if f.Problem != "" {
			row["Calculated"] = "Unknown"
			failed = append(failed, row)
			continue
		}
		good = append(good, row)
	}
	resp := mgmt.Response{"Backup": string(result.Backup.Label), "Files": mgmt.Document{"All": good, "Failed": failed}}
	if len(result.Report) == 0 {
		return resp, nil
	}
	return nil, &mgmt.Error{Code: mgmt.CodeVerifyExecute, Workflow: "Verify", WorkerErrors: result.Report, Response: resp,
		Err: fmt.Errorf("backup %s of server %q is damaged: %s", result.Backup.Label, v.name, result.Report[0])}
}

// repoCheck proves that every backup has what it refers to.
func (h handler) repoCheck(_ context.Context, req *mgmt.Request, v *server) (mgmt.Response, error) {
	quick := false
	switch mode := req.Args.Text("Mode"); mode {
	case "", "full":
	case "fast":
		quick = true
	default:
		return nil, fmt.Errorf("mode %q: want fast or full", mode)
	}
	result, err := h.job(v, job.CheckRepo, job.Spec{Quick: quick})
	if err != nil {
		return nil, err
	}
	return mgmt.AnswerRepoCheck(v.name, result.Repo)
}

// repoStats tells what the backups take.
func (h handler) repoStats(_ context.Context, _ *mgmt.Request, v *server) (mgmt.Response, error) {
	result, err := h.job(v, job.CheckRepo, job.Spec{Quick: true})
	if err != nil {
		return nil, err
	}
	return mgmt.AnswerRepoStats(result.Repo), nil
}

// rehearse restores a backup for proof and starts PostgreSQL on it. Without more
// words it is the newest, to the end of the WAL.
func (h handler) rehearse(_ context.Context, req *mgmt.Request, v *server) (mgmt.Response, error) {
	result, err := h.job(v, job.Rehearse, job.Spec{Backup: cmp.Or(req.Backup(), "newest"), Position: cmp.Or(req.Args.Text("Position"), "latest")})
	if err != nil {
		return nil, err
	}
	return mgmt.AnswerRehearsal(v.name, result.Backup.Label, result.Rehearsal)
}

// listed is a row of a listing. WAL is what was received since the backup began,
// delta what lies between it and the one before.
func (v *server) listed(ctx context.Context, b repo.Backup, before *repo.Backup) mgmt.Document {
	d := mgmt.DescribeBackup(b.Summary)
	delete(d, "MajorVersion")
	delete(d, "MinorVersion")
	d["Server"], d["Backup"] = v.name, string(b.Label)
	d["Keep"], d["Comments"] = v.note(ctx, b)
	d["WAL"], d["Delta"] = int64(0), int64(0)
	if b.Err != nil {
		d["Valid"] = 0
		return d
	}
	if last, err := v.repo.Verification(ctx, b.Label); err == nil && last != nil {
		d["Verification"] = mgmt.VerificationDocument(last)
	}
	size := b.Summary.SegmentSize
	if stored := pg.LSN(v.slot.FlushedLSN.Load()); stored > b.Summary.Start {
		d["WAL"] = int64(size.Start(stored) - size.Start(b.Summary.Start))
	}
	if before != nil && before.Err == nil && before.Summary.Start < b.Summary.Start {
		d["Delta"] = int64(size.Start(b.Summary.Start) - size.Start(before.Summary.Start))
	}
	return d
}

func (v *server) listing(ctx context.Context, list []repo.Backup) []mgmt.Document {
	rows := make([]mgmt.Document, len(list))
	for i := range list {
		var before *repo.Backup
		if i > 0 {
			before = &list[i-1]
		}
		rows[i] = v.listed(ctx, list[i], before)
	}
	return rows
}

func (h handler) listBackup(ctx context.Context, req *mgmt.Request, v *server) (mgmt.Response, error) {
	list, err := v.repo.Backups(ctx)
	if err != nil {
		return nil, &mgmt.Error{Code: mgmt.CodeListBackups, Workflow: "list-backup", Err: err}
	}
	rows := v.listing(ctx, list)
	switch req.Args.Text("Sort") {
	case "", "asc":
	case "desc":
		slices.Reverse(rows)
	default:
		return nil, &mgmt.Error{Code: mgmt.CodeListInvalidSort, Workflow: "list-backup", Err: fmt.Errorf("sort %q: want asc or desc", req.Args.Text("Sort"))}
	}
	resp := mgmt.Response{"NumberOfBackups": len(rows), "Backups": rows}
	trash, err := h.inTrash(ctx, v)
	if err != nil {
		return nil, &mgmt.Error{Code: mgmt.CodeListBackups, Workflow: "list-backup", Err: err}
	}
	if len(trash) > 0 {
		resp["Trash"] = trash
	}
	return resp, nil
}

func (h handler) info(ctx context.Context, req *mgmt.Request, v *server) (mgmt.Response, error) {
	b, err := v.repo.Find(ctx, req.Backup())
	if err == nil {
		err = b.Err
	}
	if err != nil {
		return nil, protocolError(req, "info", err)
	}
	s := b.Summary
	resp := mgmt.DescribeBackup(s)
	keep, comments := v.note(ctx, b)
	tablespaces := []mgmt.Document{}
	for _, ts := range s.Tablespaces {
		tablespaces = append(tablespaces, mgmt.Document{"TablespaceName": ts.Name})
	}
	corrupt := []mgmt.Document{}
	for _, p := range s.Corrupt {
		corrupt = append(corrupt, mgmt.Document{"FileName": p.Path, "Block": p.Block})
	}
	if len(corrupt) > 0 {
		resp["Corrupt"] = corrupt
	}
	halves := func(name string, lsn pg.LSN) {
		resp[name+"HiLSN"], resp[name+"LoLSN"] = int64(lsn>>32), int64(uint32(lsn))
	}
	halves("Start", s.Start)
	halves("End", s.End)
	halves("Checkpoint", s.Checkpoint)
	for k, value := range (mgmt.Document{
		"WAL": pg.SegmentName(s.StartTLI, s.Start, s.SegmentSize), "Elapsed": s.EndedAt.Sub(s.StartedAt).Seconds(),
		"Keep": keep, "Comments": comments, "NumberOfTablespaces": len(tablespaces), "Tablespaces": tablespaces,
		"StartTimeline": int64(s.StartTLI), "EndTimeline": int64(s.EndTLI),
	}) {
		resp[k] = value
	}
	return resp, nil
}

// progress tells how far the job of a server is, and stops it if it is not wanted any more.
func (h handler) progress(_ context.Context, req *mgmt.Request, v *server) (mgmt.Response, error) {
	resp := mgmt.Response{"ProgressState": 0, "Done": 0, "Total": 0, "Elapsed": 0, "Percentage": 0,
		"Remaining": mgmt.Document{"value": 0, "string_value": "0s"}}
	if req.Args.Bool("Cancel") {
		cancelled, err := h.cancel(req, v)
		if err != nil {
			return nil, err
		}
		resp["Cancelled"] = cancelled
	}
	if ticket := req.Args.Text("Ticket"); ticket != "" {
		state := h.book.state(v.name, ticket)
		resp["State"] = state
		if state != stateRunning {
			return resp, nil // what runs is another one
		}
	}
	list := h.jobSnapshots()
	// A check of WAL runs beside the job that is meant; others beside it are not worth telling.
	list = slices.DeleteFunc(list, func(j shmem.JobSnapshot) bool { return job.KindOf(j.Kind).Quiet() })
	beside := job.CheckWAL.Number()
	slices.SortFunc(list, func(a, b shmem.JobSnapshot) int { return isKind(b, beside) - isKind(a, beside) })
	for _, j := range list {
		if j.ServerIndex != v.index {
			continue
		}
		elapsed := int64(j.UpdatedAt.Sub(j.StartedAt).Seconds())
		resp["ProgressState"], resp["Done"], resp["Total"], resp["Elapsed"] = 1, j.DoneBytes, j.TotalBytes, max(elapsed, 0)
		resp["Kind"], resp["Phase"] = string(job.KindOf(j.Kind)), j.Phase
		if j.TotalBytes > 0 {
			resp["Percentage"] = int64(100 * j.DoneBytes / j.TotalBytes)
			if done := min(j.DoneBytes, j.TotalBytes); done > 0 {
				left := int64(float64(elapsed) * float64(j.TotalBytes-done) / float64(done))
				resp["Remaining"] = mgmt.Document{"value": left, "string_value": fmt.Sprintf("%ds", left)}
			}
		}
	}
	return resp, nil
}

func isKind(j shmem.JobSnapshot, kind int) int {
	if j.Kind == kind {
		return 1
	}
	return 0
}

// jobSnapshots returns the running jobs.
func (s *Supervisor) jobSnapshots() []shmem.JobSnapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []shmem.JobSnapshot
	for i := range s.jobs {
		list = append(list, s.Segment.JobSlot(i).Snapshot())
	}
	return list
}

func (h handler) status(ctx context.Context, details bool) (mgmt.Response, error) {
	c := h.config.Load()
	servers := []mgmt.Document{}
	used := uint64(0)
	for _, v := range h.servers {
		if _, ok := c.Server(v.name); !ok {
			continue // a reload is under way
		}
		d, size, err := h.serverStatus(ctx, c, v, details)
		if err != nil {
			return nil, err
		}
		used += size
		servers = append(servers, d)
	}
	free, total, err := space(c.Main.BaseDir)
	if err != nil {
		return nil, err
	}
	resp := mgmt.Response{"UsedSpace": used, "FreeSpace": free, "TotalSpace": total, "SpaceState": spaceState(c, free, total), "Workers": c.Main.Workers,
		"NumberOfServers": len(servers), "Servers": servers}
	if details {
		resp["PgmonetaFips"] = false
		resp["SpaceForecast"], resp["SpaceFullAt"], resp["SpaceGrowth"] = spaceForecast(h.forecast.Load(), time.Now())
	}
	return resp, nil
}

func (h handler) serverStatus(ctx context.Context, c *config.Config, v *server, details bool) (mgmt.Document, uint64, error) {
	sc, ok := c.Server(v.name)
	if !ok {
		return nil, 0, fmt.Errorf("server %q is not configured", v.name)
	}
	list, err := v.repo.Backups(ctx)
	if err != nil {
		return nil, 0, err
	}
	snap := v.slot.Snapshot()
	size := snap.WALBytes + backupBytes(list)
	r := c.Retention(sc)
	is := func(k job.Kind) bool { b := v.busy.Load(); return b != nil && *b == k }
	d := mgmt.Document{
		"Server": v.name, "Online": snap.Streaming, "Primary": snap.Primary, "Checksums": snap.Checksums,
		"ActiveBackup": is(job.Backup), "ActiveRestore": is(job.Restore), "ActiveDelete": is(job.Delete),
		"ActiveArchive": is(job.Archive), "ActiveRetention": is(job.Retention), "NumberOfBackups": len(list), "ServerSize": size,
		"WorkspaceFreeSpace": 0, "HotStandbySize": 0, "Workers": c.Workers(sc),
		"RetentionDays": unset(r.Days), "RetentionWeeks": unset(r.Weeks), "RetentionMonths": unset(r.Months), "RetentionYears": unset(r.Years),
	}
	if details {
		d["WalStreaming"], d["Fips"], d["Backups"] = snap.Streaming, false, v.listing(ctx, list)
		h.walStatus(d, snap)
		d["LastRehearsal"] = v.lastRehearsal()
		d["LastVerification"] = v.lastVerification()
		d["Usage"] = h.usageOf(v)
		if err := h.holeStatus(ctx, d, v); err != nil {
			return nil, 0, err
		}
	}
	return d, size, nil
}

// lastRehearsal describes the last rehearsal without its checks.
func (v *server) lastRehearsal() mgmt.Document {
	last := v.rehearsed.Load()
	if last == nil {
		return mgmt.Document{}
	}
	d := mgmt.RehearsalDocument(last.result)
	d["Backup"] = string(last.label)
	delete(d, "Checks")
	return d
}

// lastVerification describes the last verification.
func (v *server) lastVerification() mgmt.Document {
	last := v.verified.Load()
	if last == nil {
		return mgmt.Document{}
	}
	d := mgmt.VerificationDocument(last.result)
	d["Backup"] = string(last.label)
	return d
}

// walStatus adds what C pgmoneta did not tell: how far WAL is, and what is wrong.
func (h handler) walStatus(d mgmt.Document, snap shmem.ServerSnapshot) {
	d["Timeline"] = snap.Timeline
	d["WrittenLSN"] = pg.LSN(snap.WrittenLSN).String()
	d["FlushedLSN"] = pg.LSN(snap.FlushedLSN).String()
	d["StoredLSN"] = pg.LSN(snap.StoredLSN).String()
	d["ServerLSN"] = pg.LSN(snap.ServerLSN).String()
	d["WorkerPID"], d["WorkerRestarts"], d["Reconnects"] = snap.WorkerPID, snap.Restarts, snap.Reconnects
	d["CurrentSegment"] = snap.CurrentSegment
	d["SlotState"], d["SlotRetained"] = snap.SlotState, snap.SlotRetained
	d["ShippedLSN"] = pg.LSN(snap.ShippedLSN).String()
	d["NextAttempt"] = ""
	if !snap.Streaming && !snap.Offline && !snap.NextAttempt.IsZero() {
		d["NextAttempt"] = snap.NextAttempt.UTC().Format(time.RFC3339)
	}
	d["Mode"] = "online"
	if snap.Offline {
		d["Mode"] = "offline"
	}
	d["LastError"] = ""
	if !snap.Streaming && !snap.Offline {
		d["LastError"] = firstText(snap.LastError, snap.LastExit)
	}
}

func firstText(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

func unset(n int) int {
	if n <= 0 {
		return -1
	}
	return n
}

func backupBytes(list []repo.Backup) (n uint64) {
	for _, b := range list {
		n += uint64(b.Summary.Stored)
	}
	return n
}

// space returns what is free for us and in all on the file system of dir, in bytes.
func space(dir string) (free, total uint64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, 0, &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	return st.Bavail * uint64(st.Frsize), st.Blocks * uint64(st.Frsize), nil
}
