package supervisor

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/config"
	"github.com/pgmoneta/pgmoneta-go/internal/logging"
	"github.com/pgmoneta/pgmoneta-go/internal/pg"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
	"github.com/pgmoneta/pgmoneta-go/internal/shmem"
)

func TestWhatCouldBeRestored(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	ago := func(minutes int) time.Time { return now.Add(-time.Duration(minutes) * time.Minute) }
	backup := func(minutes int, start pg.LSN) repo.Backup {
		return repo.Backup{Summary: repo.Summary{StartTLI: 1, Start: start, StoppedAt: ago(minutes)}}
	}
	damaged := repo.Backup{Err: errors.New("damaged")}
	hole := func(minutes int, from, to pg.LSN) repo.Hole {
		return repo.Hole{Timeline: 1, From: from, To: to, NoticedAt: ago(minutes)}
	}
	streaming := shmem.ServerSnapshot{Streaming: true, LastMessage: ago(0), ServerLSN: 1000, FlushedLSN: 990}
	lagging, stopped, silent := streaming, streaming, streaming
	lagging.FlushLagSince = ago(3)
	stopped.Streaming, stopped.LastMessage = false, ago(7)
	silent.LastMessage = ago(9)
	for name, tt := range map[string]struct {
		backups    []repo.Backup
		holes      []repo.Hole
		snap       shmem.ServerSnapshot
		start, end time.Time
		lost       uint64
	}{
		"no backup":             {nil, nil, streaming, time.Time{}, time.Time{}, 0},
		"no good backup":        {[]repo.Backup{damaged}, nil, streaming, time.Time{}, time.Time{}, 0},
		"all is well":           {[]repo.Backup{backup(60, 100), damaged, backup(30, 500)}, nil, streaming, ago(60), now, 10},
		"lag":                   {[]repo.Backup{backup(60, 100)}, nil, lagging, ago(60), ago(3), 10},
		"no worker":             {[]repo.Backup{backup(60, 100)}, nil, stopped, ago(60), ago(7), 10},
		"server silent":         {[]repo.Backup{backup(60, 100)}, nil, silent, ago(60), ago(9), 10},
		"never connected":       {[]repo.Backup{backup(60, 100)}, nil, shmem.ServerSnapshot{}, ago(60), ago(60), 0},
		"hole between":          {[]repo.Backup{backup(60, 100), backup(30, 500)}, []repo.Hole{hole(40, 200, 300)}, streaming, ago(30), now, 10},
		"hole behind":           {[]repo.Backup{backup(60, 100), backup(30, 500)}, []repo.Hole{hole(20, 600, 700)}, streaming, ago(60), ago(20), 400},
		"hole on both sides":    {[]repo.Backup{backup(60, 100), backup(30, 500)}, []repo.Hole{hole(40, 200, 300), hole(20, 600, 700)}, streaming, ago(30), ago(20), 400},
		"hole before the first": {[]repo.Backup{backup(60, 100)}, []repo.Hole{hole(90, 20, 30)}, streaming, ago(60), now, 10},
	} {
		got := recovery(tt.backups, tt.holes, tt.snap, now)
		if !got.Start.Equal(tt.start) || !got.End.Equal(tt.end) || got.Lost != tt.lost {
			t.Errorf("%s: %s to %s, %d bytes lost, want %s to %s, %d", name, got.Start, got.End, got.Lost, tt.start, tt.end, tt.lost)
		}
	}
}

// certify writes a certificate that signs itself, and its key.
func certify(t *testing.T, cert, key string, notAfter time.Time) *x509.CertPool {
	t.Helper()
	secret, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := x509.Certificate{SerialNumber: big.NewInt(notAfter.Unix()), Subject: pkix.Name{CommonName: "metrics"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: notAfter,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, &secret.PublicKey, secret)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(secret)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	public := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	pool.AppendCertsFromPEM(public)
	for name, content := range map[string][]byte{cert: public, key: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})} {
		next := name + ".next"
		if err := errors.Join(os.WriteFile(next, content, 0o600), os.Chtimes(next, notAfter, notAfter), os.Rename(next, name)); err != nil {
			t.Fatal(err)
		}
	}
	return pool
}

