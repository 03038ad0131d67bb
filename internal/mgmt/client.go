package mgmt

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"time"
)

// Output is what a client says it will print; the server only echoes it.
type Output int

// The values of Header.Output.
const (
	OutputText Output = 0
	OutputJSON Output = 1
	OutputRaw  Output = 2
)

// ErrNoResponse reports a server that closed the connection without an answer.
var ErrNoResponse = errors.New("the daemon closed the connection without a response")

// A Client is one connection, good for one [Client.Call]. It is not safe for concurrent use.
// The exported fields may be set between Dial and Call.
type Client struct {
	Version string           // sent as ClientVersion
	Output  Output           // sent as Output
	Now     func() time.Time // for Timestamp; default time.Now
	Coding  Coding           // of the request; the response has the same, or none if the request was not understood
	Keys    KeySource        // for encrypted frames

	conn net.Conn
}

// Dial connects to the daemon's Unix socket.
func Dial(ctx context.Context, socket string) (*Client, error) {
	conn, err := dialSocket(ctx, socket)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", socket, err)
	}
	return &Client{conn: conn, Now: time.Now}, nil
}

// dialSocket waits while more clients than the kernel queues want to connect.
func dialSocket(ctx context.Context, socket string) (net.Conn, error) {
	const pause = 5 * time.Millisecond
	var d net.Dialer
	for deadline := time.Now().Add(dialTimeout); ; {
		conn, err := d.DialContext(ctx, "unix", socket)
		if !errors.Is(err, syscall.EAGAIN) || time.Now().After(deadline) {
			return conn, err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// Close ends the connection. A request being handled is not cancelled by it.
func (c *Client) Close() error { return c.conn.Close() }

// Call sends one request and waits for its response, however long that takes, or for the end of ctx.
// A response that reports a failure is no error here: see [Document.Outcome].
func (c *Client) Call(ctx context.Context, cmd Command, args Document) (Document, error) {
	stop := context.AfterFunc(ctx, func() { _ = c.conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()

	doc, err := c.call(cmd, args)
	if err != nil && ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", cmd, err)
	}
	return doc, nil
}

func (c *Client) call(cmd Command, args Document) (Document, error) {
	frame, err := newFrame(c.request(cmd, args), c.Coding, c.Keys)
	if err != nil {
		return nil, err
	}
	// A server that refuses the request early answers before it has read everything, so
	// a failed write is forgotten when there is a response.
	_, sendErr := c.conn.Write(frame)
	doc, err := c.response()
	if err != nil {
		return nil, errors.Join(sendErr, err)
	}
	return doc, nil
}

func (c *Client) request(cmd Command, args Document) Document {
	if args == nil {
		args = Document{}
	}
	return Document{
		"Header": Document{
			"ClientVersion": c.Version,
			"Command":       int64(cmd),
			"Compression":   int64(c.Coding.Compression),
			"Encryption":    int64(c.Coding.Encryption),
			"Output":        int64(c.Output),
			"Timestamp":     c.Now().Format("20060102150405"),
		},
		"Request": args,
	}
}

func (c *Client) response() (Document, error) {
	h, err := readHeader(c.conn)
	if errors.Is(err, io.EOF) {
		return nil, ErrNoResponse
	}
	if err != nil {
		return nil, err
	}
	if err := h.check(maxResponse); err != nil {
		return nil, err
	}
	body, err := readBody(c.conn, h)
	if err != nil {
		return nil, err
	}
	text, err := h.coding.decode(body, maxResponse, c.Keys)
	if err != nil {
		return nil, err
	}
	return Decode(text)
}
