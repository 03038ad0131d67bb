// Package ipc connects the supervisor with its worker processes: it starts our own binary again and gives both ends a control socket.
//
// # Terms
//
// A message has a kind, which says what it is, and a body, which is JSON. On the socket a message is a frame: four bytes of length, most
// significant first, and that many bytes of JSON, {"kind": ..., "body": ...}.
//
// # Guarantees
//
// A frame is at most [MaxMessage] bytes; a peer that announces more is an error before any of it is stored. Messages arrive whole and in the order they were sent.
// When one process ends, however that happens, the other one's Receive returns [io.EOF]: this is how a worker learns that it must end.
// A worker inherits exactly the descriptors 0 to 5 and a handful of environment variables; configuration and secrets travel in messages.
//
// # Not guaranteed
//
// A message that was sent has not been received. What needs an answer asks for one.
package ipc

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// MaxMessage is the size of the largest frame in bytes, without its length.
const MaxMessage = 16 << 20

// sendTimeout is how long a peer may leave a message unread. A worker that hangs must not hang the supervisor.
const sendTimeout = 30 * time.Second

// lengthSize is the size of the length before each frame.
const lengthSize = 4

// A Message is one received message.
type Message struct {
	Kind string          `json:"kind"`
	Body json.RawMessage `json:"body,omitempty"`
}

// Decode stores the body in v. Unknown fields are ignored.
func (m Message) Decode(v any) error {
	if err := json.Unmarshal(m.Body, v); err != nil {
		return fmt.Errorf("decode message %q: %w", m.Kind, err)
	}
	return nil
}

// A MessageSizeError reports a message that is larger than [MaxMessage].
type MessageSizeError struct{ Size int64 }

func (e *MessageSizeError) Error() string {
	return fmt.Sprintf("control message of %d bytes is larger than the limit of %d", e.Size, MaxMessage)
}

// A Conn is one end of a control socket. Send and Close may be called from any goroutine, Receive from one at a time.
type Conn struct {
	socket net.Conn

	mu     sync.Mutex // one frame at a time
	closed bool
}

// Pair returns both ends of a new control socket. child is for the worker: hand it over and close it.
func Pair() (parent *Conn, child *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("create control socket: %w", err)
	}
	child = os.NewFile(uintptr(fds[1]), "control socket")
	parent, err = FromFile(os.NewFile(uintptr(fds[0]), "control socket"))
	if err != nil {
		_ = child.Close()
		return nil, nil, err
	}
	return parent, child, nil
}

// FromFile returns the end of a control socket that f is. It closes f, also when it fails.
func FromFile(f *os.File) (*Conn, error) {
	defer func() { _ = f.Close() }()
	socket, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	if _, ok := socket.(*net.UnixConn); !ok {
		_ = socket.Close()
		return nil, errors.New("control socket: the descriptor is another kind of socket")
	}
	return &Conn{socket: socket}, nil
}

// Send sends a message; body is anything that encodes as JSON, nil for none. A peer that reads nothing for 30 seconds is an error. After an
// error other than a [*MessageSizeError] or one of encoding, the connection is of no use and Close is next.
func (c *Conn) Send(kind string, body any) error {
	frame, err := encode(kind, body)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.socket.SetWriteDeadline(time.Now().Add(sendTimeout)); err != nil {
		return fmt.Errorf("send message %q: %w", kind, err)
	}
	if _, err := c.socket.Write(frame); err != nil {
		return fmt.Errorf("send message %q: %w", kind, err)
	}
	return nil
}

// encode returns the frame of a message.
func encode(kind string, body any) ([]byte, error) {
	m := Message{Kind: kind}
	if body != nil {
		raw, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("encode message %q: %w", kind, err)
		}
		m.Body = raw
	}
	text, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode message %q: %w", kind, err)
	}
	if len(text) > MaxMessage {
		return nil, &MessageSizeError{int64(len(text))}
	}
	frame := binary.BigEndian.AppendUint32(make([]byte, 0, lengthSize+len(text)), uint32(len(text)))
	return append(frame, text...), nil
}

// Receive waits for the next message. The error is [io.EOF] when the peer is gone and no message is left, [net.ErrClosed] after Close.
func (c *Conn) Receive() (Message, error) {
	m, err := decode(c.socket)
	if errors.Is(err, syscall.ECONNRESET) {
		// The peer died with unread messages of ours.
		return Message{}, io.EOF
	}
	return m, err
}

// decode reads one frame.
func decode(r io.Reader) (Message, error) {
	var length [lengthSize]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		if errors.Is(err, io.EOF) {
			return Message{}, io.EOF
		}
		return Message{}, fmt.Errorf("receive message: %w", err)
	}
	size := int64(binary.BigEndian.Uint32(length[:]))
	if size > MaxMessage {
		return Message{}, &MessageSizeError{size}
	}
	// The buffer grows with what arrives: a bare announcement costs no memory.
	var text bytes.Buffer
	if _, err := io.CopyN(&text, r, size); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return Message{}, fmt.Errorf("receive message of %d bytes: %w", size, err)
	}
	var m Message
	if err := json.Unmarshal(text.Bytes(), &m); err != nil {
		return Message{}, fmt.Errorf("receive message: %w", err)
	}
	if m.Kind == "" {
		return Message{}, errors.New("receive message: it has no kind")
	}
	return m, nil
}

// Close closes the socket. The peer's Receive returns io.EOF. Closing twice does nothing.
func (c *Conn) Close() error {
	// A Send that is blocked holds mu until its deadline: close first, which ends it.
	err := c.socket.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil
	}
	c.closed = true
	return err
}
