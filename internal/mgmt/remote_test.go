package mgmt

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"io"
	"math/big"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/vault"
)

const adminPassword = "correct horse ß"

func passwords(user string) (vault.Secret, bool) {
	if user != "admin1" {
		return vault.Secret{}, false
	}
	return vault.NewSecret(adminPassword), true
}

// certificate returns a certificate for 127.0.0.1 and who trusts it.
func certificate(t *testing.T) (server, client *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, MinVersion: tls.VersionTLS12},
		&tls.Config{RootCAs: pool, ServerName: "127.0.0.1", MinVersion: tls.VersionTLS12}
}

// remote serves remote clients until the test ends and returns the address.
func remote(t *testing.T, door *Door) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() {
		served <- NewServer(handlerFunc(succeed), Options{Version: "0.22.0", Keys: masterKey(t)}).ServeRemote(ctx, ln, door)
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Errorf("ServeRemote = %v, want nil after cancel", err)
		}
	})
	return ln.Addr().String()
}

func pingRemote(t *testing.T, r Remote) error {
	t.Helper()
	c, err := DialRemote(t.Context(), r)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	c.Coding, c.Keys = Coding{CompressionZstd, EncryptionAES256}, masterKey(t)
	doc, err := c.Call(t.Context(), Ping, nil)
	if err == nil && !doc.Outcome().Status {
		err = doc.Outcome().Err()
	}
	return err
}

