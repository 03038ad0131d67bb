package backup

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"

	"github.com/pgmoneta/pgmoneta-go/internal/pg"
	"github.com/pgmoneta/pgmoneta-go/internal/pgrepl"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
)

// A BaseError reports that an incremental backup cannot be based on a backup.
type BaseError struct {
	Base repo.Label
	Err  error
}

func (e *BaseError) Error() string {
	return fmt.Sprintf("backup %s cannot be the base of an incremental backup: %v: take a full backup", e.Base, e.Err)
}

func (e *BaseError) Unwrap() error { return e.Err }

// unsuitable returns why a backup cannot be the base, unless it was not the base's fault.
func unsuitable(ctx context.Context, l repo.Label, err error) error {
	if ctx.Err() != nil || pgrepl.IsTransient(err) {
		return err
	}
	return &BaseError{Base: l, Err: err}
}

// A base is the earlier backup whose data is referred to.
type base struct {
	summary   repo.Summary
	manifest  *repo.Manifest
	rows      *repo.RowIndex // nil unless the server sends blocks
	blockSize int64

	fraction float64 // of blocks that were not sent to compare with the server's
	samples  []sample
	chosen   int // samples and those that made room for them
	rand     *rand.Rand
}

func (b *base) close() {
	if b.rows != nil {
		b.rows.Close()
	}
	_ = b.manifest.Close()
}

// find returns the row of a file of which the server sent blocks.
func (b *base) find(path string) (repo.File, error) {
	f, ok, err := b.rows.Find(path)
	if err == nil && !ok {
		err = fmt.Errorf("the server sent changed blocks, but base %s does not have the file", b.summary.Label)
	}
	return f, err
}

// openBase opens the backup whose data is referred to, and what interrupted backups have
// stored. Without any backup that can be trusted, the base is nil.
func (j *job) openBase(ctx context.Context) (*base, *known, error) {
	damaged, err := j.Repo.Damaged(ctx)
	if err != nil {
		return nil, nil, err
	}
	b, k, err := j.chooseBase(ctx, damaged)
	if err != nil {
		return nil, nil, err
	}
	packs, err := k.loadUnfinished(ctx, j.Repo, damaged)
	if err != nil {
		if b != nil {
			b.close()
		}
		return nil, nil, err
	}
	if packs > 0 {
		j.Log.Info("an interrupted backup has stored a part", "packs", packs)
	}
	return b, k, nil
}

// chooseBase opens the backup an incremental one is based on, else the newest that can be
// trusted. Without any, the base is nil and nothing known.
func (j *job) chooseBase(ctx context.Context, damaged map[string]bool) (*base, *known, error) {
	if j.Base != "" {
		b, err := j.Repo.Find(ctx, string(j.Base))
		if err != nil {
			return nil, nil, err
		}
		opened, k, err := j.trust(ctx, b, damaged)
		if err != nil {
			return nil, nil, unsuitable(ctx, b.Label, err)
		}
		return opened, k, nil
	}
	list, err := j.Repo.Backups(ctx)
	if err != nil {
		return nil, nil, err
	}
	for i := len(list) - 1; i >= 0; i-- {
		if list[i].Foreign {
			continue
		}
		b, k, err := j.trust(ctx, list[i], damaged)
		if err == nil {
			return b, k, nil
		}
		if ctx.Err() != nil {
			return nil, nil, context.Cause(ctx)
		}
		j.Log.Warn("earlier backup is not referred to", "label", string(list[i].Label), "err", err)
	}
	return nil, newKnown(), nil
}

