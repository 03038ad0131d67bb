package mgmt

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime/debug"
	"sync"
	"syscall"
	"time"
)

// A Handler does what requests ask for.
type Handler interface {
	// Handle answers one request whose command is known. Many calls run at the same time. An error that is
	// not an [*Error] is sent with the command's code for everything else.
	//
	// ctx ends when the server stops. It does not end when the client goes away, so that
	// a job outlives the terminal it was started from.
	//
	// The returned Response belongs to the caller.
	Handle(ctx context.Context, req *Request) (Response, error)
}

// Options configure a [Server]. The zero value of each field means its default.
type Options struct {
	Version string       // sent as ServerVersion; required
	Log     *slog.Logger // default: discards

	MaxClients    int           // served at the same time; further ones wait; default 256
	HeaderTimeout time.Duration // until the header of the frame is complete; default 10 s
	BodyTimeout   time.Duration // from then until the body is complete; default 30 s
	WriteTimeout  time.Duration // for the whole response; default 30 s

	Audit func(Record) // called for each request that may change something, after it was handled; default: nobody is told

	Keys KeySource        // for encrypted frames; without it they are refused
	Now  func() time.Time // default time.Now
}

func (o Options) withDefaults() Options {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.MaxClients <= 0 {
		o.MaxClients = 256
	}
	if o.HeaderTimeout <= 0 {
		o.HeaderTimeout = 10 * time.Second
	}
	if o.BodyTimeout <= 0 {
		o.BodyTimeout = 30 * time.Second
	}
	if o.WriteTimeout <= 0 {
		o.WriteTimeout = 30 * time.Second
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return o
}

// A Server answers the requests of many connections. It has no state of its own and may serve several listeners.
type Server struct {
	handler Handler
	opt     Options
}

// NewServer returns a server that passes requests to h.
func NewServer(h Handler, o Options) *Server {
	return &Server{handler: h, opt: o.withDefaults()}
}

// Serve answers the connections of ln, which it closes, until ctx ends. Then it stops reading, lets the requests
// being handled finish and answer, and returns nil. Another error is the listener's and ends nothing else.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	return s.run(ctx, ln, func(ctx context.Context, conn net.Conn) { s.serve(ctx, conn, socketPeer(conn)) })
}

// ServeRemote is Serve for clients that have to log in first.
func (s *Server) ServeRemote(ctx context.Context, ln net.Listener, door *Door) error {
	return s.run(ctx, ln, func(ctx context.Context, conn net.Conn) {
		defer func() { _ = conn.Close() }()
		stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
		admitted, user, err := door.admit(ctx, conn)
		stop()
		if err != nil {
			s.opt.Log.Warn("remote management refused", "address", conn.RemoteAddr().String(), "user", user, "err", err)
			return
		}
		s.opt.Log.Debug("remote management", "address", conn.RemoteAddr().String(), "user", user)
		s.serve(ctx, admitted, Peer{User: user, Address: conn.RemoteAddr().String(), UID: -1})
	})
}

// run accepts connections and has each served in a goroutine of its own.
func (s *Server) run(ctx context.Context, ln net.Listener, serve func(context.Context, net.Conn)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = ln.Close() })
	defer func() {
		if stop() {
			_ = ln.Close()
		}
	}()

	var clients sync.WaitGroup
	defer clients.Wait()
	slots := make(chan struct{}, s.opt.MaxClients)
	for {
		// The slot comes first: a client beyond the limit waits in the backlog, where it costs nothing.
		if !acquire(ctx, slots) {
			return nil
		}
		conn, err := s.accept(ctx, ln)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("management: accept: %w", err)
		}
		clients.Go(func() {
			defer func() { <-slots }()
			serve(ctx, conn)
		})
	}
}

