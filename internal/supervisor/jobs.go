package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/job"
	"github.com/pgmoneta/pgmoneta-go/internal/mgmt"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
	"github.com/pgmoneta/pgmoneta-go/internal/shmem"
)

// running is a job in progress.
type running struct {
	server *server
	kind   job.Kind
	id     int64 // in the book
	child  Child
}

// A busyError reports that a server has a job already, or that a file is converted.
type busyError struct {
	server string
	kind   job.Kind
}

func (e *busyError) Error() string {
	if e.server == "" {
		return fmt.Sprintf("the daemon is busy with the %s of another file: try again when it is done (pgmoneta-cli jobs)", e.kind)
	}
	return fmt.Sprintf("server %q is busy with a %s: try again when it is done (pgmoneta-cli status)", e.server, e.kind)
}

// maxLooking is how many jobs that only look run at once, of all servers together. After
// a start, and at every interval of the retention, each server wants one at the same
// moment: they must neither take the slots of jobs that somebody waits for nor start a
// process for each server.
const maxLooking = 4

// An asking says how a job is asked for. By its zero value the job is refused when the
// server is busy.
type asking struct {
	wait   bool   // for its turn
	ticket string // see entry

	request uint64 // number of the client's request, 0 for none
}

// runAsked runs one job to its end in a process of its own. Only the end of the
// supervisor or a cancellation ends it early. A server has one job at a time, and
// those that need no lock beside that; who does not want to wait is refused with a
// *busyError. Jobs that only look wait while [maxLooking] others do.
func (s *Supervisor) runAsked(v *server, kind job.Kind, spec job.Spec, how asking) (result job.Result, err error) {
	if kind == job.Backup {
		if err := s.roomForBackup(); err != nil {
			return job.Result{}, fmt.Errorf("server %q: %w", v.name, err)
		}
	}
	if kind.Quiet() {
		select {
		case s.looking <- struct{}{}:
			defer func() { <-s.looking }()
		case <-s.ctx.Done():
			return job.Result{}, context.Cause(s.ctx)
		}
	}
	e := s.book.enter(record{Server: v.name, Kind: kind, File: spec.Path}, how.ticket)
	e.request = how.request
	defer func() {
		if err := s.book.leave(e, result, err); err != nil {
			s.Log.Warn("history of jobs not written", "err", err)
		}
	}()
	if kind.Beside() {
		return s.runTurn(v, kind, spec, e)
	}
	if err := v.queue.acquire(s.ctx, v, e, how.wait); err != nil {
		return job.Result{}, err
	}
	v.busy.Store(&kind)
	defer func() {
		v.busy.Store(nil)
		v.queue.release()
	}()
	return s.runTurn(v, kind, spec, e)
}

// runTurn runs a job whose turn has come.
func (s *Supervisor) runTurn(v *server, kind job.Kind, spec job.Spec, e *entry) (job.Result, error) {
	start, err := s.start(v, kind)
	if err != nil {
		return job.Result{}, err
	}
	start.Job, start.Run, start.Request = spec, uint64(e.ID), e.request
	s.Log.With(start.LogAttrs()...).Debug("job begins", "job", string(kind))
	hooks := s.hooks(v, kind)
	if err := hooks.before(s.ctx); err != nil {
		return job.Result{}, err
	}
	began := time.Now()
	result, err := s.inSlot(v, start, e)
	v.tally.jobEnded(kind, began, result, err)
	hooks.after(s.ctx, result, err)
	if kind != job.Usage { // which follows a change of the catalog
		v.catalogChanged()
	}
	if kind == job.Delete || kind == job.Retention || result.Freed > 0 {
		v.freed.Add(1)
	}
	if result.Repo != nil {
		v.usage.Store(&usage{result.Repo.Usage, began})
	}
	if result.Rehearsal != nil {
		v.rehearsed.Store(&rehearsed{result.Backup.Label, result.Rehearsal})
	}
	if result.Verification != nil {
		v.verified.Store(&verified{result.Backup.Label, result.Verification})
	}
	if kind == job.Backup && (err != nil || result.Failure != nil) {
		v.countFailure(result.Failure)
	}
	return result, err
}

func (v *server) countFailure(f *job.Failure) {
	v.mu.Lock()
	defer v.mu.Unlock()
	reason := "worker"
	if f != nil {
		reason = string(f.Class)
	}
	v.failures[reason]++
}

