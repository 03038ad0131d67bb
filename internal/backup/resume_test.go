package backup

import (
	"context"
	"encoding/base64"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/container"
	"github.com/pgmoneta/pgmoneta-go/internal/durable"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
	"github.com/pgmoneta/pgmoneta-go/internal/vault"
	"github.com/pgmoneta/pgmoneta-go/internal/verify"
	"github.com/pgmoneta/pgmoneta-go/test/pgtest"
)

// packBytes is the stored size of all packs.
func packBytes(t *testing.T, r *repo.Repository) (n int64) {
	t.Helper()
	list, err := r.Engine().List(context.Background(), "pack")
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range list {
		n += o.Size
	}
	return n
}

// keysFor returns keys for a cipher.
func keysFor(t *testing.T, cipher container.Cipher) repo.Keys {
	t.Helper()
	master, err := vault.MasterWire{Derived: vault.NewSecretWire(base64.StdEncoding.EncodeToString(make([]byte, 64)))}.Key()
	if err != nil {
		t.Fatal(err)
	}
	return repo.Keys{Cipher: cipher, Master: func() (*vault.MasterKey, error) { return master, nil }}
}

// What a backup has stored when it is killed or cancelled is found again by the next one,
// which stores what is missing and nothing else.
func TestInterruptedBackupIsResumed(t *testing.T) {
	t.Parallel()
	// What changes between the backups must be stored again, so nothing may.
	s := pgtest.Start(t, pgtest.Options{WALSegmentSize: 1, Settings: map[string]string{"autovacuum": "off"}})
	allow(t, s)
	s.Exec(t, "CREATE TABLE big AS SELECT i, md5(i::text) AS a, md5((-i)::text) AS b FROM generate_series(1, 200000) i; CHECKPOINT")
	s.Exec(t, "VACUUM FREEZE")
	s.Exec(t, "CHECKPOINT")
	ctx := context.Background()
	for name, cipher := range map[string]container.Cipher{"plain": container.Plain, "sealed": container.AES256} {
		for _, source := range []Source{Files, Stream} {
			for _, end := range []string{"killed", "cancelled"} {
				t.Run(name+" "+string(source)+" "+end, func(t *testing.T) {
					base := t.TempDir()
					keys := keysFor(t, cipher)
					o := sealedBed(t, s, base, keys)
					o.Source, o.packBytes, o.Codec, o.Level = source, 1<<20, container.Zstd, 1

					interrupted := o
					var half atomic.Bool
					run, cancel := context.WithCancel(ctx)
					defer cancel()
					interrupted.Progress = func(phase string, done, _ int64) {
						if phase != "Base backup" || done < 33<<20 {
							return
						}
						half.Store(true)
						if end == "cancelled" {
							cancel()
						}
					}
					if end == "killed" {
						// From some moment on nothing reaches the disk, not even a removal.
						fsys, err := durable.NewFault(base, func(durable.Op) error {
							if half.Load() {
								return durable.ErrPowerCut
							}
							return nil
						})
						if err != nil {
							t.Fatal(err)
						}
						if interrupted.Repo, err = repo.Open(fsys, base, "primary"); err != nil {
							t.Fatal(err)
						}
						interrupted.Repo.UseKeys(keys)
					}
					if _, err := Run(run, interrupted); err == nil {
						t.Fatal("an interrupted backup succeeded")
					}
					if list, err := o.Repo.Backups(ctx); err != nil || len(list) != 0 {
						t.Fatalf("listed: %v, %v", list, err)
					}
					// A daemon that starts again sweeps, and a deletion does.
					if err := o.Repo.Sweep(ctx); err != nil {
						t.Fatal(err)
					}
					kept := packBytes(t, o.Repo)
					summary, err := Run(ctx, o)
					if err != nil {
						t.Fatal(err)
					}
					report, err := verify.Backup(ctx, o.Repo, summary.Label, verify.Options{})
					if err != nil || len(report.Problems) > 0 {
						t.Errorf("verify: %+v, %v", report.Problems, err)
					}
					// A backup of its own tells what all of it takes.
					if err := o.Repo.Delete(ctx, summary.Label); err != nil || packBytes(t, o.Repo) != 0 {
						t.Fatalf("%d bytes are left, %v", packBytes(t, o.Repo), err)
					}
					whole, err := Run(ctx, o)
					if err != nil {
						t.Fatal(err)
					}
					t.Logf("%d bytes kept, %d stored by the second, %d by one from the beginning", kept, summary.Stored, whole.Stored)
					// How much is in complete packs at that moment is a matter of timing; it is more than one of them.
					if kept < o.packBytes || summary.Stored > whole.Stored-kept+(64<<10) {
						t.Errorf("%d bytes kept, %d stored by the second, %d by one from the beginning", kept, summary.Stored, whole.Stored)
					}
					if left, err := o.Repo.Unfinished(ctx); err != nil || len(left) != 0 {
						t.Errorf("unfinished: %v, %v", left, err)
					}
				})
			}
		}
	}
}

// What an interrupted backup has left goes when it is too old, and when the next one has
// come to its end and did not need it.
func TestLeftoversOfAnInterruptedBackupGo(t *testing.T) {
	t.Parallel()
	s := pgtest.Start(t, pgtest.Options{WALSegmentSize: 1})
	s.Exec(t, "CREATE TABLE big AS SELECT i, md5(i::text) AS a FROM generate_series(1, 200000) i")
	o := bed(t, s, t.TempDir())
	o.packBytes = 1 << 20
	ctx := context.Background()
	interrupt := func() {
		t.Helper()
		run, cancel := context.WithCancel(ctx)
		defer cancel()
		interrupted := o
		interrupted.Progress = func(_ string, done, _ int64) {
			if done > 20<<20 {
				cancel()
			}
		}
		if _, err := Run(run, interrupted); err == nil || packBytes(t, o.Repo) == 0 {
			t.Fatalf("an interrupted backup ended with %v and left %d bytes", err, packBytes(t, o.Repo))
		}
	}
	interrupt()
	if err := errors.Join(o.Repo.ForgetUnfinished(ctx, time.Now().Add(time.Hour-repo.KeepUnfinished)), o.Repo.Sweep(ctx)); err != nil || packBytes(t, o.Repo) == 0 {
		t.Errorf("swept too early, %v", err)
	}
	if err := errors.Join(o.Repo.ForgetUnfinished(ctx, time.Now().Add(time.Hour)), o.Repo.Sweep(ctx)); err != nil || packBytes(t, o.Repo) != 0 {
		t.Errorf("%d bytes are left of a day ago, %v", packBytes(t, o.Repo), err)
	}
	interrupt()
	s.Exec(t, "DROP TABLE big")
	if _, err := Run(ctx, o); err != nil {
		t.Fatal(err)
	}
	report, err := o.Repo.Check(ctx, repo.CheckOptions{Full: true})
	if left, lerr := o.Repo.Unfinished(ctx); err != nil || lerr != nil || len(left) != 0 || len(report.Findings) > 0 {
		t.Errorf("unfinished %v, findings %+v, %v, %v", left, report.Findings, err, lerr)
	}
}
