package repo

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/pgmoneta/pgmoneta-go/internal/container"
	"github.com/pgmoneta/pgmoneta-go/internal/durable"
)

// Any part of a file of many extents reads as what it was made of, zeros where there is no extent.
func TestPartsOfAFileOfManyExtents(t *testing.T) {
	ctx := context.Background()
	r := open(t, durable.OS{}, t.TempDir())
	random := rand.New(rand.NewPCG(1, 2))
	plain := make([]byte, 100_000)
	for i := range plain {
		plain[i] = byte(1 + random.IntN(255))
	}
	label := Label("20261121120000")
	putPack(ctx, t, r, PackName(label, 1), plain)
	var extents []Extent
	file := make([]byte, 200_000)
	for at := 0; ; {
		at += random.IntN(300) // a hole, or none
		n := 1 + random.IntN(300)
		if at+n > len(file)-300 {
			break
		}
		skip := random.IntN(len(plain) - n)
		extents = append(extents, Extent{Offset: int64(at), Length: int64(n), Skip: int64(skip)})
		copy(file[at:], plain[skip:skip+n])
		at += n
	}
	set := r.PackSet([]PackRef{{Name: PackName(label, 1)}}, 1)
	defer set.Close()
	var s container.Scratch
	defer s.Close()
	for range 500 {
		at := random.IntN(len(file))
		got := make([]byte, min(1+random.IntN(1000), len(file)-at))
		if err := set.ReadAt(ctx, extents, got, int64(at), &s); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, file[at:at+len(got)]) {
			t.Fatalf("%d bytes at %d differ", len(got), at)
		}
	}
}

func putPack(ctx context.Context, t *testing.T, r *Repository, name string, plain []byte) {
	t.Helper()
	stage, err := r.Engine().Stage(ctx, OwnerJob)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = stage.Abort() }()
	up, err := stage.Create(ctx, name)
	if err != nil {
		t.Fatal(err)
	}
	w, err := container.NewStreamWriter(up, container.Header{Kind: container.Pack, Codec: container.Zstd}, 1)
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.Write(plain)
	if err := errors.Join(err, w.Finish(), up.Close(), stage.Commit(ctx)); err != nil {
		t.Fatal(err)
	}
}
