package restore

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/pgmoneta/pgmoneta-go/internal/backup"
	"github.com/pgmoneta/pgmoneta-go/internal/container"
	"github.com/pgmoneta/pgmoneta-go/internal/durable"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
	"github.com/pgmoneta/pgmoneta-go/internal/vault"
	"github.com/pgmoneta/pgmoneta-go/internal/verify"
	"github.com/pgmoneta/pgmoneta-go/test/pgtest"
)

// sealedBy returns keys under a master key of that name.
func sealedBy(t *testing.T, name string, c container.Cipher) repo.Keys {
	t.Helper()
	secret := []byte(strings.Repeat(name, 64)[:64])
	m, err := vault.MasterWire{Derived: vault.NewSecretWire(base64.StdEncoding.EncodeToString(secret))}.Key()
	if err != nil {
		t.Fatal(err)
	}
	return repo.Keys{Cipher: c, Master: func() (*vault.MasterKey, error) { return m, nil }}
}

// TestSealedRoundTrip takes a backup under load and brings it back with its WAL,
// with every codec and every cipher, from every source. Without PGMONETA_TEST_LONG each
// codec meets one cipher, and each cipher and source at least one codec.
func TestSealedRoundTrip(t *testing.T) {
	t.Parallel()
	codecs := []container.Codec{container.Zstd, container.None, container.Gzip, container.LZ4, container.Bzip2}
	ciphers := []container.Cipher{container.AES256, container.AES192, container.AES128}
	sources := []backup.Source{backup.Stream, backup.Files, backup.SQL}
	long := os.Getenv("PGMONETA_TEST_LONG") != ""
	pgtest.ForEach(t, func(t *testing.T, major int) {
		t.Parallel()
		slots := strconv.Itoa(len(codecs)*len(ciphers) + 1)
		s := pgtest.Start(t, pgtest.Options{Major: major, WALSegmentSize: 1, Settings: map[string]string{"max_replication_slots": slots}})
		s.Exec(t, "CREATE TABLE marks (n int); INSERT INTO marks VALUES (0)")
		grantReading(t, s)
		load := pgtest.StartLoad(t, s, 1)
		defer load.Stop()
		for i, codec := range codecs {
			for k, cipher := range ciphers {
				for n, source := range sources {
					if !long && (k != i%len(ciphers) || n != (i+1)%len(sources)) {
						continue
					}
					t.Run(fmt.Sprintf("%s and %s from %s", codec, cipher, source), func(t *testing.T) {
						sealedRoundTrip(t, s, codec, sealedBy(t, "a", cipher), source)
					})
				}
			}
		}
	})
}

func sealedRoundTrip(t *testing.T, s *pgtest.Server, codec container.Codec, keys repo.Keys, source backup.Source) {
	s.Exec(t, "TRUNCATE marks; INSERT INTO marks VALUES (0)")
	b := newSealedBed(t, s, fmt.Sprintf("slot_%d_%d", codec, keys.Cipher), codec, keys)
	b.source = source
	summary := b.backup()
	if summary.Cipher != keys.Cipher.String() || summary.Codec != codec.String() {
		t.Errorf("the backup says %s and %s", summary.Codec, summary.Cipher)
	}
	b.mark(1)
	lsn := s.QueryString(t, "SELECT pg_current_wal_insert_lsn()")
	s.SwitchWAL(t)
	b.mark(2)
	b.received()
	report, err := verify.Backup(context.Background(), b.repo, summary.Label, verify.Options{Workers: 2, Progress: func(string, int64, int64) {}, File: func(repo.File, error) {}})
	if err != nil || len(report.Problems) > 0 {
		t.Errorf("verify: %v, %v", report.Problems, err)
	}

	// By another process, which has nothing but the master key.
	again, err := repo.Open(durable.OS{}, strings.TrimSuffix(b.repo.Dir(), "/primary"), "primary")
	if err != nil {
		t.Fatal(err)
	}
	again.UseKeys(repo.Keys{Master: keys.Master})
	reader := *b
	reader.repo, reader.t = again, t
	restored, _ := reader.restore(Options{Backup: string(summary.Label)}, "lsn="+lsn)
	if got := marks(t, restored); got != "0 1" {
		t.Errorf("restored to %s: marks %q, want 0 1", lsn, got)
	}
	restored.Stop(t, pgtest.Immediate)

	refused := []struct {
		name string
		keys repo.Keys
		want any
	}{
		{"no master key", repo.Keys{}, new(*repo.NoMasterError)},
		{"another master key", sealedBy(t, "b", keys.Cipher), new(*repo.WrongMasterError)},
	}
	for _, tt := range refused {
		fresh, err := repo.Open(durable.OS{}, strings.TrimSuffix(b.repo.Dir(), "/primary"), "primary")
		if err != nil {
			t.Fatal(err)
		}
		fresh.UseKeys(tt.keys)
		_, err = MakePlan(context.Background(), fresh, Options{Backup: string(summary.Label), Directory: t.TempDir()})
		if !errors.As(err, tt.want) {
			t.Errorf("%s: %v, want %T", tt.name, err, tt.want)
		}
	}
}
