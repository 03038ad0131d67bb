package repo

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/container"
	"github.com/pgmoneta/pgmoneta-go/internal/durable"
	"github.com/pgmoneta/pgmoneta-go/internal/pg"
	"github.com/pgmoneta/pgmoneta-go/internal/walpage"
)

const mib = 1 << 20

func someHole() Hole {
	return Hole{Timeline: 1, From: 5 * mib, To: 7 * mib, Cause: CauseRemoved, By: "wal receiver",
		NoticedAt: time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)}
}

func mustHoles(t *testing.T, r *Repository, want ...Hole) {
	t.Helper()
	list, err := r.Holes(context.Background())
	if err != nil || len(list) != len(want) {
		t.Fatalf("Holes = %v, %v; want %v", list, err, want)
	}
	for i := range want {
		if list[i] != want[i] {
			t.Errorf("hole %d is %+v, want %+v", i, list[i], want[i])
		}
	}
}

// walPages is a segment of nothing but page headers.
func walPages(tli pg.Timeline, start pg.LSN) []byte {
	var b []byte
	for at := 0; at < mib; at += 8192 {
		h := walpage.Header{Magic: 0xD116, Timeline: tli, Address: start + pg.LSN(at)}
		if at == 0 {
			h.Info, h.System, h.SegmentSize, h.BlockSize = walpage.LongHeader, 42, mib, 8192
		}
		b = append(h.Append(b), make([]byte, 8192)...)[:at+8192]
	}
	return b
}

func storePages(t *testing.T, r *Repository, tli pg.Timeline, n int) {
	t.Helper()
	start := pg.LSN(n) * mib
	name := pg.SegmentName(tli, start, mib)
	if _, err := r.StoreSegment(context.Background(), name, mib, bytes.NewReader(walPages(tli, start)), container.Zstd, 1); err != nil {
		t.Fatal(err)
	}
}

