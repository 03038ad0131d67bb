package pgrepl

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/pgmoneta/pgmoneta-go/test/pgtest"
)

// A middleman stands between client and server with a certificate of its own. It
// sees everything and passes on what it is told to.
type middleman struct {
	server string // address
	cert   tls.Certificate
	hide   bool // the server's offer of SCRAM-SHA-256-PLUS
	plain  bool // speak to the server without TLS

	mu        sync.Mutex
	mechanism string // that the client chose
}

func (m *middleman) chosen() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mechanism
}

// listen serves one connection and returns the port.
func (m *middleman) listen(t *testing.T) int {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		in, err := ln.Accept()
		if err != nil {
			return
		}
		_ = ln.Close() // a second attempt is refused
		defer in.Close()
		out, err := net.Dial("tcp", m.server)
		if err != nil {
			return
		}
		defer out.Close()
		if err := m.serve(in, out); err != nil {
			t.Logf("middleman: %v", err)
		}
	}()
	t.Cleanup(func() { _ = ln.Close(); <-done })
	return ln.Addr().(*net.TCPAddr).Port
}

// sslRequest is the message that asks for TLS; see "Message Formats".
var sslRequest = []byte{0, 0, 0, 8, 4, 210, 22, 47}

func (m *middleman) serve(in, out net.Conn) error {
	asked := make([]byte, len(sslRequest))
	if _, err := io.ReadFull(in, asked); err != nil || !bytes.Equal(asked, sslRequest) {
		return errors.Join(err, fmt.Errorf("the client began with %x", asked))
	}
	if _, err := in.Write([]byte("S")); err != nil {
		return err
	}
	client := tls.Server(in, &tls.Config{Certificates: []tls.Certificate{m.cert}})
	server := out
	if !m.plain {
		answer := make([]byte, 1)
		if _, err := out.Write(sslRequest); err != nil {
			return err
		}
		if _, err := io.ReadFull(out, answer); err != nil || answer[0] != 'S' {
			return errors.Join(err, errors.New("the server has no TLS"))
		}
		server = tls.Client(out, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"postgresql"}})
	}
	if err := m.authenticate(client, server); err != nil {
		return err
	}
	var both sync.WaitGroup
	both.Go(func() { _, _ = io.Copy(server, client); _ = out.Close() })
	both.Go(func() { _, _ = io.Copy(client, server); _ = in.Close() })
	both.Wait()
	return nil
}

// authenticate passes the startup message, the server's offer and the client's choice.
func (m *middleman) authenticate(client, server io.ReadWriter) error {
	startup, err := readMessage(client, 0)
	if err != nil {
		return err
	}
	if _, err := server.Write(startup); err != nil {
		return err
	}
	offer, err := readMessage(server, 1)
	if err != nil {
		return err
	}
	if m.hide {
		offer = bytes.Replace(offer, []byte("SCRAM-SHA-256-PLUS\x00"), nil, 1)
		binary.BigEndian.PutUint32(offer[1:], uint32(len(offer)-1))
	}
	if _, err := client.Write(offer); err != nil {
		return err
	}
	choice, err := readMessage(client, 1)
	if err != nil {
		return err
	}
	mechanism, _, _ := bytes.Cut(choice[5:], []byte{0})
	m.mu.Lock()
	m.mechanism = string(mechanism)
	m.mu.Unlock()
	_, err = server.Write(choice)
	return err
}

// readMessage reads a message with that many bytes in front of its length.
func readMessage(r io.Reader, before int) ([]byte, error) {
	head := make([]byte, before+4)
	if _, err := io.ReadFull(r, head); err != nil {
		return nil, err
	}
	rest := make([]byte, binary.BigEndian.Uint32(head[before:])-4)
	_, err := io.ReadFull(r, rest)
	return append(head, rest...), err
}

