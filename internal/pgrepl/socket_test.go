package pgrepl

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// sockets returns a socket and the other end of its connection.
func sockets(t *testing.T) (*socket, net.Conn) {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	conn, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	peer, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	s, err := newSocket(conn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = s.Close(), peer.Close() })
	return s, peer
}

// result is what a call that was started beside the test came to.
func result(call func() error) <-chan error {
	done := make(chan error, 1)
	go func() { done <- call() }()
	return done
}

func within(t *testing.T, done <-chan error) error {
	t.Helper()
	select {
	case err := <-done:
		return err
	case <-time.After(10 * time.Second):
		t.Fatal("still waiting")
		return nil
	}
}

func TestSocketCarriesBytesBothWays(t *testing.T) {
	s, peer := sockets(t)
	sent := bytes.Repeat([]byte("0123456789abcdef"), 1<<17) // 2 MiB do not fit the socket's buffers
	echo := result(func() error {
		got := make([]byte, len(sent))
		if _, err := io.ReadFull(peer, got); err != nil {
			return err
		}
		_, err := peer.Write(got)
		return errors.Join(err, peer.Close())
	})
	write := result(func() error { _, err := s.Write(sent); return err })
	got, err := io.ReadAll(s)
	if err != nil || !bytes.Equal(got, sent) {
		t.Fatalf("%d bytes came back: %v", len(got), err)
	}
	if err := errors.Join(within(t, write), within(t, echo)); err != nil {
		t.Fatal(err)
	}
}

func TestSocketKeepsItsDeadlines(t *testing.T) {
	s, peer := sockets(t)
	read := func() error { _, err := s.Read(make([]byte, 1)); return err }
	_ = s.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	if err := read(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("after the deadline: %v", err)
	}
	var timeout net.Error
	if err := read(); !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Fatalf("no timeout in the sense of package net: %v", err)
	}
	_ = s.SetReadDeadline(time.Now().Add(time.Hour))
	done := result(read)
	_ = s.SetReadDeadline(time.Unix(1, 0))
	if err := within(t, done); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("a deadline moved while reading: %v", err)
	}
	_ = s.SetReadDeadline(time.Time{})
	done = result(read)
	_, _ = peer.Write([]byte("x"))
	if err := within(t, done); err != nil {
		t.Fatalf("after the deadline was lifted: %v", err)
	}
	_ = s.SetWriteDeadline(time.Now().Add(20 * time.Millisecond))
	if _, err := s.Write(make([]byte, 8<<20)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("write to a peer that does not read: %v", err)
	}
}

func TestSocketLingersUntilTheDeadline(t *testing.T) {
	s, peer := sockets(t)
	if s.readable() {
		t.Fatal("readable before anything was sent")
	}
	_, _ = peer.Write([]byte("x"))
	start := time.Now()
	s.linger(20 * time.Millisecond)
	if time.Since(start) < 20*time.Millisecond || !s.readable() {
		t.Fatal("it did not linger beside what can be read")
	}
	done := result(func() error { s.linger(time.Hour); return nil })
	_ = s.SetDeadline(time.Unix(1, 0))
	_ = within(t, done)
}

func TestClosingSendsAwayWhoWaits(t *testing.T) {
	s, _ := sockets(t)
	reading := result(func() error { _, err := s.Read(make([]byte, 1)); return err })
	writing := result(func() error { _, err := s.Write(make([]byte, 8<<20)); return err })
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for _, done := range []<-chan error{reading, writing} {
		if err := within(t, done); !errors.Is(err, net.ErrClosed) {
			t.Errorf("it ended with %v", err)
		}
	}
	// A deadline that somebody else moves just now holds nobody back.
	s, _ = sockets(t)
	reading = result(func() error { _, err := s.Read(make([]byte, 1)); return err })
	s.closed.Store(true)
	s.in.setDeadline(time.Now().Add(time.Hour))
	s.in.ring()
	if err := within(t, reading); !errors.Is(err, net.ErrClosed) {
		t.Errorf("it ended with %v", err)
	}
	s.closed.Store(false)
	_ = s.Close()
	if _, err := s.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("read after closing: %v", err)
	}
	if err := s.SetDeadline(time.Now()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("deadline after closing: %v", err)
	}
	if s.readable() {
		t.Error("readable after closing")
	}
	if err := s.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("closing again: %v", err)
	}
}
