package backup

import (
	"context"
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/container"
	"github.com/pgmoneta/pgmoneta-go/internal/durable"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
)

// TestEncodersDoNotWaitForFramesThatCannotCome has so many encoders that all frames there
// are fill no batch: whoever waited for more would wait for a frame that is written only
// after its own.
func TestEncodersDoNotWaitForFramesThatCannotCome(t *testing.T) {
	l := layout{codec: container.None, workers: 200, frame: batchLimit / 16, pack: repo.PackTarget}
	batch, frames := l.underWay()
	if frames >= l.workers*batch {
		t.Fatalf("%d frames can fill the batches of %d encoders, so that nothing is proven here", frames, l.workers)
	}
	late := errors.New("the pipeline stands still")
	ctx, cancel := context.WithTimeoutCause(t.Context(), time.Minute, late)
	defer cancel()
	r, err := repo.Open(durable.OS{}, t.TempDir(), "primary")
	if err != nil {
		t.Fatal(err)
	}
	const label = repo.Label("20261121120000")
	rows, err := r.NewManifestWriter(ctx, label)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Abort()
	pipe, err := newPipeline(ctx, r, label, l, newKnown(), rows)
	if err != nil {
		t.Fatal(err)
	}
	const files = 4000
	for i := range files {
		into, err := pipe.reserve()
		if err != nil {
			pipe.abort(err)
			t.Fatalf("file %d: %v", i, err)
		}
		e := &entry{file: repo.File{Path: "base/1/1", Kind: repo.Regular, Size: 8}}
		binary.LittleEndian.PutUint64(into, uint64(i+1))
		pipe.commit(e, 0, 8)
		if err := pipe.end(e); err != nil {
			pipe.abort(err)
			t.Fatalf("file %d: %v", i, err)
		}
		pipe.submit()
	}
	packs, _, err := pipe.finish()
	if err != nil || len(packs) != 1 || packs[0].Live != 8*files {
		t.Errorf("%+v, %v", packs, err)
	}
}