// idle runs a supervisor for a server that nobody can reach, and returns the address of its metrics.
func idle(t *testing.T, settings string, change ...func(*Options)) (sv *Supervisor, addr string) {
	t.Helper()
	dir := t.TempDir()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr = ln.Addr().String()
	_ = ln.Close()
	_, port, _ := net.SplitHostPort(addr)
	c, err := config.ParseBytes(filepath.Join(dir, "pgmoneta.conf"), fmt.Appendf(nil, "[pgmoneta]\nhost = 127.0.0.1\nmetrics = %s\nbase_dir = %s/base\nunix_socket_dir = %s\n%s\n"+
		"[primary]\nhost = 127.0.0.1\nport = 1\nuser = u\n", port, dir, dir, strings.ReplaceAll(settings, "DIR", dir)), os.LookupEnv)
	if err != nil {
		t.Fatal(err)
	}
	seg, err := shmem.Create(shmem.Capacity{Servers: 1, Jobs: 1})
	if err != nil {
		t.Fatal(err)
	}
	ready := make(chan struct{})
	o := Options{Config: c, Log: &logging.Log{Logger: slog.New(slog.DiscardHandler)}, Level: new(slog.LevelVar), Segment: seg, Start: startThread(seg), Ready: func() { close(ready) }}
	for _, f := range change {
		f(&o)
	}
	sv, err = New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- sv.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		_ = seg.Close()
	})
	select {
	case <-ready:
	case err := <-done:
		done <- nil
		t.Fatalf("Run: %v", err)
	}
	return sv, addr
}

func fetch(client *http.Client, url string) (int, string, error) {
	resp, err := client.Get(url)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), err
}

func TestMetricsOverTLSFollowTheirCertificate(t *testing.T) {
	t.Parallel()
	files := t.TempDir()
	cert, key := filepath.Join(files, "cert"), filepath.Join(files, "key")
	expires := time.Now().Add(24 * time.Hour).Truncate(time.Second)
	pool := certify(t, cert, key, expires)
	_, addr := idle(t, fmt.Sprintf("metrics_cert_file = %s\nmetrics_key_file = %s", cert, key))
	get := func(pool *x509.CertPool) (string, error) {
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, DisableKeepAlives: true}}
		_, page, err := fetch(client, "https://"+addr+"/metrics")
		return page, err
	}
	page, err := get(pool)
	if want := fmt.Sprintf("\npgmoneta_certificate_not_after_timestamp_seconds{listener=\"metrics\"} %d\n", expires.Unix()); err != nil || !strings.Contains(page, want) {
		t.Fatalf("the page over TLS lacks %q: %v", want, err)
	}
	renewed := certify(t, cert, key, expires.Add(time.Hour))
	if _, err := get(pool); err == nil {
		t.Error("the old certificate is still shown")
	}
	if _, err := get(renewed); err != nil {
		t.Errorf("the renewed certificate is not shown: %v", err)
	}
	if code, _, err := fetch(http.DefaultClient, "http://"+addr+"/metrics"); err == nil && code == http.StatusOK {
		t.Error("the page is given without TLS")
	}
}

func TestReadiness(t *testing.T) {
	t.Parallel()
	sv, addr := idle(t, "")
	wait := func(status int, text string) {
		t.Helper()
		var code int
		var body string
		var err error
		for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
			if code, body, err = fetch(http.DefaultClient, "http://"+addr+"/readyz"); err == nil && code == status && strings.Contains(body, text) {
				return
			}
		}
		t.Fatalf("/readyz: %d %q %v, want %d and %q", code, body, err, status, text)
	}
	wait(200, `server "primary": no WAL is being received`)
	if code, body, err := fetch(http.DefaultClient, "http://"+addr+"/healthz"); code != 200 || body != "ok\n" {
		t.Errorf("/healthz: %d %q %v", code, body, err)
	}
	// The list of backups is gone from under us.
	base := sv.config.Load().Main.BaseDir
	if err := errors.Join(os.RemoveAll(filepath.Join(base, "primary", "backup")), os.WriteFile(filepath.Join(base, "primary", "backup"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	sv.server("primary").catalogChanged()
	wait(503, `server "primary": the list of backups cannot be read`)
	if err := os.Remove(filepath.Join(base, "primary", "backup")); err != nil {
		t.Fatal(err)
	}
	sv.server("primary").catalogChanged()
	wait(200, "ok\n")
	sv.mu.Lock()
	code, _, err := fetch(http.DefaultClient, "http://"+addr+"/healthz")
	sv.mu.Unlock()
	if code != http.StatusServiceUnavailable {
		t.Errorf("/healthz of a supervisor that is stuck: %d, %v", code, err)
	}
}
