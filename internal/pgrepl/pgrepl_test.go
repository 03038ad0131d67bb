package pgrepl

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgmoneta/pgmoneta-go/internal/pg"
	"github.com/pgmoneta/pgmoneta-go/internal/vault"
	"github.com/pgmoneta/pgmoneta-go/test/pgtest"
)

func params(s *pgtest.Server) Params {
	return Params{Server: "primary", Host: s.Host, Port: s.Port, User: pgtest.ReplUser, Password: vault.NewSecret(pgtest.ReplPassword)}
}

func TestStatusKeepsAnUnknownFlushPositionUnknown(t *testing.T) {
	b := Status{Written: 0x1_0000_0028}.Append(nil, postgresEpoch.Add(time.Second))
	want := "r\x00\x00\x00\x01\x00\x00\x00\x28" + strings.Repeat("\x00", 16) + "\x00\x00\x00\x00\x00\x0f\x42\x40\x00"
	if string(b) != want {
		t.Errorf("status is %x, want %x", b, want)
	}
	if b = (Status{Reply: true}).Append(nil, postgresEpoch); b[len(b)-1] != 1 {
		t.Error("no reply was asked for")
	}
}

func TestBaseBackupCommandOfEachVersion(t *testing.T) {
	o := BaseBackupOptions{Label: "it's", MaxRate: 64}
	for v, want := range map[pg.Version]string{
		140000: "BASE_BACKUP LABEL 'it''s' PROGRESS FAST NOWAIT MAX_RATE 64 MANIFEST 'yes' MANIFEST_CHECKSUMS 'CRC32C'",
		150000: "BASE_BACKUP (LABEL 'it''s', PROGRESS true, CHECKPOINT 'fast', WAIT false, MANIFEST 'yes', MANIFEST_CHECKSUMS 'CRC32C', MAX_RATE 64)",
	} {
		if got := o.command(v); got != want {
			t.Errorf("%s: %s\nwant %s", v, got, want)
		}
	}
}

func TestSlotIsCreatedWithWALReserved(t *testing.T) {
	pgtest.ForEach(t, func(t *testing.T, major int) {
		t.Parallel()
		s := pgtest.Start(t, pgtest.Options{Major: major})
		ctx := context.Background()
		c, err := Connect(ctx, params(s))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		sql, err := ConnectSQL(ctx, params(s))
		if err != nil {
			t.Fatal(err)
		}
		defer sql.Close()
		const name = "odd_name_1"
		if slot, err := c.ReadSlot(ctx, name, sql); err != nil || slot.Exists {
			t.Errorf("before: %+v, %v", slot, err)
		}
		if err := c.CreateSlot(ctx, name); err != nil {
			t.Fatal(err)
		}
		slot, err := c.ReadSlot(ctx, name, sql)
		if err != nil || !slot.Exists || slot.Restart == 0 {
			t.Errorf("after: %+v, %v", slot, err)
		}
		if err := c.CreateSlot(ctx, name); Code(err) != CodeDuplicate {
			t.Errorf("second creation: %v", err)
		}
		if c.Version().Major() != major {
			t.Errorf("version %s of %d", c.Version(), major)
		}
	})
}

func TestConnectErrorsNameTheServerAndNoPassword(t *testing.T) {
	s := pgtest.Start(t, pgtest.Options{})
	p := params(s)
	p.Password = vault.NewSecret("not the password")
	_, err := Connect(context.Background(), p)
	if err == nil || !strings.Contains(err.Error(), `server "primary"`) || strings.Contains(err.Error(), "not the password") || IsTransient(err) {
		t.Errorf("wrong password: %v", err)
	}
	s.Stop(t, pgtest.Fast)
	if _, err := Connect(context.Background(), params(s)); !IsTransient(err) {
		t.Errorf("a server that is down is not transient: %v", err)
	}
}

func TestTLS(t *testing.T) {
	dir := t.TempDir()
	cert, key := certificate(t, dir)
	pgtest.Own(t, dir)
	s := pgtest.Start(t, pgtest.Options{Settings: map[string]string{"ssl": "on", "ssl_cert_file": cert, "ssl_key_file": key}})
	other, _ := certificate(t, t.TempDir())
	for name, tt := range map[string]struct {
		tls TLS
		ok  bool
	}{
		"used when offered":             {TLS{}, true},
		"verified against the right CA": {TLS{CA: cert}, true},
		"refused with another CA":       {TLS{CA: other}, false},
	} {
		p := params(s)
		p.TLS = tt.tls
		c, err := ConnectSQL(context.Background(), p)
		if (err == nil) != tt.ok {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil {
			continue
		}
		rows, err := c.Query(context.Background(), "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
		if err != nil || len(rows) != 1 || rows[0][0] != "t" {
			t.Errorf("%s: not encrypted: %v, %v", name, rows, err)
		}
		c.Close()
	}
}

// certificate writes a self-signed certificate for 127.0.0.1 and its key.
func certificate(t *testing.T, dir string) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "pgtest"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, "server.crt"), filepath.Join(dir, "server.key")
	for path, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "EC PRIVATE KEY", Bytes: keyDER}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

func FuzzCopyData(f *testing.F) {
	f.Add([]byte("k\x00\x00\x00\x00\x01\x00\x00\x28\x00\x00\x00\x00\x00\x00\x00\x00\x01"))
	f.Add(append([]byte("w"), make([]byte, 40)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := parseCopyData(b); err == nil && len(m.Data) > len(b) {
			t.Error("more data than message")
		}
	})
}

func FuzzMessages(f *testing.F) {
	f.Add([]byte("d\x00\x00\x00\x07dxyH\x00\x00\x00\x07\x00\x00\x00c\x00\x00\x00\x04Z\x00\x00\x00\x05I"))
	f.Add([]byte("D\x00\x00\x00\x0b\x00\x01\x00\x00\x00\x01xE\x00\x00\x00\x09SERR\x00"))
	f.Add([]byte("d\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		m := &messageReader{r: bufio.NewReaderSize(bytes.NewReader(b), 16)}
		for {
			msg, err := m.next()
			if err != nil {
				return
			}
			if _, ok := msg.(*pgproto3.CopyData); ok {
				_, _ = m.dataByte()
				_, _ = m.Read(make([]byte, 3))
				if m.skipData() == nil && m.data != 0 {
					t.Fatalf("%d bytes left of a message that was passed", m.data)
				}
			}
		}
	})
}

func FuzzNextTimeline(f *testing.F) {
	f.Add([]byte("2"), []byte("0/3000148"))
	f.Fuzz(func(_ *testing.T, tli, lsn []byte) {
		_, _ = parseNextTimeline([][]byte{tli, lsn})
		_, _, _ = parsePosition([][]byte{lsn, tli})
	})
}
