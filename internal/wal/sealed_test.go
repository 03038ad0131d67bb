package wal

import (
	"bytes"
	"context"
	"encoding/base64"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/pgmoneta/pgmoneta-go/internal/container"
	"github.com/pgmoneta/pgmoneta-go/internal/durable"
	"github.com/pgmoneta/pgmoneta-go/internal/pg"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
	"github.com/pgmoneta/pgmoneta-go/internal/vault"
	"github.com/pgmoneta/pgmoneta-go/test/pgtest"
)

func testKeys(t testing.TB, c container.Cipher) repo.Keys {
	t.Helper()
	m, err := vault.MasterWire{Derived: vault.NewSecretWire(base64.StdEncoding.EncodeToString(make([]byte, 64)))}.Key()
	if err != nil {
		t.Fatal(err)
	}
	return repo.Keys{Cipher: c, Master: func() (*vault.MasterKey, error) { return m, nil }}
}

// What is shipped from a sealed repository is a repository that has the WAL and
// is sealed as well, or plain segments when that is asked for.
func TestShippingFromASealedRepository(t *testing.T) {
	t.Parallel()
	for name, plain := range map[string]bool{"sealed": false, "plain": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := pgtest.Start(t, pgtest.Options{WALSegmentSize: 1, Settings: map[string]string{"wal_keep_size": "256MB"}})
			r, to, keys := newRepo(t), t.TempDir(), testKeys(t, container.AES256)
			r.UseKeys(keys)
			m, stop := run(t, &Receiver{Params: params(s), Repo: r, FS: durable.OS{}, Slot: "pgmoneta", CreateSlot: true, Codec: container.None, ShipTo: to, ShipPlain: plain})
			s.Exec(t, "CREATE TABLE bulk AS SELECT 'planted text' FROM generate_series(1, 3000) i; SELECT pg_switch_wal()")
			end := pg.SegmentSize(mib).Start(lsn(t, s))
			m.wait(t, "the last segment to be shipped", func(m seen) bool { return m.shipped >= end })
			stop()
			listing, err := r.ListWAL(context.Background())
			if err != nil || len(listing.Segments) == 0 {
				t.Fatalf("%v, %v", listing, err)
			}
			copied := newRepoAt(t, to)
			copied.UseKeys(repo.Keys{Master: keys.Master})
			for _, name := range listing.Segments {
				want, err := os.ReadFile(filepath.Join(s.DataDir, "pg_wal", name))
				if err != nil {
					t.Fatal(err)
				}
				got, err := readShipped(copied, name, plain)
				if err != nil || !bytes.Equal(got, want) {
					t.Errorf("shipped %s differs from the server's, %v", name, err)
				}
			}
			if found := planted(t, to); (found != "") != plain {
				t.Errorf("planted text found in %q", found)
			}
		})
	}
}

func newRepoAt(t *testing.T, dir string) *repo.Repository {
	t.Helper()
	r, err := repo.Open(durable.OS{}, dir, "primary")
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func readShipped(r *repo.Repository, name string, plain bool) ([]byte, error) {
	if plain {
		return os.ReadFile(filepath.Join(r.Dir(), "wal", name))
	}
	seg, err := r.OpenSegment(context.Background(), name)
	if err != nil {
		return nil, err
	}
	defer seg.Close()
	stream := seg.Stream()
	defer stream.Close()
	return io.ReadAll(stream)
}

// planted returns a file below dir that holds the planted text, "" for none.
func planted(t *testing.T, dir string) string {
	t.Helper()
	found := ""
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if os.IsNotExist(err) {
			return nil // moved while we look
		}
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if bytes.Contains(b, []byte("planted text")) {
			found = path
		}
		if os.IsNotExist(err) {
			return nil
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// While WAL is received into a sealed repository nothing of it is legible on the
// disk, and what a killed and started receiver leaves is what the server has.
func TestNothingIsLegibleWhileReceiving(t *testing.T) {
	t.Parallel()
	pgtest.ForEach(t, func(t *testing.T, major int) {
		t.Parallel()
		s := pgtest.Start(t, pgtest.Options{Major: major, WALSegmentSize: 1, Settings: map[string]string{"wal_keep_size": "256MB", "wal_compression": "off"}})
		s.Exec(t, "CREATE TABLE secrets (text text)")
		dir := t.TempDir()
		keys := testKeys(t, container.AES256)
		var r *repo.Repository
		for round := range 3 {
			r = newRepoAt(t, dir)
			r.UseKeys(keys)
			m, stop := run(t, &Receiver{Params: params(s), Repo: r, FS: durable.OS{}, Slot: "pgmoneta", CreateSlot: true, Codec: container.None, Always: round == 1})
			for range 20 {
				s.Exec(t, "INSERT INTO secrets SELECT 'planted text' FROM generate_series(1, 500)")
				if found := planted(t, dir); found != "" {
					t.Fatalf("%s is legible", found)
				}
			}
			end := lsn(t, s)
			m.wait(t, "all WAL to be flushed", func(m seen) bool { return m.flushed >= end })
			stop()
			if found := planted(t, dir); found != "" {
				t.Fatalf("%s is legible", found)
			}
		}
		end := lsn(t, s)
		name := pg.SegmentName(1, end, mib)
		if got, err := r.PartialEnd(name, pg.SegmentSize(mib).Start(end), mib); err != nil || got < end {
			t.Errorf("the partial segment ends at %s, %v; flushed was %s", got, err, end)
		}
		checkContinuous(t, r, mib)
	})
}
