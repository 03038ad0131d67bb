package mgmt

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/xdg-go/scram"

	"github.com/pgmoneta/pgmoneta-go/internal/vault"
)

const (
	mechanism      = "SCRAM-SHA-256"
	mechanismPlus  = "SCRAM-SHA-256-PLUS" // bound to the TLS connection
	scramRounds    = 4096
	nonceBytes     = 18 // 24 characters: clients of 0.22 take no other length
	adminDatabase  = "admin"
	loginTimeout   = 5 * time.Second
	bindingPrefix  = "pgmoneta-cli+binding" // application_name of a client that can bind
	tlsAnswer      = 'S'
	clearAnswer    = 'N'
	maxPreambles   = 2 // requests before the start-up message: GSSAPI, then TLS
	saltBytes      = 16
	processSecrets = 32
)

// A Door lets remote clients in: TLS, if any, then SCRAM-SHA-256. It is safe for
// concurrent use.
type Door struct {
	// Password returns the password of an administrator.
	Password func(user string) (vault.Secret, bool)
	// TLS returns the configuration of a connection, nil for none. It is asked for each
	// connection, so that renewed certificates count.
	TLS func() (*tls.Config, error)
	// RequireTLS refuses logins in clear text.
	RequireTLS bool

	failures *failures
	secret   [processSecrets]byte // from which salts and the passwords of unknown users are made
}

// NewDoor returns a door with a secret of its own.
func NewDoor(password func(string) (vault.Secret, bool), config func() (*tls.Config, error), required bool) *Door {
	d := &Door{Password: password, TLS: config, RequireTLS: required, failures: newFailures()}
	_, _ = rand.Read(d.secret[:]) // it never fails
	return d
}

// errLogin is why a client was refused. It is logged and not told.
type errLogin struct {
	user string
	err  error
}

func (e *errLogin) Error() string { return fmt.Sprintf("login of %q refused: %v", e.user, e.err) }
func (e *errLogin) Unwrap() error { return e.err }

// admit logs a client in, and returns the connection to go on with and the user. The
// client was told when it failed; the caller closes the connection in any case.
func (d *Door) admit(ctx context.Context, conn net.Conn) (net.Conn, string, error) {
	address := hostOf(conn)
	release, err := d.failures.enter(ctx, address)
	if err != nil {
		return conn, "", err
	}
	defer release()
	if err := conn.SetDeadline(time.Now().Add(loginTimeout)); err != nil {
		return conn, "", err
	}
	conn, s, err := d.start(ctx, conn)
	if err != nil {
		return conn, "", err
	}
	user := s.parameters["user"]
	if _, secured := conn.(*tls.Conn); d.RequireTLS && !secured {
		_, _ = conn.Write(refusedLogin()) // before anything that needs protection is sent
		return conn, user, &errLogin{user, errors.New("TLS is required, and the client did not ask for it")}
	}
	if err := d.authenticate(conn, s); err != nil {
		d.failures.add(address)
		_, _ = conn.Write(refusedLogin())
		return conn, user, &errLogin{user, err}
	}
	d.failures.forget(address)
	return conn, user, conn.SetDeadline(time.Time{})
}

func hostOf(conn net.Conn) string {
	host, _, err := net.SplitHostPort(conn.RemoteAddr().String())
	if err != nil {
		return conn.RemoteAddr().String()
	}
	return host
}

// start answers requests for encryption and returns the start-up message.
func (d *Door) start(ctx context.Context, conn net.Conn) (net.Conn, startup, error) {
	config, err := d.config()
	if err != nil {
		return conn, startup{}, err
	}
	for range maxPreambles + 1 {
		s, err := readStartup(conn)
		if err != nil {
			return conn, s, err
		}
		switch s.code {
		case protocol3:
			return conn, s, nil
		case tlsRequest:
			if _, already := conn.(*tls.Conn); already {
				return conn, s, errors.New("TLS was asked for twice")
			}
			if config == nil {
				_, err = conn.Write([]byte{clearAnswer})
			} else if _, err = conn.Write([]byte{tlsAnswer}); err == nil {
				secured := tls.Server(conn, config)
				conn, err = secured, secured.HandshakeContext(ctx)
			}
		case gssRequest:
			_, err = conn.Write([]byte{clearAnswer})
		default:
			_, _ = conn.Write(refusedLogin())
			return conn, s, fmt.Errorf("protocol %d.%d is not ours", s.code>>16, s.code&0xFFFF)
		}
		if err != nil {
			return conn, s, err
		}
	}
	return conn, startup{}, errors.New("no start-up message")
}