func TestHolesAreRecordedOnce(t *testing.T) {
	ctx := context.Background()
	r := open(t, durable.OS{}, t.TempDir())
	mustHoles(t, r)
	a, b, c := someHole(), someHole(), someHole()
	b.From = 9 * mib
	b.To = 0x1_0000_0000_0000
	c.Timeline = 11
	again := a
	again.Cause, again.By = CauseDamaged, "wal check"
	var wg sync.WaitGroup
	for _, h := range []Hole{c, b, a, a, c, b} {
		wg.Go(func() {
			if err := r.RecordHole(ctx, h); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if err := r.RecordHole(ctx, again); err != nil {
		t.Fatal(err)
	}
	mustHoles(t, r, a, b, c)
	if _, err := os.Stat(filepath.Join(r.Dir(), "hole/0000000B/0000000000500000-0000000000700000")); err != nil {
		t.Errorf("name of the object: %v", err)
	}
	if entries, err := os.ReadDir(filepath.Join(r.Dir(), "tmp", OwnerHole)); err == nil && len(entries) > 0 {
		t.Errorf("left behind: %v", entries)
	}
}

func TestRecordHoleRefusesWhatIsNoRange(t *testing.T) {
	r := open(t, durable.OS{}, t.TempDir())
	for _, h := range []Hole{{From: 1, To: 2}, {Timeline: 1, From: 2, To: 2}, {Timeline: 1, From: 3, To: 2}} {
		if err := r.RecordHole(context.Background(), h); err == nil {
			t.Errorf("%s was recorded", h)
		}
	}
	mustHoles(t, r)
}

// The range stands in the name, so that no damage to the object hides a hole.
func TestDamagedHoleObjectsStillCount(t *testing.T) {
	ctx := context.Background()
	r := open(t, durable.OS{}, t.TempDir())
	if err := r.RecordHole(ctx, someHole()); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(r.Dir(), someHole().object())
	for _, content := range []string{"", "garbage", `{"timeline":2,"from_lsn":"0/500000","to_lsn":"0/700000"}`, strings.Repeat(" ", holeLimit+1)} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		list, err := r.Holes(ctx)
		if err != nil || len(list) != 1 || list[0].Err == nil || list[0].Cause != CauseUnknown || list[0].From != 5*mib || list[0].To != 7*mib || list[0].Timeline != 1 {
			t.Errorf("%.20q: Holes = %+v, %v", content, list, err)
		}
	}
	for _, stray := range []string{"hole/readme", "hole/00000001/x", "hole/00000001/0000000000700000-0000000000500000", "hole/0000000b/0000000000500000-0000000000700000"} {
		path := filepath.Join(r.Dir(), stray)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, nil, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	if list, err := r.Holes(ctx); err != nil || len(list) != 1 {
		t.Errorf("with strays: %v, %v", list, err)
	}
}

func TestFillHoleChecksEverySegment(t *testing.T) {
	ctx := context.Background()
	r := open(t, durable.OS{}, t.TempDir())
	if err := r.Bind(ctx, OwnerWAL, "42"); err != nil {
		t.Fatal(err)
	}
	h := someHole()
	if err := r.RecordHole(ctx, h); err != nil {
		t.Fatal(err)
	}
	stays := func(segment string) {
		t.Helper()
		var still *OpenHoleError
		if err := r.FillHole(ctx, h, mib); !errors.As(err, &still) || still.Segment != segment {
			t.Errorf("FillHole = %v; want one that names %s", err, segment)
		}
		mustHoles(t, r, h)
	}
	stays("000000010000000000000005")
	storePages(t, r, 1, 5)
	stays("000000010000000000000006")
	storePages(t, r, 1, 6)
	mustHoles(t, r) // storing the last one filled it
	if err := r.RecordHole(ctx, h); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(r.Dir(), "wal/00000001/000000010000000000000006")
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	damaged := bytes.Clone(content)
	damaged[100] ^= 1
	if err := os.WriteFile(path, damaged, 0o600); err != nil {
		t.Fatal(err)
	}
	stays("000000010000000000000006")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time there is none
		if err := r.FillHole(ctx, h, mib); err != nil {
			t.Fatal(err)
		}
		mustHoles(t, r)
	}
}

// Whoever stores the last segment of a hole removes its record, and no other.
func TestStoringSegmentsFillsHoles(t *testing.T) {
	ctx := context.Background()
	r := open(t, durable.OS{}, t.TempDir())
	if err := r.Bind(ctx, OwnerWAL, "42"); err != nil {
		t.Fatal(err)
	}
	long, inside, other, foreign := someHole(), someHole(), someHole(), someHole()
	long.From = 3*mib + 0x100
	long.To = 6 * mib
	inside.From, inside.To = 4*mib+8, 4*mib+16
	other.From, other.To = 7*mib, 8*mib
	foreign.Timeline = 2
	for _, h := range []Hole{long, inside, other, foreign} {
		if err := r.RecordHole(ctx, h); err != nil {
			t.Fatal(err)
		}
	}
	storePages(t, r, 1, 5)
	mustHoles(t, r, long, inside, other, foreign)
	storePages(t, r, 1, 4)
	mustHoles(t, r, long, other, foreign)
	storePages(t, r, 1, 3)
	mustHoles(t, r, other, foreign)
	storePages(t, r, 1, 8) // beside one
	mustHoles(t, r, other, foreign)
}

func TestFillHoleTakesTheCopyOnTheNextTimeline(t *testing.T) {
	ctx := context.Background()
	r := open(t, durable.OS{}, t.TempDir())
	if err := r.StoreHistory(ctx, 2, []byte("1\t0/680000\tx\n")); err != nil {
		t.Fatal(err)
	}
	upToSwitch, past := someHole(), someHole()
	upToSwitch.To = 0x680000
	for _, h := range []Hole{upToSwitch, past} {
		if err := r.RecordHole(ctx, h); err != nil {
			t.Fatal(err)
		}
	}
	storePages(t, r, 1, 5)
	storePages(t, r, 2, 6)
	if err := r.FillHole(ctx, upToSwitch, mib); err != nil {
		t.Error(err)
	}
	if err := r.FillHole(ctx, past, mib); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("bytes after the switch are on timeline 1 only: %v", err)
	}
	mustHoles(t, r, past)
}

func TestCheckSegmentTellsWhatIsWrong(t *testing.T) {
	ctx := context.Background()
	r := open(t, durable.OS{}, t.TempDir())
	storePages(t, r, 1, 5)
	const name = "000000010000000000000005"
	want := walpage.Want{System: 42, Timeline: 1, Start: 5 * mib, Size: mib}
	if err := r.CheckSegment(ctx, name, want); err != nil {
		t.Errorf("a good one: %v", err)
	}
	var page *walpage.PageError
	want.System = 43
	if err := r.CheckSegment(ctx, name, want); !errors.As(err, &page) {
		t.Errorf("another cluster: %v", err)
	}
	var length *walpage.LengthError
	want.Size = 2 * mib
	if err := r.CheckSegment(ctx, name, want); !errors.As(err, &length) {
		t.Errorf("another size: %v", err)
	}
	stopped, cancel := context.WithCancelCause(ctx)
	why := errors.New("stopped")
	cancel(why)
	want.Size = mib
	if err := r.CheckSegment(stopped, name, want); !errors.Is(err, why) {
		t.Errorf("stopped: %v", err)
	}
}

// A hole that was reported as recorded is there after a power cut, and one cut
// short leaves nothing that can be mistaken for one.
func TestHoleSurvivesPowerCut(t *testing.T) {
	ctx := context.Background()
	for cut := 1; ; cut++ {
		root := t.TempDir()
		fsys, err := durable.NewPowerCut(root, cut)
		if err != nil {
			t.Fatal(err)
		}
		r, err := Open(fsys, root, "primary")
		if err == nil {
			err = r.RecordHole(ctx, someHole())
		}
		recorded := err == nil
		if recorded {
			fsys.Cut()
		}
		after := t.TempDir()
		if err := fsys.Image(after); err != nil {
			t.Fatal(err)
		}
		list, err := open(t, durable.OS{}, after).Holes(ctx)
		if err != nil || recorded && len(list) != 1 || len(list) == 1 && list[0] != someHole() {
			t.Fatalf("cut %d, recorded %v: %+v, %v", cut, recorded, list, err)
		}
		if recorded {
			return
		}
	}
}

func FuzzHole(f *testing.F) {
	f.Add("hole/00000001/0000000000500000-0000000000700000", []byte(`{"timeline":1,"from_lsn":"0/500000","to_lsn":"0/700000","cause":"damaged","noticed_at":"2026-11-21T12:00:00Z","by":"wal check"}`))
	f.Add("hole/00000001/0000000000500000-0000000000700000", []byte(`{"timeline":1,"from_lsn":5}`))
	f.Add("hole/FFFFFFFF/0000000000000000-FFFFFFFFFFFFFFFF", []byte(`null`))
	f.Fuzz(func(t *testing.T, name string, content []byte) {
		named, ok := parseHoleName(name)
		if !ok {
			return
		}
		if named.object() != name {
			t.Errorf("%q stands for %s, whose name is %q", name, named, named.object())
		}
		h, err := parseHole(named, content)
		if err == nil && h.object() != name {
			t.Errorf("content of %q is about %s", name, h)
		}
	})
}