// Over TLS the password exchange is bound to the server's certificate, even where
// nobody verifies that: who stands in between with another one is refused by the server.
func TestChannelBinding(t *testing.T) {
	t.Parallel()
	pgtest.ForEach(t, func(t *testing.T, major int) {
		t.Parallel()
		dir := t.TempDir()
		cert, key := certificate(t, dir)
		own, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			t.Fatal(err)
		}
		pgtest.Own(t, dir)
		s := pgtest.Start(t, pgtest.Options{Major: major, Settings: map[string]string{"ssl": "on", "ssl_cert_file": cert, "ssl_key_file": key}})
		otherCert, otherKey := certificate(t, t.TempDir())
		other, err := tls.LoadX509KeyPair(otherCert, otherKey)
		if err != nil {
			t.Fatal(err)
		}
		// With a certificate of the client's TLS is required, with none it is only preferred.
		required, verified := TLS{Cert: otherCert, Key: otherKey}, TLS{CA: cert}
		bound := TLS{Bound: true}
		const plus, plain = "SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"
		tests := []struct {
			name      string
			man       *middleman
			tls       TLS
			mechanism string
			refused   string // what the error says, empty for none
		}{
			{"the server's own certificate", &middleman{cert: own}, TLS{}, plus, ""},
			{"its own certificate, required", &middleman{cert: own}, required, plus, ""},
			{"its own certificate, verified", &middleman{cert: own}, verified, plus, ""},
			{"another certificate", &middleman{cert: other}, required, plus, "channel binding check failed"},
			{"another certificate, binding hidden", &middleman{cert: other, hide: true}, required, plain, "channel binding negotiation error"},
			{"its own certificate, bound", &middleman{cert: own}, bound, plus, ""},
			{"another certificate, bound", &middleman{cert: other}, bound, plus, "channel binding check failed"},
			{"another certificate, bound, binding hidden", &middleman{cert: other, hide: true}, bound, "", "channel binding required"},
			{"no TLS to the server, bound", &middleman{cert: other, plain: true}, bound, "", "channel binding required"},
			// Without TLS the server has no channel to bind to. It is for pg_hba.conf
			// (hostssl), the verified certificate or the required binding to refuse that.
			{"no TLS to the server", &middleman{cert: other, plain: true}, required, plain, ""},
			{"no TLS to the server, verified", &middleman{cert: other, plain: true}, verified, "", "certificate"},
		}
		for _, tt := range tests {
			tt.man.server = fmt.Sprintf("%s:%d", s.Host, s.Port)
			checkBinding(t, tt.name, s, tt.man, tt.tls, tt.mechanism, tt.refused)
		}

		hba := filepath.Join(s.DataDir, "pg_hba.conf")
		content, err := os.ReadFile(hba)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(hba, bytes.ReplaceAll(content, []byte("\nhost "), []byte("\nhostssl ")), 0o600); err != nil {
			t.Fatal(err)
		}
		s.Exec(t, "SELECT pg_reload_conf()")
		s.WaitFor(t, "(SELECT count(*) > 0 FROM pg_hba_file_rules WHERE type = 'hostssl')")
		man := &middleman{server: fmt.Sprintf("%s:%d", s.Host, s.Port), cert: other, plain: true}
		checkBinding(t, "no TLS to a server that wants it", s, man, required, "", "no encryption")
	})
}

func checkBinding(t *testing.T, name string, s *pgtest.Server, man *middleman, files TLS, mechanism, refused string) {
	t.Helper()
	p := params(s)
	p.TLS, p.Port = files, man.listen(t)
	c, err := Connect(context.Background(), p)
	if err == nil {
		c.Close()
	}
	switch {
	case refused == "" && err != nil:
		t.Errorf("%s: refused: %v", name, err)
	case refused != "" && (err == nil || !strings.Contains(err.Error(), refused)):
		t.Errorf("%s: %v; want it refused with %q", name, err, refused)
	case man.chosen() != mechanism:
		t.Errorf("%s: authenticated with %q, want %q", name, man.chosen(), mechanism)
	}
}
