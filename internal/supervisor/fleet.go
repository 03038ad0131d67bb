package supervisor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/pgmoneta/pgmoneta-go/internal/config"
	"github.com/pgmoneta/pgmoneta-go/internal/shmem"
)

// A fleet is the servers of the daemon. Those that a reload removed keep their
// slot in the shared segment until nothing of them runs any more.
type fleet struct {
	mu      sync.Mutex
	current []*server       // replaced by another list, never changed itself
	slots   map[int]*server // by slot of the shared segment
	ending  sync.WaitGroup  // of the servers that were removed
}

func (f *fleet) list() []*server {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.current
}

func (f *fleet) set(list []*server) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.current = list
}

// reserve takes a free slot for a server, and finds those of the same name that are
// still ending.
func (f *fleet) reserve(name string, slots int) (index int, before []<-chan struct{}, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.slots == nil {
		f.slots = map[int]*server{}
	}
	for _, v := range f.slots {
		if v != nil && v.name == name {
			before = append(before, v.ended)
		}
	}
	for i := range slots {
		if _, taken := f.slots[i]; !taken {
			f.slots[i] = nil
			return i, before, nil
		}
	}
	return 0, nil, fmt.Errorf("server %q: at most %d servers are possible", name, slots)
}

// keep enters the server into the slot that was reserved for it; nil gives it back.
func (f *fleet) keep(index int, v *server) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if v == nil {
		delete(f.slots, index)
		return
	}
	f.slots[index] = v
}

// stopWatching ends the goroutines of all servers except those of their WAL workers.
func (f *fleet) stopWatching() {
	for _, v := range f.list() {
		v.unwatch()
		v.watchers.Wait()
	}
}

// stopReceiving ends all WAL workers.
func (f *fleet) stopReceiving() {
	for _, v := range f.list() {
		v.dismiss()
	}
	for _, v := range f.list() {
		v.workers.Wait()
		v.watchers.Wait() // of one that the last request added
	}
	f.ending.Wait()
}

// servers yields the servers there are now: for _, v := range s.servers.
func (s *Supervisor) servers(yield func(int, *server) bool) {
	for i, v := range s.fleet.list() {
		if !yield(i, v) {
			return
		}
	}
}

func (s *Supervisor) server(name string) *server {
	for _, v := range s.servers {
		if v.name == name {
			return v
		}
	}
	return nil
}

// enlist opens the state of servers, all or none. Nothing of them runs yet.
func (s *Supervisor) enlist(c *config.Config, sections []config.Server) (list []*server, err error) {
	keys, err := s.keys(c)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			for _, v := range list {
				s.discard(v)
			}
			list = nil
		}
	}()
	for i := range sections {
		index, before, err := s.fleet.reserve(sections[i].Name, s.Segment.Servers())
		if err != nil {
			return list, err
		}
		v, err := newServer(index, sections[i].Name, c.Main.BaseDir, keys, s.Foreign, s.Segment, s.Log.Logger)
		s.fleet.keep(index, v)
		if err != nil {
			return list, err
		}
		v.before = before
		list = append(list, v)
	}
	return list, nil
}

// discard gives back what a server holds that never began or has ended.
func (s *Supervisor) discard(v *server) {
	v.slot.Clear()
	s.fleet.keep(v.index, nil)
}

// begin starts what runs for a server, until it is removed or the daemon ends.
func (s *Supervisor) begin(v *server) {
	var watching, receiving context.Context
	watching, v.unwatch = context.WithCancel(s.ctx)
	// WAL workers outlive the requests and jobs that need them.
	receiving, v.dismiss = context.WithCancel(context.WithoutCancel(s.ctx))
	v.restoreMode()
	v.workers.Go(func() { s.keepReceiving(receiving, v) })
	v.watchers.Go(func() { v.refresh(watching) })
	v.watchers.Go(func() { s.watchHoles(watching, v) })
	v.watchers.Go(func() { s.mendGap(watching, v) })
	v.watchers.Go(func() { s.expire(watching, v) })
	v.watchers.Go(func() { s.keepSchedule(watching, v) })
	v.watchers.Go(func() { s.watchUsage(watching, v) })
}

// remove ends what runs for a server that is in the fleet no more, without waiting
// for it: the last flush of its WAL worker may take its time.
func (s *Supervisor) remove(v *server) {
	v.unwatch()
	v.dismiss()
	s.fleet.ending.Go(func() {
		v.watchers.Wait()
		v.workers.Wait()
		s.discard(v)
		close(v.ended)
		v.log.Info("server removed")
	})
}

// forbidJobs makes sure that servers have no job and get none, or tells why not.
// undo lets them have jobs again.
func (s *Supervisor) forbidJobs(list []*server) (undo func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, r := range s.jobs {
		if slices.Contains(list, r.server) && !r.kind.Quiet() { // who only looks ends in its time
			errs = append(errs, fmt.Errorf("server %q cannot be removed during its %s: wait or cancel it, then reload", r.server.name, r.kind))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	mark := func(gone bool) {
		for _, v := range list {
			v.gone = gone
		}
	}
	mark(true)
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		mark(false)
	}, nil
}

// A receiver says whether a server's WAL worker is to run.
type receiver struct {
	mu      sync.Mutex
	offline bool
	end     context.CancelFunc // of the turn that runs, nil before the first
	moved   chan struct{}      // closed when offline ends, nil when it does not hold
}

// begin waits until the worker may run. Its turn ends with ctx, or when the worker is
// to stop.
func (r *receiver) begin(ctx context.Context) (turn context.Context, ok bool) {
	for {
		r.mu.Lock()
		if !r.offline {
			turn, r.end = context.WithCancel(ctx)
			r.mu.Unlock()
			return turn, true
		}
		moved := r.moved
		r.mu.Unlock()
		select {
		case <-moved:
		case <-ctx.Done():
			return nil, false
		}
	}
}

// again ends the worker in order, so that another starts at once.
func (r *receiver) again() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.end != nil {
		r.end()
	}
}

// setOffline stops the worker, or lets it run again.
func (r *receiver) setOffline(offline bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.offline == offline {
		return
	}
	r.offline = offline
	if !offline {
		close(r.moved)
		return
	}
	r.moved = make(chan struct{})
	if r.end != nil {
		r.end()
	}
}

// keepReceiving runs WAL workers of a server, one after the other, until ctx ends.
func (s *Supervisor) keepReceiving(ctx context.Context, v *server) {
	for _, ended := range v.before {
		select { // two workers of one server would receive into the same files
		case <-ended:
		case <-ctx.Done():
		}
	}
	for ctx.Err() == nil {
		turn, ok := v.receiver.begin(ctx)
		if !ok {
			break
		}
		s.receiveTurn(turn, v)
		v.receiver.again() // releases what the turn holds
	}
	v.slot.State.Store(shmem.StateStopped)
}
