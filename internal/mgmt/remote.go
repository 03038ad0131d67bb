package mgmt

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/xdg-go/scram"

	"github.com/pgmoneta/pgmoneta-go/internal/vault"
)

// A Remote says where a daemon listens for remote clients and who asks.
type Remote struct {
	Address  string // host:port
	User     string
	Password vault.Secret
	TLS      *tls.Config // nil for none; else it is required
}

// DialRemote connects to a daemon over TCP and logs in. A refusal is an [*AuthError].
func DialRemote(ctx context.Context, r Remote) (*Client, error) {
	d := net.Dialer{Timeout: dialTimeout}
	conn, err := d.DialContext(ctx, "tcp", r.Address)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", r.Address, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	secured, err := r.login(ctx, conn)
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("connect to %s as %s: %w", r.Address, r.User, err)
	}
	return &Client{conn: secured, Now: time.Now}, nil
}

const dialTimeout = 10 * time.Second

func (r Remote) login(ctx context.Context, conn net.Conn) (net.Conn, error) {
	if err := conn.SetDeadline(time.Now().Add(dialTimeout)); err != nil {
		return nil, err
	}
	talk, err := scram.SHA256.NewClientUnprepped("", r.Password.Reveal(), "")
	if err != nil {
		return nil, err
	}
	talk = talk.WithNonceGenerator(newNonce).WithMinIterations(1)
	name, conversation := mechanism, talk.NewConversation()
	if r.TLS != nil {
		if conn, err = secure(ctx, conn, r.TLS); err != nil {
			return nil, err
		}
	}
	if _, err := conn.Write(appendStartup(nil, "user", r.User, "database", adminDatabase, "application_name", bindingPrefix)); err != nil {
		return nil, err
	}
	offer, err := readAuth(conn, authSASL)
	if err != nil {
		return nil, err
	}
	if secured, ok := conn.(*tls.Conn); ok && slices.Contains(strings.Split(string(offer), "\x00"), mechanismPlus) {
		state := secured.ConnectionState()
		binding, err := scram.NewTLSExporterBinding(&state)
		if err != nil {
			return nil, err
		}
		name, conversation = mechanismPlus, talk.NewConversationWithChannelBinding(binding)
	}
	if err := prove(conn, name, conversation); err != nil {
		return nil, err
	}
	return conn, conn.SetDeadline(time.Time{})
}

// secure asks for TLS. A daemon without it is refused: what was asked for and cannot
// be done is an error.
func secure(ctx context.Context, conn net.Conn, config *tls.Config) (net.Conn, error) {
	request := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, 8), tlsRequest)
	if _, err := conn.Write(request); err != nil {
		return nil, err
	}
	var answer [1]byte
	if _, err := io.ReadFull(conn, answer[:]); err != nil {
		return nil, err
	}
	if answer[0] != tlsAnswer {
		return nil, errors.New("the daemon has no TLS: set tls, tls_cert_file and tls_key_file in its pgmoneta.conf")
	}
	secured := tls.Client(conn, config)
	return secured, secured.HandshakeContext(ctx)
}

// prove carries on the conversation from the client's side.
func prove(conn net.Conn, name string, talk *scram.ClientConversation) error {
	first, err := talk.Step("")
	if err != nil {
		return err
	}
	length := binary.BigEndian.AppendUint32(nil, uint32(len(first)))
	if _, err := conn.Write(appendMessage(nil, 'p', []byte(name), []byte{0}, length, []byte(first))); err != nil {
		return err
	}
	challenge, err := readAuth(conn, authContinue)
	if err != nil {
		return err
	}
	proof, err := talk.Step(string(challenge))
	if err != nil {
		return err
	}
	if _, err := conn.Write(appendMessage(nil, 'p', []byte(proof))); err != nil {
		return err
	}
	final, err := readAuth(conn, authFinal)
	if err != nil {
		return err
	}
	if _, err := talk.Step(string(final)); err != nil {
		return fmt.Errorf("the daemon does not know the password itself: %w", err)
	}
	_, err = readAuth(conn, authOK)
	return err
}
