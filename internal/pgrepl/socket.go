package pgrepl

import (
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A socket is a connection that waits for its peer in system calls of its own,
// where package net parks the goroutine and has the runtime wait. A stream
// carries a message for every commit of the server: woken through the scheduler
// thousands of times a second, a receiver spent a third of its time on that. The
// price is a thread for each connection that waits.
//
// One goroutine reads and one writes at a time; the other methods may be called
// by any.
type socket struct {
	local, remote net.Addr

	mu     sync.RWMutex // held for reading while the descriptors are in use
	closed atomic.Bool
	fd     int

	in, out direction

	yielded time.Time // used by who reads
}

// A direction is what one side of a socket waits with.
type direction struct {
	alarm    int          // event descriptor; makes who waits look at the deadline again
	waiting  atomic.Bool  // somebody waits, or is about to
	deadline atomic.Int64 // Unix nanoseconds; 0 = none
}

// newSocket takes over conn, a TCP or Unix connection, whether it succeeds or not.
func newSocket(conn net.Conn) (*socket, error) {
	defer func() { _ = conn.Close() }() // what goes on is a duplicate that the runtime's poller does not know
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return nil, errors.New("the connection has no descriptor")
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil, err
	}
	s := &socket{local: conn.LocalAddr(), remote: conn.RemoteAddr()}
	var derr error
	err = raw.Control(func(fd uintptr) { s.fd, derr = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) })
	if err := errors.Join(err, os.NewSyscallError("fcntl", derr)); err != nil {
		return nil, err
	}
	for i, d := range []*direction{&s.in, &s.out} {
		if d.alarm, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
			_ = unix.Close(s.fd)
			if i > 0 {
				_ = unix.Close(s.in.alarm)
			}
			return nil, os.NewSyscallError("eventfd", err)
		}
	}
	return s, nil
}

// Read implements [net.Conn].
func (s *socket) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	s.yield()
	n, err := s.transfer("read", &s.in, unix.POLLIN, func() (int, error) { return unix.Read(s.fd, p) })
	if n == 0 && err == nil {
		return 0, io.EOF
	}
	return n, err
}

// Write implements [net.Conn].
func (s *socket) Write(p []byte) (int, error) {
	written := 0
	for written < len(p) {
		n, err := s.transfer("write", &s.out, unix.POLLOUT, func() (int, error) { return unix.Write(s.fd, p[written:]) })
		written += n
		if err != nil {
			return written, err
		}
	}
	return written, nil
}

// yieldInterval is below the time slice of Go's scheduler, 10 ms.
const yieldInterval = 8 * time.Millisecond

// yield shows the scheduler that the reading goroutine gives way. One that goes
// from system call to system call never does by itself: its time slice counts as
// used up, and from then on the runtime takes its processor away in every call
// and looks 10,000 times a second whether it is time to do so.
func (s *socket) yield() {
	if now := time.Now(); now.Sub(s.yielded) >= yieldInterval {
		s.yielded = now
		runtime.Gosched()
	}
}

// transfer runs a system call that moves bytes, as often as it takes.
func (s *socket) transfer(name string, d *direction, events int16, call func() (int, error)) (int, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for {
		if s.closed.Load() {
			return 0, s.failed(name, net.ErrClosed)
		}
		n, err := call()
		switch {
		case err == nil:
			return n, nil
		case errors.Is(err, unix.EINTR):
			continue
		case !errors.Is(err, unix.EAGAIN):
			return 0, s.failed(name, os.NewSyscallError(name, err))
		}
		if err := s.wait(d, s.fd, events, time.Time{}); err != nil {
			return 0, s.failed(name, err)
		}
	}
}

func (s *socket) failed(name string, err error) error {
	return &net.OpError{Op: name, Net: s.remote.Network(), Source: s.local, Addr: s.remote, Err: err}
}

// wait returns nil when fd is ready or until has come, unless that is zero,
// [os.ErrDeadlineExceeded] when the deadline has passed, and [net.ErrClosed]. fd
// may be -1.
func (s *socket) wait(d *direction, fd int, events int16, until time.Time) error {
	d.waiting.Store(true)
	defer d.waiting.Store(false)
	for {
		// Looked at after waiting was announced: who closes or moves the deadline
		// later rings.
		if s.closed.Load() {
			return net.ErrClosed
		}
		end, now := d.deadline.Load(), time.Now().UnixNano()
		if end != 0 && now >= end {
			return os.ErrDeadlineExceeded
		}
		if !until.IsZero() {
			if now >= until.UnixNano() {
				return nil
			}
			if end == 0 || until.UnixNano() < end {
				end = until.UnixNano()
			}
		}
		timeout := -1
		if end != 0 {
			left := time.Duration(end-now) + time.Millisecond - 1
			timeout = int(min(left/time.Millisecond, 1<<30))
		}
		fds := []unix.PollFd{{Fd: int32(d.alarm), Events: unix.POLLIN}, {Fd: int32(fd), Events: events}}
		n, err := unix.Poll(fds, timeout)
		switch {
		case err != nil && !errors.Is(err, unix.EINTR):
			return os.NewSyscallError("poll", err)
		case n <= 0:
		case fds[0].Revents == 0:
			return nil
		default:
			var b [8]byte
			_, _ = unix.Read(d.alarm, b[:])
		}
	}
}

func (d *direction) ring() {
	one := [8]byte{1} // any number but zero, in either byte order
	_, _ = unix.Write(d.alarm, one[:])
}

func (d *direction) setDeadline(t time.Time) {
	at := int64(0)
	if !t.IsZero() {
		at = max(t.UnixNano(), 1)
	}
	d.deadline.Store(at)
	if d.waiting.Load() {
		d.ring()
	}
}

// linger waits for the given time, or until the deadline of reading has passed.
// It is called by who reads.
func (s *socket) linger(t time.Duration) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if !s.closed.Load() {
		_ = s.wait(&s.in, -1, 0, time.Now().Add(t))
	}
}

// readable looks into the kernel's receive buffer without taking from it.
func (s *socket) readable() bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var b [1]byte
	n, _, err := unix.Recvfrom(s.fd, b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
	return err == nil && n > 0
}

// LocalAddr implements [net.Conn].
func (s *socket) LocalAddr() net.Addr { return s.local }

// RemoteAddr implements [net.Conn].
func (s *socket) RemoteAddr() net.Addr { return s.remote }

// SetDeadline implements [net.Conn].
func (s *socket) SetDeadline(t time.Time) error {
	return errors.Join(s.SetReadDeadline(t), s.SetWriteDeadline(t))
}

// SetReadDeadline implements [net.Conn].
func (s *socket) SetReadDeadline(t time.Time) error { return s.setDeadline(&s.in, t) }

// SetWriteDeadline implements [net.Conn].
func (s *socket) SetWriteDeadline(t time.Time) error { return s.setDeadline(&s.out, t) }

func (s *socket) setDeadline(d *direction, t time.Time) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed.Load() {
		return net.ErrClosed
	}
	d.setDeadline(t)
	return nil
}

// Close implements [net.Conn]. Who waits is sent away.
func (s *socket) Close() error {
	if s.closed.Swap(true) {
		return net.ErrClosed
	}
	// Nothing closes the descriptors before the lock is held, and then nobody uses them.
	for _, d := range []*direction{&s.in, &s.out} {
		d.ring()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	err := unix.Close(s.fd)
	_, _ = unix.Close(s.in.alarm), unix.Close(s.out.alarm)
	s.fd, s.in.alarm, s.out.alarm = -1, -1, -1
	return os.NewSyscallError("close", err)
}