func acquire(ctx context.Context, slots chan<- struct{}) bool {
	select {
	case slots <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

// accept outlasts the conditions that pass by themselves: a client that is gone already, descriptors or memory used up.
func (s *Server) accept(ctx context.Context, ln net.Listener) (net.Conn, error) {
	const pause = 50 * time.Millisecond
	for {
		conn, err := ln.Accept()
		if err == nil || !passing(err) {
			return conn, err
		}
		s.opt.Log.Warn("management connection not accepted", "err", err)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func passing(err error) bool {
	for _, errno := range []syscall.Errno{
		syscall.ECONNABORTED, syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM,
	} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// serve handles one connection from its first byte to its end.
func (s *Server) serve(ctx context.Context, conn net.Conn, peer Peer) {
	defer func() { _ = conn.Close() }()
	// When the server stops, whoever has not sent a whole request yet is told so instead of waited for.
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()

	doc, coding, unread, err := s.receive(ctx, conn)
	if errors.Is(err, io.EOF) {
		return // nobody is waiting for an answer
	}
	var reply Document
	if err != nil {
		reply = s.refuse(nil, badPayload(err))
	} else {
		reply = s.answer(ctx, doc, peer)
	}
	s.send(conn, reply, coding)
	if unread {
		s.drain(ctx, conn)
	}
}

// receive reads the request, and how the response is to be coded: like the request, or plain
// when that was not understood. unread tells that the client may still be sending; an error that is
// io.EOF that it sent nothing at all.
func (s *Server) receive(ctx context.Context, conn net.Conn) (doc Document, coding Coding, unread bool, err error) {
	if err := s.allow(ctx, conn, s.opt.HeaderTimeout); err != nil {
		return nil, Coding{}, true, err
	}
	h, err := readHeader(conn)
	if err != nil {
		return nil, Coding{}, true, explain(ctx, err)
	}
	if err := h.check(MaxRequest); err != nil {
		return nil, Coding{}, true, err
	}
	if err := s.allow(ctx, conn, s.opt.BodyTimeout); err != nil {
		return nil, h.coding, true, err
	}
	body, err := readBody(conn, h)
	if err != nil {
		return nil, h.coding, true, explain(ctx, err)
	}
	text, err := h.coding.decode(body, MaxRequest, s.opt.Keys)
	if err != nil {
		return nil, Coding{}, false, err // who has another master key could not read a sealed refusal
	}
	doc, err = decode(text, maxRequestValues)
	return doc, h.coding, false, err
}

// allow gives the client until timeout for the next read. The order matters: a server that stops
// between the two lines is seen by the second.
func (s *Server) allow(ctx context.Context, conn net.Conn, timeout time.Duration) error {
	if err := conn.SetReadDeadline(time.Now().Add(timeout)); err != nil {
		return err
	}
	return explain(ctx, ctx.Err())
}

func explain(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return errors.New("the daemon is shutting down")
	}
	return err
}

// answer has the request handled and builds its response.
func (s *Server) answer(ctx context.Context, doc Document, peer Peer) Document {
	start := s.opt.Now()
	req, err := newRequest(doc)
	if err != nil {
		return s.refuse(req, err)
	}
	resp, err := s.handle(ctx, req)
	if s.opt.Audit != nil && req.Changes() {
		s.opt.Audit(s.record(req, peer, start, err))
	}
	if err != nil {
		return s.refuse(req, err)
	}
	return req.success(resp, s.opt.Version, s.opt.Now().Sub(start))
}

// handle calls the handler and turns a panic into an error: one request must not end the supervisor of all servers.
func (s *Server) handle(ctx context.Context, req *Request) (resp Response, err error) {
	defer func() {
		p := recover()
		if p == nil {
			return
		}
		s.opt.Log.Error("management request panicked", "command", req.Command.String(), "server", req.Server(),
			"err", fmt.Sprint(p), "stack", string(debug.Stack()))
		err = badPayload(fmt.Errorf("internal error in %s: the daemon's log has the details", req.Command))
	}()
	return s.handler.Handle(ctx, req)
}

func (s *Server) refuse(req *Request, err error) Document {
	var e *Error
	if errors.As(err, &e) {
		return req.failure(e, s.opt.Version)
	}
	return req.failure(&Error{Code: req.Command.Codes().Other, Err: err}, s.opt.Version)
}

func (s *Server) send(conn net.Conn, reply Document, coding Coding) {
	frame, err := newFrame(reply, coding, s.opt.Keys)
	if err != nil {
		s.opt.Log.Error("management response not sent as built", "err", err)
		internal := &Error{Code: CodeBadPayload, Err: errors.New("internal error: the daemon's log has the details")}
		// It holds nothing that cannot be encoded, and nothing secret.
		frame, _ = newFrame((*Request)(nil).failure(internal, s.opt.Version), Coding{}, nil)
	}
	if err := conn.SetWriteDeadline(time.Now().Add(s.opt.WriteTimeout)); err != nil {
		return
	}
	if _, err := conn.Write(frame); err != nil {
		s.opt.Log.Debug("management client left before its response", "err", err)
	}
}

// drain reads on after a refusal. Closing with bytes unread would reset the
// connection, and a client still sending would lose the response.
func (s *Server) drain(ctx context.Context, conn net.Conn) {
	half, ok := conn.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		return
	}
	if s.allow(ctx, conn, min(s.opt.BodyTimeout, 2*time.Second)) != nil {
		return
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(conn, 4*MaxRequest))
}