// trust opens a backup if new backups may refer to its data.
func (j *job) trust(ctx context.Context, b repo.Backup, damaged map[string]bool) (*base, *known, error) {
	switch {
	case b.Err != nil:
		return nil, nil, b.Err
	case b.Foreign:
		return nil, nil, errors.New("another program made it")
	case b.Summary.System != j.summary.System:
		return nil, nil, fmt.Errorf("it is of system %s", b.Summary.System)
	case protection(b.Summary.Cipher) < protection(j.summary.Cipher):
		return nil, nil, fmt.Errorf("its encryption is %q, that of a new backup %q", b.Summary.Cipher, j.summary.Cipher)
	}
	m, err := j.Repo.OpenManifest(ctx, b.Label)
	if err != nil {
		return nil, nil, err
	}
	for _, p := range m.Packs {
		if damaged[p.Name] {
			err = fmt.Errorf("%s was found damaged", p.Name)
		}
	}
	k := newKnown()
	if err == nil {
		err = k.load(ctx, j.Repo, m.Packs)
	}
	if err != nil {
		_ = m.Close()
		return nil, nil, err
	}
	return &base{summary: b.Summary, manifest: m}, k, nil
}

// protection orders ciphers by the length of their keys; none is 0. A backup never refers to
// data that is protected less than it is itself, and so neither do those that refer to it.
func protection(cipher string) int {
	for _, word := range strings.Split(cipher, "-") {
		if bits, err := strconv.Atoi(word); err == nil {
			return bits
		}
	}
	return 0
}

// prepare makes the server ready to send what has changed since the base. It refuses what
// cannot work before the server begins a backup.
func (j *job) prepare(ctx context.Context, conn *pgrepl.Conn, b *base, now pgrepl.System) error {
	if err := j.follows(ctx, b.summary, now.Timeline); err != nil {
		return err
	}
	if conn.Version().Major() < pgrepl.IncrementalMajor {
		return nil
	}
	if n := b.summary.CorruptPages; n > 0 && !j.AllowCorrupt {
		return fmt.Errorf("it was kept with %d pages whose checksums are wrong (allow-corrupt takes it all the same)", n)
	}
	if b.summary.PostgreSQL.Major() != conn.Version().Major() {
		return fmt.Errorf("it is of PostgreSQL %d, the server is %d", b.summary.PostgreSQL.Major(), conn.Version().Major())
	}
	if on, err := conn.Show(ctx, "summarize_wal"); err != nil {
		return err
	} else if on != "on" {
		return errors.New("the server keeps no summaries of its WAL (set summarize_wal = on; it counts for backups from then on)")
	}
	if err := j.summaries(ctx, b.summary); err != nil {
		return err
	}
	var err error
	if b.blockSize, err = conn.BlockSize(ctx); err != nil {
		return err
	}
	if b.rows, err = b.manifest.Index(ctx); err != nil {
		return err
	}
	b.fraction, b.rand = j.CrossCheck, rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))
	return j.upload(ctx, conn, b)
}

// follows checks that the server's timeline goes on from where the base ended.
func (j *job) follows(ctx context.Context, s repo.Summary, tli pg.Timeline) error {
	h, err := j.Repo.History(ctx, tli)
	if err != nil {
		return err
	}
	if end, ok := h.End(s.EndTLI); !ok || s.End > end {
		return fmt.Errorf("it ends at %s on timeline %d, from where timeline %d of the server does not follow", s.End, s.EndTLI, tli)
	}
	return nil
}

// summaries checks that the server's summaries of WAL reach back to the base, if it may be asked.
func (j *job) summaries(ctx context.Context, s repo.Summary) error {
	conn, err := pgrepl.ConnectSQL(ctx, j.Params)
	if err != nil {
		return nil // then the server's own check is the first
	}
	defer conn.Close()
	oldest, any, err := conn.OldestSummary(ctx, s.StartTLI)
	if err == nil && any && oldest > s.Start {
		return fmt.Errorf("it begins at %s, and the server has summaries of WAL only from %s on (wal_summary_keep_time)", s.Start, oldest)
	}
	return nil
}

// upload sends PostgreSQL's manifest of the base.
func (j *job) upload(ctx context.Context, conn *pgrepl.Conn, b *base) error {
	in, err := j.Repo.OpenPostgresManifest(ctx, b.summary.Label)
	if err != nil {
		return err
	}
	return errors.Join(conn.UploadManifest(ctx, in), in.Close())
}
