package backup

import (
	"bytes"
	"context"
	"fmt"

	"github.com/pgmoneta/pgmoneta-go/internal/container"
	"github.com/pgmoneta/pgmoneta-go/internal/pg"
	"github.com/pgmoneta/pgmoneta-go/internal/pgrepl"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
)

// A MissedBlockError reports a block that the server changed after the base and did not
// send. An incremental backup without it would not be what the server has.
type MissedBlockError struct {
	Path  string
	Block int64
	LSN   pg.LSN // of the page on the server
	Base  repo.Label
}

func (e *MissedBlockError) Error() string {
	return fmt.Sprintf("block %d of %s was changed at %s, after base %s, and the server did not send it: "+
		"its summaries of WAL are wrong. The backup was dropped, take a full backup", e.Block, e.Path, e.LSN, e.Base)
}

// sampleBlocks are compared together: as much as is read for one of them anyway.
const sampleBlocks = 16

// A sample is a run of blocks of a file, some of which were not sent.
type sample struct {
	path    string
	first   int64         // block
	count   int           // blocks
	sent    uint32        // bit i: block first+i was sent
	extents []repo.Extent // of the run in the base
}

// sample chooses some of the runs of a file that were not sent, each with the same chance.
func (b *base) sample(o *overlay) {
	if b.fraction <= 0 {
		return
	}
	blocks := min(int64(o.sent.truncation), o.base.Size/b.blockSize)
	rest := o.sent.blocks
	for first := int64(0); first < blocks; first += sampleBlocks {
		s := sample{path: o.base.Path, first: first, count: int(min(sampleBlocks, blocks-first))}
		for len(rest) > 0 && int64(rest[0]) < first+sampleBlocks {
			s.sent |= 1 << (int64(rest[0]) - first)
			rest = rest[1:]
		}
		if b.fraction < 1 && b.rand.Float64() >= b.fraction || s.sent == 1<<s.count-1 {
			continue
		}
		from, to := first*b.blockSize, (first+int64(s.count))*b.blockSize
		for _, x := range o.base.Extents {
			if x.Offset < to && x.Offset+x.Length > from {
				s.extents = append(s.extents, x)
			}
		}
		b.keep(s)
	}
}

// sampleLimit bounds the samples to 64 GiB of blocks, and the memory for them to about
// 100 MB.
const sampleLimit = 1 << 19

// keep adds a sample. When there are too many it takes the place of another, so that
// all that were chosen have the same chance to stay.
func (b *base) keep(s sample) {
	b.chosen++
	if len(b.samples) < sampleLimit {
		b.samples = append(b.samples, s)
	} else if i := b.rand.IntN(b.chosen); i < sampleLimit {
		b.samples[i] = s
	}
}

// crossCheck compares the samples with what the server has. It is not done where the
// user may not read files.
func (j *job) crossCheck(ctx context.Context, b *base) error {
	if len(b.samples) == 0 {
		return nil
	}
	j.Progress("Cross-check", 0, 0)
	conn, err := pgrepl.ConnectSQL(ctx, j.Params)
	if err != nil {
		j.Log.Warn("blocks that were not sent are not compared: no plain connection", "err", err)
		return nil
	}
	defer conn.Close()
	packs := j.Repo.PackSet(b.manifest.Packs, 16)
	defer packs.Close()
	c := checker{job: j, base: b, conn: conn, packs: packs}
	defer c.scratch.Close()
	for done := 0; done < len(b.samples); done += checkedTogether {
		j.Progress("Cross-check", int64(done), int64(len(b.samples)))
		err := c.check(ctx, b.samples[done:min(done+checkedTogether, len(b.samples))])
		if pgrepl.Code(err) == pgrepl.CodeNoPrivilege {
			j.Log.Warn("blocks that were not sent are not compared: the user may not read files (grant pg_read_server_files and EXECUTE on pg_read_binary_file)", "err", err)
			return nil
		}
		if err != nil {
			return err
		}
	}
	j.Log.Info("compared blocks that were not sent", "label", string(j.summary.Label), "blocks", c.compared, "differ", 0)
	return nil
}

type checker struct {
	*job
	base     *base
	conn     *pgrepl.Conn
	packs    *repo.PackSet
	scratch  container.Scratch
	compared int
}

// tornReads is how often a block is read again that looks changed: the server may
// have been writing it.
const tornReads = 3

// checkedTogether bounds the samples that one statement asks for.
const checkedTogether = 64

// check asks the server when the pages of some samples were last changed. Pages themselves
// are read, and what the base has of them, only when that was between the two: hardly ever.
func (c *checker) check(ctx context.Context, samples []sample) error {
	runs := make([]pgrepl.PageRun, len(samples))
	for i, s := range samples {
		runs[i] = pgrepl.PageRun{Path: s.path, First: s.first, Pages: s.count}
	}
	changed, err := c.conn.PageLSNs(ctx, runs, c.base.blockSize)
	if err != nil {
		return err
	}
	for i, s := range samples {
		for page, lsn := range changed[i] {
			if s.sent&(1<<page) != 0 {
				continue
			}
			c.compared++
			if !c.between(lsn) {
				continue
			}
			if err := c.confirm(ctx, s, s.first+int64(page)); err != nil {
				return err
			}
		}
	}
	return nil
}

// between reports whether a page that was last changed at lsn was so after the base began and
// before this backup did. One that was changed later says nothing.
func (c *checker) between(lsn pg.LSN) bool {
	return lsn >= c.base.summary.Start && lsn < c.summary.Start
}

// missed reports whether a page should have been sent. One that was not changed in between
// may differ in hint bits, which are not logged.
func (c *checker) missed(page, stored []byte) bool {
	return c.between(pg.PageLSN(page)) && !bytes.Equal(page, stored)
}

// confirm compares a block with that of the base, and fails when it is one that should have
// been sent, however often it is read.
func (c *checker) confirm(ctx context.Context, s sample, block int64) error {
	size := c.base.blockSize
	stored := make([]byte, size)
	if err := c.packs.ReadAt(ctx, s.extents, stored, block*size, &c.scratch); err != nil {
		return err
	}
	var page []byte
	for range tornReads {
		var err error
		if page, err = c.conn.ReadFile(ctx, s.path, block*size, size); err != nil {
			return err
		}
		if int64(len(page)) < size || !c.missed(page, stored) {
			return nil
		}
	}
	return &MissedBlockError{Path: s.path, Block: block, LSN: pg.PageLSN(page), Base: c.base.summary.Label}
}