func (d *Door) config() (*tls.Config, error) {
	if d.TLS == nil {
		return nil, nil
	}
	return d.TLS()
}

// authenticate proves that the client knows the password of its user. An unknown
// user gets as far as one with a wrong password.
func (d *Door) authenticate(conn net.Conn, s startup) error {
	server, known, err := d.scram(s)
	if err != nil {
		return err
	}
	binding, bound := d.binding(conn, s)
	offer := mechanism + "\x00"
	if bound {
		offer = mechanismPlus + "\x00" + offer
	}
	if _, err := conn.Write(appendAuth(nil, authSASL, offer, "\x00")); err != nil {
		return err
	}
	kind, body, err := readMessage(conn)
	if err != nil || kind != 'p' {
		return errors.Join(err, fmt.Errorf("message %q in place of the SASL response", kind))
	}
	name, first, err := parseInitial(body)
	if err != nil {
		return err
	}
	var talk *scram.ServerConversation
	switch {
	case name == mechanismPlus && bound:
		talk = server.NewConversationWithChannelBindingRequired(binding)
	case name == mechanism && bound: // refuses a client that was kept from seeing the offer
		talk = server.NewConversationWithChannelBinding(binding)
	case name == mechanism:
		talk = server.NewConversation()
	default:
		return fmt.Errorf("mechanism %q was not offered", name)
	}
	if err := converse(conn, talk, first); err != nil {
		return err
	}
	if !known { // it cannot come this far, and would not get further
		return errors.New("unknown user")
	}
	return nil
}

// converse carries on the conversation to its end.
func converse(conn net.Conn, talk *scram.ServerConversation, first string) error {
	answer, err := talk.Step(first)
	if err != nil {
		return err
	}
	if _, err := conn.Write(appendAuth(nil, authContinue, answer)); err != nil {
		return err
	}
	kind, body, err := readMessage(conn)
	if err != nil || kind != 'p' {
		return errors.Join(err, fmt.Errorf("message %q in place of the SASL response", kind))
	}
	if answer, err = talk.Step(string(body)); err != nil {
		return err
	}
	if !talk.Valid() {
		return errors.New("wrong password")
	}
	// In one write: clients of 0.22 read both at once.
	_, err = conn.Write(appendAuth(appendAuth(nil, authFinal, answer), authOK))
	return err
}

// binding returns what the login of this client is bound to. Clients of 0.22 know no
// second mechanism, and get no offer of one.
func (d *Door) binding(conn net.Conn, s startup) (scram.ChannelBinding, bool) {
	secured, ok := conn.(*tls.Conn)
	if !ok || !strings.HasPrefix(s.parameters["application_name"], bindingPrefix) {
		return scram.ChannelBinding{}, false
	}
	state := secured.ConnectionState()
	binding, err := scram.NewTLSExporterBinding(&state)
	return binding, err == nil
}

// scram returns the server's side for the user of a start-up message, and whether that
// is one who may come in.
func (d *Door) scram(s startup) (*scram.Server, bool, error) {
	user, database := s.parameters["user"], s.parameters["database"]
	if database == "" {
		database = user
	}
	password, known := d.Password(user)
	known = known && user != "" && database == adminDatabase
	text := password.Reveal()
	if !known {
		text = string(d.derive("password", user))
	}
	client, err := scram.SHA256.NewClientUnprepped("", text, "")
	if err != nil {
		return nil, false, err
	}
	stored, err := client.GetStoredCredentialsWithError(scram.KeyFactors{Salt: string(d.derive("salt", user)[:saltBytes]), Iters: scramRounds})
	if err != nil {
		return nil, false, err
	}
	server, err := scram.SHA256.NewServer(func(string) (scram.StoredCredentials, error) { return stored, nil })
	if err != nil {
		return nil, false, err
	}
	return server.WithNonceGenerator(newNonce), known, nil
}

// derive makes something of a user's name that stays the same as long as the process
// lives, known user or not.
func (d *Door) derive(what, user string) []byte {
	h := hmac.New(sha256.New, d.secret[:])
	h.Write(slices.Concat([]byte(what), []byte{0}, []byte(user)))
	return h.Sum(nil)
}

func newNonce() string {
	b := make([]byte, nonceBytes)
	_, _ = rand.Read(b) // it never fails
	return base64.StdEncoding.EncodeToString(b)
}