func TestRemoteLogin(t *testing.T) {
	t.Parallel()
	server, client := certificate(t)
	always := func() (*tls.Config, error) { return server, nil }
	both := remote(t, NewDoor(passwords, always, false))
	secure := remote(t, NewDoor(passwords, always, true))
	clear := remote(t, NewDoor(passwords, nil, false))
	_, stranger := certificate(t)
	good, bad := vault.NewSecret(adminPassword), vault.NewSecret("wrong")
	tests := []struct {
		name string
		r    Remote
		want string // of the error, empty for none
	}{
		{"clear", Remote{Address: both, User: "admin1", Password: good}, ""},
		{"clear where there is no TLS", Remote{Address: clear, User: "admin1", Password: good}, ""},
		{"TLS", Remote{Address: both, User: "admin1", Password: good, TLS: client}, ""},
		{"TLS where it is required", Remote{Address: secure, User: "admin1", Password: good, TLS: client}, ""},
		{"clear where TLS is required", Remote{Address: secure, User: "admin1", Password: good}, "connection refused"},
		{"TLS where there is none", Remote{Address: clear, User: "admin1", Password: good, TLS: client}, "has no TLS"},
		{"TLS with somebody else", Remote{Address: both, User: "admin1", Password: good, TLS: stranger}, "certificate"},
		{"wrong password", Remote{Address: clear, User: "admin1", Password: bad}, "connection refused"},
		{"wrong password over TLS", Remote{Address: secure, User: "admin1", Password: bad, TLS: client}, "connection refused"},
		{"unknown user", Remote{Address: clear, User: "nobody", Password: good}, "connection refused"},
		{"no user", Remote{Address: clear, Password: good}, "connection refused"},
	}
	for _, tt := range tests {
		err := pingRemote(t, tt.r)
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
}

// transcript logs in as far as the server's challenge, and returns what came.
func transcript(t *testing.T, address, user string) (sasl, challenge []byte) {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write(appendStartup(nil, "user", user, "database", "admin", "application_name", "pgmoneta-cli")); err != nil {
		t.Fatal(err)
	}
	sasl = make([]byte, 24)
	if _, err := io.ReadFull(conn, sasl); err != nil {
		t.Fatal(err)
	}
	first := "n,,n=,r=" + strings.Repeat("a", 24)
	length := binary.BigEndian.AppendUint32(nil, uint32(len(first)))
	if _, err := conn.Write(appendMessage(nil, 'p', []byte(mechanism+"\x00"), length, []byte(first))); err != nil {
		t.Fatal(err)
	}
	challenge, err = readAuth(conn, authContinue)
	if err != nil {
		t.Fatal(err)
	}
	return sasl, challenge
}

// A client of 0.22 reads fixed lengths. A stranger cannot tell an unknown user from
// a wrong password, not even by asking twice.
func TestChallengesTellNothing(t *testing.T) {
	t.Parallel()
	address := remote(t, NewDoor(passwords, nil, false))
	salts := map[string]string{}
	for _, user := range []string{"admin1", "nobody", "admin1", "nobody"} {
		sasl, challenge := transcript(t, address, user)
		if want := []byte("R\x00\x00\x00\x17\x00\x00\x00\x0aSCRAM-SHA-256\x00\x00"); !bytes.Equal(sasl, want) {
			t.Errorf("%s: %q, want %q", user, sasl, want)
		}
		fields := strings.Split(string(challenge), ",")
		if len(fields) != 3 || len(fields[0]) != len("r=")+48 || len(fields[1]) != len("s=")+24 || fields[2] != "i=4096" {
			t.Errorf("%s: challenge %s", user, challenge)
		}
		if before, ok := salts[user]; ok && before != fields[1] {
			t.Errorf("%s: another salt", user)
		}
		salts[user] = fields[1]
	}
	if salts["admin1"] == salts["nobody"] {
		t.Error("one salt for all")
	}
}

// Somebody in between whose certificate the client trusts too cannot pass the login on.
func TestLoginIsBoundToTheConnection(t *testing.T) {
	t.Parallel()
	server, client := certificate(t)
	address := remote(t, NewDoor(passwords, func() (*tls.Config, error) { return server, nil }, true))
	other, trusting := certificate(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- between(ln, other, address, client) }()
	r := Remote{Address: ln.Addr().String(), User: "admin1", Password: vault.NewSecret(adminPassword), TLS: trusting}
	var refused *AuthError
	if err := pingRemote(t, r); !errors.As(err, &refused) {
		t.Errorf("%v, want a refusal", err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// between passes on one connection, with TLS of its own on both sides.
func between(ln net.Listener, own *tls.Config, address string, client *tls.Config) error {
	defer func() { _ = ln.Close() }()
	in, err := ln.Accept()
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	if _, err := readStartup(in); err != nil {
		return err
	}
	if _, err := in.Write([]byte{tlsAnswer}); err != nil {
		return err
	}
	out, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	defer func() { _ = out.Close() }()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	secured, err := secure(ctx, out, client)
	if err != nil {
		return err
	}
	answering := tls.Server(in, own)
	go func() {
		_, _ = io.Copy(answering, secured)
		_ = answering.CloseWrite()
	}()
	_, _ = io.Copy(secured, answering)
	return nil
}

func TestRemoteStartupsThatMakeNoSense(t *testing.T) {
	t.Parallel()
	address := remote(t, NewDoor(passwords, nil, false))
	number := func(n ...uint32) (b []byte) {
		for _, v := range n {
			b = binary.BigEndian.AppendUint32(b, v)
		}
		return b
	}
	for name, raw := range map[string][]byte{
		"nothing":               {},
		"HTTP":                  []byte("GET / HTTP/1.0\r\n\r\n"),
		"too long":              number(1<<31, protocol3),
		"too short":             number(4, 0),
		"protocol 2":            number(8, 2<<16),
		"cancel":                number(16, cancelRequest, 1, 1),
		"GSS for ever":          bytes.Repeat(number(8, gssRequest), 5),
		"parameter without end": append(number(12, protocol3), "user"...),
		"no user":               appendStartup(nil),
		"frame without login":   frame(`{"Header":{"Command":6}}`),
	} {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
		_, _ = conn.Write(raw)
		_ = conn.(*net.TCPConn).CloseWrite()
		answer, err := io.ReadAll(conn)
		if errors.Is(err, context.DeadlineExceeded) || bytes.Contains(answer, []byte("Outcome")) {
			t.Errorf("%s: %q, %v", name, answer, err)
		}
		_ = conn.Close()
	}
}

func TestFailedLoginsWaitLongerAndLonger(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f, ctx := newFailures(), t.Context()
		enter := func(address string) (time.Duration, error) {
			began := time.Now()
			release, err := f.enter(ctx, address)
			if err == nil {
				release()
			}
			return time.Since(began), err
		}
		var last time.Duration
		for i := range maxFailures {
			waited, err := enter("a")
			if err != nil || waited < last || waited > longestDelay || i > 0 && waited == 0 {
				t.Fatalf("attempt %d waited %s after %s: %v", i, waited, last, err)
			}
			last = waited
			f.add("a")
		}
		var blocked *BlockedError
		if _, err := enter("a"); !errors.As(err, &blocked) {
			t.Errorf("attempt %d: %v", maxFailures, err)
		}
		if waited, err := enter("b"); waited != 0 || err != nil {
			t.Errorf("another address waited %s: %v", waited, err)
		}
		time.Sleep(failureMemory + time.Second)
		if waited, err := enter("a"); waited != 0 || err != nil {
			t.Errorf("later: waited %s, %v", waited, err)
		}
	})
}

func TestFailuresAreBounded(t *testing.T) {
	t.Parallel()
	f := newFailures()
	for i := range 3 * rememberedHosts {
		f.add(string(binary.BigEndian.AppendUint32(nil, uint32(i))))
	}
	if n := len(f.hosts); n > rememberedHosts {
		t.Errorf("%d addresses are remembered", n)
	}
}

func FuzzStartup(f *testing.F) {
	f.Add(appendStartup(nil, "user", "admin1", "database", "admin"))
	f.Add([]byte("\x00\x00\x00\x08\x04\xd2\x16\x2f"))
	f.Add(appendMessage(nil, 'p', []byte("SCRAM-SHA-256\x00\x00\x00\x00\x00")))
	f.Fuzz(func(_ *testing.T, raw []byte) {
		_, _ = readStartup(bytes.NewReader(raw))
		_, _, _ = readMessage(bytes.NewReader(raw))
		_, _ = readAuth(bytes.NewReader(raw), authContinue)
		_, _, _ = parseInitial(raw)
		_ = errorText(raw)
	})
}