// inSlot reserves a job slot, runs the job and frees the slot.
func (s *Supervisor) inSlot(v *server, start job.Start, e *entry) (job.Result, error) {
	i, slot, err := s.reserve(v, start.Kind, e.ID)
	if err != nil {
		return job.Result{}, err
	}
	defer s.release(i, slot)
	s.book.begin(e)
	start.JobSlot = i
	child, err := s.launch(start, "pgmoneta-"+string(start.Kind))
	if err != nil {
		return job.Result{}, err
	}
	slot.PID.Store(int64(child.PID()))
	slot.State.Store(shmem.StateRunning)
	s.mu.Lock()
	s.jobs[i].child = child
	s.mu.Unlock()
	switch { // while it started
	case e.cancelled():
		_ = child.Conn().Send(job.KindCancel, nil)
	case s.ctx.Err() != nil:
		_ = child.Conn().Send(job.KindStop, nil)
	}
	return await(child, start)
}

// await receives the result of a job and the end of its process.
func await(child Child, start job.Start) (job.Result, error) {
	var result job.Result
	msg, err := child.Conn().Receive()
	if err == nil {
		err = msg.Decode(&result)
	}
	werr := child.Wait()
	_ = child.Conn().Close()
	if errors.Is(err, io.EOF) || err == nil && msg.Kind != job.KindResult {
		err = fmt.Errorf("the worker of the %s ended without a result: %w", start.Work(), werr)
	}
	return result, err
}

func (s *Supervisor) reserve(v *server, kind job.Kind, id int64) (int, *shmem.Job, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil {
		return 0, nil, context.Cause(s.ctx)
	}
	if v.gone {
		return 0, nil, fmt.Errorf("server %q is not configured any more", v.name)
	}
	for _, r := range s.jobs {
		if r.server == v && r.kind == kind && !kind.Quiet() {
			return 0, nil, &busyError{server: v.name, kind: kind}
		}
	}
	for i := range s.Segment.Jobs() {
		if s.jobs[i] != nil {
			continue
		}
		s.jobs[i] = &running{server: v, kind: kind, id: id}
		slot := s.Segment.JobSlot(i)
		slot.Clear()
		slot.ServerIndex.Store(int64(v.index))
		slot.Kind.Store(int64(kind.Number()))
		slot.StartedAt.StoreTime(time.Now())
		slot.State.Store(shmem.StateStarting)
		return i, slot, nil
	}
	return 0, nil, errors.New("too many jobs run at once")
}

func (s *Supervisor) release(i int, slot *shmem.Job) {
	slot.State.Store(shmem.StateUnused)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.jobs, i)
}

// holder returns the number of the job that holds a server, 0 when none does.
func (s *Supervisor) holder(v *server) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.jobs {
		if r.server == v && !r.kind.Beside() {
			return r.id
		}
	}
	return 0
}

// cancelJob tells a job of a server to stop. Who asked for it is told that it was.
func (s *Supervisor) cancelJob(v *server, id int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.jobs {
		if r.server == v && r.id == id && r.child != nil {
			_ = r.child.Conn().Send(job.KindCancel, nil)
		}
	}
}

// cancelJobs tells all jobs to stop. Their requests are still answered.
func (s *Supervisor) cancelJobs() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.jobs {
		if r.child != nil {
			_ = r.child.Conn().Send(job.KindStop, nil)
		}
	}
}

// protocolError gives a failure the code of the command.
func protocolError(req *mgmt.Request, workflow string, err error) *mgmt.Error {
	codes := req.Command.Codes()
	e := &mgmt.Error{Code: codes.Other, Workflow: workflow, Err: err}
	var busy *busyError
	var failure *job.Failure
	switch {
	case errors.As(err, &busy):
		e.Code = codes.Busy
	case errors.Is(err, repo.ErrNoBackup):
		e.Code = codes.NoBackup
	case errors.As(err, &failure):
		e.Code = failureCode(req.Command, failure.Class)
	}
	return e
}

func failureCode(c mgmt.Command, class job.Class) mgmt.Code {
	codes := c.Codes()
	switch class {
	case job.Busy:
		return codes.Busy
	case job.NoBackup, job.BadInput:
		return codes.NoBackup
	case job.BadBase:
		return mgmt.CodeIncrementalSetup
	case job.Retained:
		return mgmt.CodeDeleteBackupRetained
	}
	switch c {
	case mgmt.Backup:
		return mgmt.CodeBackupExecute
	case mgmt.Restore:
		return mgmt.CodeRestoreFailed
	case mgmt.Delete:
		return mgmt.CodeDeleteBackupExecute
	}
	return codes.Other
}
