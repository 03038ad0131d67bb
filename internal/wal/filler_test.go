package wal

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/container"
	"github.com/pgmoneta/pgmoneta-go/internal/pg"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
	"github.com/pgmoneta/pgmoneta-go/internal/walpage"
)

// pages returns a segment of 1 MiB of nothing but page headers.
func pages(system uint64, tli pg.Timeline, start pg.LSN) []byte {
	var b []byte
	for at := 0; at < mib; at += 8192 {
		h := walpage.Header{Magic: 0xD116, Timeline: tli, Address: start + pg.LSN(at)}
		if at == 0 {
			h.Info, h.System, h.SegmentSize, h.BlockSize = walpage.LongHeader, system, mib, 8192
		}
		b = append(h.Append(b), make([]byte, 8192)...)[:at+8192]
	}
	return b
}

// holed returns a repository of system 42 that has segment 1 and lacks 2 to 6 of timeline 1.
func holed(t *testing.T) (*repo.Repository, repo.Hole) {
	t.Helper()
	ctx := context.Background()
	r := newRepo(t)
	if err := r.Bind(ctx, repo.OwnerWAL, "42"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.StoreSegment(ctx, pg.SegmentName(1, mib, mib), mib, bytes.NewReader(pages(42, 1, mib)), container.Zstd, 1); err != nil {
		t.Fatal(err)
	}
	h := repo.Hole{Timeline: 1, From: 2*mib + 0x100, To: 7 * mib, Cause: repo.CauseRemoved, By: "test", NoticedAt: time.Now().UTC().Truncate(time.Second)}
	if err := r.RecordHole(ctx, h); err != nil {
		t.Fatal(err)
	}
	return r, h
}

func newFiller(t *testing.T, r *repo.Repository) *Filler {
	return &Filler{Repo: r, Dir: t.TempDir(), Codec: container.Zstd, Level: 1, Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Every: 10 * time.Millisecond}
}

// archived puts a file into the directory, compressed by the program that its suffix belongs to.
func archived(t *testing.T, f *Filler, name string, plain []byte) {
	t.Helper()
	programs := map[string][]string{".gz": {"gzip"}, ".zst": {"zstd", "-q", "--rm"}, ".lz4": {"lz4", "-q", "--rm", "-m"}, ".bz2": {"bzip2"}}
	suffix := filepath.Ext(name)
	path := filepath.Join(f.Dir, strings.TrimSuffix(name, suffix))
	if err := os.WriteFile(path, plain, 0o600); err != nil {
		t.Fatal(err)
	}
	if program := programs[suffix]; program != nil {
		if out, err := exec.Command(program[0], append(program[1:], path)...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v: %s", program, err, out)
		}
	}
}

func TestFillerTakesSegmentsOfEveryForm(t *testing.T) {
	t.Parallel()
	r, h := holed(t)
	f := newFiller(t, r)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); f.Run(ctx) }()
	defer func() { cancel(); <-done }()
	for i, suffix := range []string{"", ".gz", ".zst", ".lz4", ".bz2"} {
		start := pg.LSN(i+2) * mib
		archived(t, f, pg.SegmentName(1, start, mib)+suffix, pages(42, 1, start))
	}
	archived(t, f, "unrelated", nil)
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		holes, err := r.Holes(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if len(holes) == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("still recorded: %v", holes)
		}
	}
	for at := h.From; at < h.To; at += mib {
		want := walpage.Want{System: 42, Timeline: 1, Start: pg.SegmentSize(mib).Start(at), Size: mib}
		if err := r.CheckSegment(ctx, pg.SegmentName(1, want.Start, mib), want); err != nil {
			t.Error(err)
		}
	}
}

func TestFillerTakesNothingThatIsNotWhatItsNameSays(t *testing.T) {
	t.Parallel()
	good := pages(42, 1, 3*mib)
	packed := func(n int) []byte {
		cmd := exec.Command("zstd", "-q", "-c")
		cmd.Stdin = bytes.NewReader(good)
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		return out[:len(out)-n]
	}
	page := bytes.Clone(good)
	copy(page[63*8192:], pages(42, 1, 4*mib)[63*8192:64*8192])
	segment := pg.SegmentName(1, 3*mib, mib)
	for _, tt := range []struct {
		name    string
		file    string
		content []byte
	}{
		{"another cluster", segment, pages(43, 1, 3*mib)},
		{"another segment under this name", segment, pages(42, 1, 4*mib)},
		{"a later timeline", segment, pages(42, 2, 3*mib)},
		{"one wrong page", segment, page},
		{"too short", segment, good[:len(good)-8192]},
		{"too long", segment, append(bytes.Clone(good), 0)},
		{"empty", segment, nil},
		{"zeros", segment, make([]byte, mib)},
		{"no zstd", segment + ".zst", good},
		{"zstd cut short", segment + ".zst", packed(20)},
		{"zstd under the name of gzip", segment + ".gz", packed(0)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			ctx := context.Background()
			r, h := holed(t)
			f := newFiller(t, r)
			if err := os.WriteFile(filepath.Join(f.Dir, tt.file), tt.content, 0o600); err != nil {
				t.Fatal(err)
			}
			archived(t, f, pg.SegmentName(1, 4*mib, mib), pages(42, 1, 4*mib))
			if err := f.fill(ctx); err == nil || !strings.Contains(err.Error(), filepath.Join(f.Dir, tt.file)) {
				t.Errorf("fill = %v, want an error that names %s", err, tt.file)
			}
			listing, err := r.ListWAL(ctx)
			if err != nil || len(listing.Segments) != 2 || listing.Segments[1] != pg.SegmentName(1, 4*mib, mib) {
				t.Errorf("stored: %v, %v; want the good one alone", listing.Segments, err)
			}
			if holes, err := r.Holes(ctx); err != nil || len(holes) != 1 || holes[0] != h {
				t.Errorf("holes %v, %v", holes, err)
			}
			if left, err := os.ReadDir(filepath.Join(r.Dir(), "tmp", repo.OwnerWAL)); err == nil && len(left) > 0 || err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("left behind: %v, %v", left, err)
			}
		})
	}
}
