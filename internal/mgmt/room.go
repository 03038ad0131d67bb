package mgmt

import (
	"container/list"
	"context"
	"net"
	"sync"
)

// A room holds the connections of one listener. Those whose request is not complete,
// and those whose response is being written, sit in it and hold nothing else; when it
// is full the one that sits there longest is closed for the next. A complete request
// then takes a place in one of two queues, so that what is answered at once never
// waits for jobs that run for hours.
type room struct {
	mu      sync.Mutex
	sitting list.List // of net.Conn, who came first in front
	most    int

	quick, long chan struct{} // places for requests being handled
}

func newRoom(o Options) *room {
	return &room{most: o.MaxWaiting, quick: make(chan struct{}, o.MaxClients), long: make(chan struct{}, o.MaxClients)}
}

// A seat is the place of one connection. It is used by one goroutine.
type seat struct {
	room *room
	conn net.Conn
	at   *list.Element // nil while it does not sit
}

// seat gives a connection a place, for which another may have to go.
func (r *room) seat(conn net.Conn) *seat {
	s := &seat{room: r, conn: conn}
	s.sit()
	return s
}

func (s *seat) sit() {
	r := s.room
	r.mu.Lock()
	s.at = r.sitting.PushBack(s.conn)
	var oldest net.Conn
	if r.sitting.Len() > r.most {
		oldest = r.sitting.Remove(r.sitting.Front()).(net.Conn)
	}
	r.mu.Unlock()
	if oldest != nil {
		_ = oldest.Close() // its goroutine notices
	}
}

func (s *seat) leave() {
	if s.at == nil {
		return
	}
	s.room.mu.Lock()
	s.room.sitting.Remove(s.at) // nothing if it had to go
	s.room.mu.Unlock()
	s.at = nil
}

// handle runs f in a place for requests, and sits down again after it. It reports
// false when ctx ended before there was one.
func (s *seat) handle(ctx context.Context, c Command, f func()) bool {
	places := s.room.long
	if c.quick() {
		places = s.room.quick
	}
	if !acquire(ctx, places) {
		return false
	}
	s.leave()
	f()
	<-places
	s.sit()
	return true
}

func acquire(ctx context.Context, places chan<- struct{}) bool {
	select {
	case places <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

// quick reports whether a command is answered without a job.
func (c Command) quick() bool {
	switch c {
	case ListBackup, Shutdown, Status, StatusDetails, Ping, Reset, Reload, Info, ConfLs, ConfGet, ConfSet, Mode, Progress, Jobs, ConfCheck, ConfRollback, Schedule,
		Retain, Expunge, Annotate, Undelete:
		return true
	default:
		return !c.Known() // refused at once
	}
}
