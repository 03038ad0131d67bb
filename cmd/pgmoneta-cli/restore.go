package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pgmoneta/pgmoneta-go/internal/durable"
	"github.com/pgmoneta/pgmoneta-go/internal/job"
	"github.com/pgmoneta/pgmoneta-go/internal/mgmt"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
	"github.com/pgmoneta/pgmoneta-go/internal/restore"
)

// restore restores in this process.
func (i inspector) restore(ctx context.Context, req *mgmt.Request, r *repo.Repository) (mgmt.Response, error) {
	spec, err := mgmt.RestoreSpec(req)
	if err != nil {
		return nil, err
	}
	o, err := i.options(req, r, spec)
	if err != nil {
		return nil, refused(err)
	}
	unlock, _, err := i.lock(r)
	if err != nil {
		return nil, refused(err)
	}
	defer unlock()
	workers := spec.Workers
	if server, ok := i.conf.Server(r.Server()); ok && workers == 0 {
		workers = i.conf.Workers(server)
	}
	report, err := restore.Do(ctx, r, o, spec.DryRun, restore.RunOptions{Workers: workers, MaxRate: spec.MaxRate, Progress: i.progress()})
	resp := mgmt.AnswerRestore(report, spec.DryRun)
	if err != nil {
		e := refused(err)
		e.Response = resp
		return nil, e
	}
	resp["Server"] = r.Server()
	return resp, nil
}

func (i inspector) options(req *mgmt.Request, r *repo.Repository, spec job.RestoreSpec) (restore.Options, error) {
	o, err := restore.ParseSpec(req.Backup(), spec)
	if err != nil {
		return o, err
	}
	server, _ := i.conf.Server(r.Server())
	at := server.Addresses()[0]
	o.PrimaryConninfo = restore.Conninfo(r.Server(), at.Host, at.Port, server.User)
	config, err := filepath.Abs(i.conf.Path)
	if err != nil {
		return o, err
	}
	program, _ := os.Executable()
	o.Command = restore.FindCommand(program, config)
	return o, nil
}

// lock keeps a daemon from deleting what is read. In a repository that cannot be
// written to nobody deletes anything, and it is not held.
func (i inspector) lock(r *repo.Repository) (unlock func(), held bool, err error) {
	lock, err := r.Lock()
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EROFS) {
		i.say("the repository is not writable: it is read without its lock")
		return func() {}, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	if info, err := os.Stat(r.Dir()); err == nil && os.Geteuid() == 0 {
		// A daemon that is not root has to be able to take the lock that root made.
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			_ = os.Lchown(filepath.Join(r.Dir(), "lock"), int(st.Uid), int(st.Gid))
		}
	}
	return func() { _ = lock.Release() }, true, nil
}

// refused gives an error the code of the protocol.
func refused(err error) *mgmt.Error {
	e := &mgmt.Error{Code: mgmt.CodeRestoreFailed, Workflow: "restore", Err: err}
	switch {
	case errors.As(err, new(*durable.LockedError)):
		e.Code = mgmt.CodeRestoreActive
	case restore.IsRefusal(err):
		e.Code = mgmt.CodeRestoreNoBackup
	}
	return e
}

// sayEvery is how often a restore without a daemon tells how far it is.
const sayEvery = 10 * time.Second

// progress tells how far a restore is and how long it will still take.
func (i inspector) progress() func(phase string, done, total int64) {
	if i.bar != nil {
		return i.bar.show
	}
	began, told := time.Time{}, time.Time{}
	return func(phase string, done, total int64) {
		now := time.Now()
		if began.IsZero() {
			began, told = now, now
		}
		if now.Sub(told) < sayEvery || done <= 0 || total <= 0 {
			return
		}
		told = now
		elapsed := now.Sub(began)
		left := time.Duration(float64(elapsed) / float64(done) * float64(total-done)).Round(time.Second)
		i.say(fmt.Sprintf("%s: %d of %d MB, %.0f MB/s, %s left", phase, done>>20, total>>20, float64(done)/elapsed.Seconds()/(1<<20), left))
	}
}
