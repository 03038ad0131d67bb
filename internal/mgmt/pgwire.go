package mgmt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
)

// Remote clients open a connection as clients of PostgreSQL do, and log in with
// SCRAM-SHA-256. See "Message Flow" and "SASL Authentication" in PostgreSQL's manual.

// Codes in the place of a protocol version.
const (
	protocol3     = 3 << 16
	cancelRequest = 80877102
	tlsRequest    = 80877103
	gssRequest    = 80877104
)

// maxStartup bounds the messages of a login, in bytes. They have a few hundred.
const maxStartup = 16 << 10

// A startup is the first message of a connection, or a request that comes before it.
type startup struct {
	code       uint32
	parameters map[string]string // of protocol 3
}

// readStartup reads one.
func readStartup(r io.Reader) (startup, error) {
	var head [8]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return startup{}, err
	}
	length, code := binary.BigEndian.Uint32(head[:4]), binary.BigEndian.Uint32(head[4:])
	if length < 8 || length > maxStartup {
		return startup{}, fmt.Errorf("start-up message of %d bytes: between 8 and %d are possible", length, maxStartup)
	}
	body := make([]byte, length-8)
	if _, err := io.ReadFull(r, body); err != nil {
		return startup{}, err
	}
	s := startup{code: code}
	if code != protocol3 {
		return s, nil
	}
	var err error
	s.parameters, err = parseParameters(body)
	return s, err
}

// parseParameters reads pairs of strings that end with zero bytes, and a zero byte after the last.
func parseParameters(body []byte) (map[string]string, error) {
	parameters := map[string]string{}
	for len(body) > 0 && body[0] != 0 {
		var name, value []byte
		var ok1, ok2 bool
		name, body, ok1 = bytes.Cut(body, []byte{0})
		value, body, ok2 = bytes.Cut(body, []byte{0})
		if !ok1 || !ok2 {
			return nil, errors.New("start-up message: a parameter does not end")
		}
		parameters[string(name)] = string(value)
	}
	if len(body) != 1 {
		return nil, errors.New("start-up message: the parameters do not end")
	}
	return parameters, nil
}

// appendStartup appends a start-up message with pairs of names and values.
func appendStartup(dst []byte, pairs ...string) []byte {
	start := len(dst)
	dst = append(dst, 0, 0, 0, 0)
	dst = binary.BigEndian.AppendUint32(dst, protocol3)
	for _, s := range pairs {
		dst = append(append(dst, s...), 0)
	}
	dst = append(dst, 0)
	binary.BigEndian.PutUint32(dst[start:], uint32(len(dst)-start))
	return dst
}

// appendMessage appends a message with its kind and length.
func appendMessage(dst []byte, kind byte, parts ...[]byte) []byte {
	start := len(dst)
	dst = append(dst, kind, 0, 0, 0, 0)
	for _, p := range parts {
		dst = append(dst, p...)
	}
	binary.BigEndian.PutUint32(dst[start+1:], uint32(len(dst)-start-1))
	return dst
}

// readMessage reads a message and returns its body.
func readMessage(r io.Reader) (kind byte, body []byte, err error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	length := binary.BigEndian.Uint32(head[1:])
	if length < 4 || length > maxStartup {
		return 0, nil, fmt.Errorf("message %q of %d bytes: between 4 and %d are possible", head[0], length, maxStartup)
	}
	body = make([]byte, length-4)
	_, err = io.ReadFull(r, body)
	return head[0], body, err
}

// Kinds of authentication messages, the numbers that their bodies begin with.
const (
	authOK       = 0
	authSASL     = 10
	authContinue = 11
	authFinal    = 12
)

func appendAuth(dst []byte, number uint32, data ...string) []byte {
	parts := [][]byte{binary.BigEndian.AppendUint32(nil, number)}
	for _, d := range data {
		parts = append(parts, []byte(d))
	}
	return appendMessage(dst, 'R', parts...)
}

// An AuthError is a daemon's refusal to let a client in. It does not say why.
type AuthError struct{ Message string }

func (e *AuthError) Error() string {
	return "the daemon refused the login: " + e.Message + ": check user and password, and that the user is in pgmoneta_admins.conf"
}

// readAuth reads an authentication message of a number.
func readAuth(r io.Reader, number uint32) ([]byte, error) {
	kind, body, err := readMessage(r)
	if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) {
		return nil, &AuthError{"it closed the connection"}
	}
	if err != nil {
		return nil, err
	}
	if kind == 'E' {
		return nil, &AuthError{errorText(body)}
	}
	if kind != 'R' || len(body) < 4 {
		return nil, fmt.Errorf("message %q in place of an authentication message", kind)
	}
	if got := binary.BigEndian.Uint32(body); got != number {
		return nil, fmt.Errorf("authentication message %d in place of %d", got, number)
	}
	return body[4:], nil
}

// errorText returns the message of an ErrorResponse.
func errorText(body []byte) string {
	for field := range bytes.SplitSeq(body, []byte{0}) {
		if len(field) > 1 && field[0] == 'M' {
			return string(field[1:])
		}
	}
	return "no reason given"
}

// refusedLogin is what a client is told, whatever the reason.
func refusedLogin() []byte {
	return appendMessage(nil, 'E', []byte("SFATAL\x00VFATAL\x00C53300\x00Mconnection refused\x00\x00"))
}

// parseInitial reads the body of a SASLInitialResponse: the mechanism and the client's
// first message.
func parseInitial(body []byte) (mechanism, first string, err error) {
	name, rest, ok := bytes.Cut(body, []byte{0})
	if !ok || len(rest) < 4 || int64(binary.BigEndian.Uint32(rest)) != int64(len(rest)-4) {
		return "", "", errors.New("SASL: the initial response is malformed")
	}
	return string(name), string(rest[4:]), nil
}
