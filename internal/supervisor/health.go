package supervisor

import (
	"context"
	"fmt"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/metrics"
)

// Health tells how the daemon is, for /healthz, /readyz and the watchdog of systemd.
//
// It lives while what every request needs can be had within a second. It is ready between start and end while every
// list of backups can be read and the file system of base_dir answers and has room. A server that cannot be reached
// is no fault of the daemon: that is told and changes nothing.
func (s *Supervisor) Health() metrics.Health {
	var h metrics.Health
	if !s.lives(s.ctx) {
		h.Live.Problems = []string{"the supervisor does not come to its tables: start it again"}
		h.Ready.Problems = h.Live.Problems
		return h
	}
	ready := &h.Ready
	problem := func(format string, args ...any) {
		ready.Problems = append(ready.Problems, fmt.Sprintf(format, args...))
	}
	switch {
	case s.ctx.Err() != nil:
		problem("the daemon is ending")
	case !s.started.Load():
		problem("the daemon is starting")
	}
	switch m := s.measured.Load(); {
	case m == nil:
		problem("base_dir has not been looked at so far")
	case m.storage.Free == 0:
		problem("no room in base_dir, or its file system does not answer")
	}
	for _, v := range s.servers {
		switch {
		case v.unreadable.Load():
			problem("server %q: the list of backups cannot be read: see the log", v.name)
		case v.catalog.Load() == nil:
			problem("server %q: the list of backups has not been read so far", v.name)
		}
		wal := "WAL is being received"
		if v.slot.Streaming.Load() != 1 {
			wal = "no WAL is being received"
		}
		ready.Notes = append(ready.Notes, fmt.Sprintf("server %q: %s", v.name, wal))
	}
	return h
}

const (
	patience = time.Second
	lookAt   = 10 * time.Millisecond
)

// lives reports whether the lock of the tables, which is never held for long, can be had.
func (s *Supervisor) lives(ctx context.Context) bool {
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		if s.mu.TryLock() {
			s.mu.Unlock()
			return true
		}
		t := time.NewTimer(lookAt)
		select {
		case <-ctx.Done():
		case <-t.C:
		}
		t.Stop()
	}
	return false
}
