package pgrepl

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// A messageReader reads the messages of a COPY to us. The bytes of CopyData go
// from the read buffer straight to who wants them, where pgproto3 would copy them
// once more; all other messages are small and pgproto3's to decode.
//
// See PostgreSQL documentation, "Message Formats".
type messageReader struct {
	r    *bufio.Reader
	data int // bytes of the current CopyData that were not read
	body []byte
}

// messageLimit bounds every message: PostgreSQL sends CopyData of at most 32 KiB
// and errors that fit a page.
const messageLimit = 1 << 20

// settle makes sure that nobody but us reads from the connection. After a write that
// took long (15 ms), pgconn has a goroutine that reads whatever comes next, until it
// has come. It is the comment of a ping that makes it come; a walsender may not know
// comments, and saying so is an answer as well.
func (c *Conn) settle(ctx context.Context) error {
	var refused *pgconn.PgError
	for range 10 {
		err := c.conn.SyncConn(ctx)
		if err == nil {
			return nil
		}
		if !errors.As(err, &refused) {
			return err
		}
	}
	return refused
}

// takeOver returns a reader of everything the server sends from now on. The
// connection was settled before the server was asked, and is of no further use for
// pgconn but to be closed.
func (c *Conn) takeOver() (*messageReader, error) {
	if n := c.conn.Frontend().ReadBufferLen(); n > 0 {
		return nil, fmt.Errorf("the server sent %d bytes before it was asked", n)
	}
	if c.conn.Conn() == c.in {
		return &messageReader{r: c.in.r}, nil
	}
	return &messageReader{r: bufio.NewReaderSize(c.conn.Conn(), readBuffer)}, nil // above TLS
}

// next returns the next message, which is valid until the one after. All data of
// the current one must have been read. CopyData comes without its data.
func (m *messageReader) next() (pgproto3.BackendMessage, error) {
	if m.data > 0 {
		return nil, errors.New("the message before was not read to its end")
	}
	var head [5]byte
	if _, err := io.ReadFull(m.r, head[:]); err != nil {
		return nil, unexpected(err)
	}
	length := int64(binary.BigEndian.Uint32(head[1:])) - 4
	if length < 0 || length > messageLimit {
		return nil, fmt.Errorf("message %q of %d bytes", head[0], length)
	}
	if head[0] == 'd' {
		m.data = int(length)
		return &pgproto3.CopyData{}, nil
	}
	msg := blank(head[0])
	if msg == nil {
		return nil, fmt.Errorf("unexpected message %q", head[0])
	}
	if int64(cap(m.body)) < length {
		m.body = make([]byte, length)
	}
	body := m.body[:length]
	if _, err := io.ReadFull(m.r, body); err != nil {
		return nil, unexpected(err)
	}
	return msg, msg.Decode(body)
}

// blank returns an empty message of the type, nil for one that has no place here.
func blank(kind byte) pgproto3.BackendMessage {
	switch kind {
	case 'C':
		return &pgproto3.CommandComplete{}
	case 'D':
		return &pgproto3.DataRow{}
	case 'E':
		return &pgproto3.ErrorResponse{}
	case 'H':
		return &pgproto3.CopyOutResponse{}
	case 'N':
		return &pgproto3.NoticeResponse{}
	case 'S':
		return &pgproto3.ParameterStatus{}
	case 'T':
		return &pgproto3.RowDescription{}
	case 'Z':
		return &pgproto3.ReadyForQuery{}
	case 'c':
		return &pgproto3.CopyDone{}
	}
	return nil
}

// Read reads what is left of the current CopyData.
func (m *messageReader) Read(p []byte) (int, error) {
	n, err := m.r.Read(p[:min(len(p), m.data)])
	m.data -= n
	return n, unexpected(err)
}

// dataByte reads one byte of the current CopyData.
func (m *messageReader) dataByte() (byte, error) {
	if m.data == 0 {
		return 0, errors.New("empty message")
	}
	b, err := m.r.ReadByte()
	if err != nil {
		return 0, unexpected(err)
	}
	m.data--
	return b, nil
}

// skipData passes what is left of the current CopyData.
func (m *messageReader) skipData() error {
	n, err := m.r.Discard(m.data)
	m.data -= n
	return unexpected(err)
}

// unexpected makes the end of the stream an error: a server says when it is done.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
