package walcheck

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/container"
	"github.com/pgmoneta/pgmoneta-go/internal/durable"
	"github.com/pgmoneta/pgmoneta-go/internal/pg"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
	"github.com/pgmoneta/pgmoneta-go/internal/walpage"
)

const (
	mib    = 1 << 20
	system = 7710649025785056541
)

// An archive is made by hand.
type archive struct {
	t testing.TB
	*repo.Repository
}

func newArchive(t testing.TB) *archive {
	t.Helper()
	r, err := repo.Open(durable.OS{}, t.TempDir(), "primary")
	if err != nil {
		t.Fatal(err)
	}
	a := &archive{t, r}
	a.must(r.Bind(context.Background(), repo.OwnerWAL, fmt.Sprint(system)))
	return a
}

func (a *archive) must(err error) {
	a.t.Helper()
	if err != nil {
		a.t.Fatal(err)
	}
}

func name(tli pg.Timeline, n int) string { return pg.SegmentName(tli, pg.LSN(n)*mib, mib) }

// pages returns segment n, of which the first used pages hold something.
func pages(tli pg.Timeline, n, used int) []byte {
	const block = 8192
	b := make([]byte, 0, mib)
	for i := range used {
		h := walpage.Header{Magic: 0xD116, Timeline: tli, Address: pg.LSN(n*mib + i*block)}
		if i == 0 {
			h.Info, h.System, h.SegmentSize, h.BlockSize = walpage.LongHeader, system, mib, block
		}
		b = h.Append(b)
		for len(b) < (i+1)*block {
			b = append(b, byte(n+i)|1)
		}
	}
	return b[:mib]
}

// store stores content as segment n.
func (a *archive) store(tli pg.Timeline, n int, content []byte) {
	a.t.Helper()
	size := pg.SegmentSize(len(content))
	_, err := a.StoreSegment(context.Background(), name(tli, n), size, bytes.NewReader(content), container.Zstd, 1)
	a.must(err)
}

// segments stores segments first to last of a timeline.
func (a *archive) segments(tli pg.Timeline, first, last int) {
	a.t.Helper()
	for n := first; n <= last; n++ {
		a.store(tli, n, pages(tli, n, 128))
	}
}

// receive puts a file into the receive directory.
func (a *archive) receive(name string, content []byte) {
	a.t.Helper()
	a.must(os.MkdirAll(a.ReceiveDir(), 0o700))
	a.must(os.WriteFile(filepath.Join(a.ReceiveDir(), name), content, 0o600))
}

// history stores a history from lines "ancestor LSN".
func (a *archive) history(tli pg.Timeline, lines ...string) {
	a.t.Helper()
	text := strings.ReplaceAll(strings.Join(lines, "\n"), " ", "\t")
	a.must(a.StoreHistory(context.Background(), tli, []byte(text+"\treason\n")))
}

func (a *archive) path(tli pg.Timeline, n int) string {
	return filepath.Join(a.Dir(), "wal", fmt.Sprintf("%08X", uint32(tli)), name(tli, n))
}

// remove removes a stored segment.
func (a *archive) remove(tli pg.Timeline, n int) {
	a.t.Helper()
	a.must(os.Remove(a.path(tli, n)))
}

// flip changes a byte in the middle of a stored segment's frames.
func (a *archive) flip(tli pg.Timeline, n int) {
	a.t.Helper()
	b, err := os.ReadFile(a.path(tli, n))
	a.must(err)
	b[100] ^= 0x40
	a.must(os.WriteFile(a.path(tli, n), b, 0o600))
}

func (a *archive) check(o Options) Report {
	a.t.Helper()
	o.Now = func() time.Time { return time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC) }
	report, err := Check(context.Background(), a.Repository, o)
	if err != nil {
		a.t.Fatal(err)
	}
	return report
}

// branched is a good archive of three timelines, one of which was left behind.
// Timeline 1 was left at 9.5 by 2 and at 11.25 by 3; it goes on in segment 13.
func branched(t testing.TB) *archive {
	t.Helper()
	a := newArchive(t)
	a.must(os.CopyFS(filepath.Join(a.Dir(), "wal"), os.DirFS(filepath.Join(template, "wal"))))
	a.must(os.CopyFS(a.ReceiveDir(), os.DirFS(filepath.Join(template, "receive"))))
	return a
}

// template is where the archive of branched was made; every test has a copy.
var template string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "walcheck-")
	if err != nil {
		panic(err)
	}
	template = filepath.Join(dir, "primary")
	makeBranched(dir)
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

func makeBranched(dir string) {
	r, err := repo.Open(durable.OS{}, dir, "primary")
	if err != nil {
		panic(err)
	}
	a := &archive{fatal{}, r}
	a.segments(1, 3, 11)
	a.receive(name(1, 12), pages(1, 12, 128))
	a.receive(name(1, 13)+".partial", pages(1, 13, 20))
	a.history(2, "1 0/980000")
	a.store(2, 9, pages(2, 9, 128))
	a.store(2, 10, pages(2, 10, 7)) // ended by a switch
	a.segments(2, 11, 11)
	a.receive(name(2, 12)+".partial", make([]byte, mib)) // nothing has arrived
	a.history(3, "1 0/B40000")
	a.segments(3, 11, 12)
}

// fatal stands in for a test before there is one.
type fatal struct{ testing.TB }

func (fatal) Helper()           {}
func (fatal) Fatal(args ...any) { panic(fmt.Sprint(args...)) }

func TestGoodArchive(t *testing.T) {
	t.Parallel()
	for _, deep := range []bool{false, true} {
		a := branched(t)
		report := a.check(Options{Deep: deep, Record: true, Workers: 3})
		if !report.OK() || report.Holes != 0 || report.New != 0 {
			t.Errorf("deep %v: %s", deep, report.Summary())
		}
		want := []Range{
			{1, 3 * mib, 13*mib + 20*8192, 11}, {2, 9 * mib, 12 * mib, 3}, {3, 11 * mib, 13 * mib, 2},
		}
		if !slices.Equal(report.Ranges, want) {
			t.Errorf("deep %v: ranges %+v, want %+v", deep, report.Ranges, want)
		}
		read := int64(0)
		if deep {
			read = 15*mib + 20*8192
		}
		if report.Segments != 14 || report.Received != 1 || report.Partial != 2 || report.Histories != 2 || report.Read != read || report.SegmentSize != mib {
			t.Errorf("deep %v: %+v", deep, report)
		}
	}
}

func TestEmptyArchive(t *testing.T) {
	t.Parallel()
	r, err := repo.Open(durable.OS{}, t.TempDir(), "primary")
	if err != nil {
		t.Fatal(err)
	}
	if report, err := Check(context.Background(), r, Options{Deep: true, Record: true}); err != nil || !report.OK() {
		t.Errorf("Check = %+v, %v", report, err)
	}
}

func TestFindings(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		deep  bool // what only a deep check finds
		harm  func(a *archive)
		want  Finding // Message is a part of it
		holes []string
	}{
		{"a segment is missing", false, func(a *archive) { a.remove(1, 5) },
			Finding{Kind: Missing, Timeline: 1, From: 5 * mib, To: 6 * mib, Segment: name(1, 5), Message: "segment " + name(1, 5)},
			[]string{"timeline 1 from 0/500000 to 0/600000: segment missing"}},
		{"several are missing", false, func(a *archive) { a.remove(1, 5); a.remove(1, 6) },
			Finding{Kind: Missing, Timeline: 1, From: 5 * mib, To: 7 * mib, Segment: name(1, 5), Message: "2 WAL segments are missing, " + name(1, 5) + " to " + name(1, 6)},
			[]string{"timeline 1 from 0/500000 to 0/700000: segment missing"}},
		{"the segment with the switch is missing", false, func(a *archive) { a.remove(2, 9) },
			Finding{Kind: Missing, Timeline: 2, From: 9*mib + mib/2, To: 10 * mib, Segment: name(2, 9)},
			[]string{"timeline 2 from 0/980000 to 0/A00000: segment missing"}},
		{"on the branch that was left", false, func(a *archive) { a.remove(1, 11) },
			Finding{Kind: Missing, Timeline: 1, From: 11 * mib, To: 12 * mib, Segment: name(1, 11)},
			[]string{"timeline 1 from 0/B00000 to 0/C00000: segment missing"}},
		{"the one before what is being received", false, func(a *archive) { a.must(os.Remove(filepath.Join(a.ReceiveDir(), name(1, 12)))) },
			Finding{Kind: Missing, Timeline: 1, From: 12 * mib, To: 13 * mib, Segment: name(1, 12)},
			[]string{"timeline 1 from 0/C00000 to 0/D00000: segment missing"}},
		{"flipped byte", true, func(a *archive) { a.flip(1, 5) },
			Finding{Kind: Damaged, Timeline: 1, From: 5 * mib, To: 6 * mib, Segment: name(1, 5), Message: "wal/00000001/" + name(1, 5) + " is damaged: frame 0"},
			[]string{"timeline 1 from 0/500000 to 0/600000: damaged"}},
		{"cut off", false, func(a *archive) { a.must(os.Truncate(a.path(1, 5), 200)) },
			Finding{Kind: Damaged, Timeline: 1, From: 5 * mib, To: 6 * mib, Segment: name(1, 5)},
			[]string{"timeline 1 from 0/500000 to 0/600000: damaged"}},
		{"no container", false, func(a *archive) { a.must(os.WriteFile(a.path(1, 5), pages(1, 5, 128), 0o600)) },
			Finding{Kind: Damaged, Timeline: 1, From: 5 * mib, To: 6 * mib, Segment: name(1, 5), Message: "container"},
			[]string{"timeline 1 from 0/500000 to 0/600000: damaged"}},
		{"wrong size", false, func(a *archive) { a.remove(1, 5); a.store(1, 5, pages(1, 5, 128)[:mib/2]) },
			Finding{Kind: WrongSize, Timeline: 1, From: 5 * mib, To: 6 * mib, Segment: name(1, 5), Message: "it has 524288 bytes, want 1048576"},
			[]string{"timeline 1 from 0/500000 to 0/600000: damaged"}},
		{"wrong size, received", false, func(a *archive) { a.receive(name(1, 12), pages(1, 12, 128)[:100]) },
			Finding{Kind: WrongSize, Timeline: 1, From: 12 * mib, To: 13 * mib, Segment: name(1, 12), Message: "it has 100 bytes"},
			[]string{"timeline 1 from 0/C00000 to 0/D00000: damaged"}},
		{"of another cluster", true, func(a *archive) {
			b := pages(1, 5, 128)
			b[24]++
			a.remove(1, 5)
			a.store(1, 5, b)
		}, Finding{Kind: WrongPage, Timeline: 1, From: 5 * mib, To: 6 * mib, Segment: name(1, 5), Message: "system identifier"},
			[]string{"timeline 1 from 0/500000 to 0/600000: damaged"}},
		{"another segment under its name", true, func(a *archive) { a.remove(1, 5); a.store(1, 5, pages(1, 6, 128)) },
			Finding{Kind: WrongPage, Timeline: 1, From: 5 * mib, To: 6 * mib, Segment: name(1, 5), Message: "it is the page of 0/600000, want 0/500000"},
			[]string{"timeline 1 from 0/500000 to 0/600000: damaged"}},
		{"wrong page address", true, func(a *archive) {
			b := pages(1, 5, 128)
			b[3*8192+9] ^= 1
			a.remove(1, 5)
			a.store(1, 5, b)
		}, Finding{Kind: WrongPage, Timeline: 1, From: 5 * mib, To: 6 * mib, Segment: name(1, 5), Message: "page 3 at offset 24576 (0/506000)"},
			[]string{"timeline 1 from 0/500000 to 0/600000: damaged"}},
		{"of a later timeline", true, func(a *archive) {
			a.must(os.Remove(filepath.Join(a.ReceiveDir(), name(1, 12))))
			a.receive(name(1, 12), pages(2, 12, 128))
		}, Finding{Kind: WrongPage, Timeline: 1, From: 12 * mib, To: 13 * mib, Segment: name(1, 12), Message: "timeline 2, want 1"},
			[]string{"timeline 1 from 0/C00000 to 0/D00000: damaged"}},
		{"what is being received", true, func(a *archive) { a.receive(name(1, 13)+".partial", pages(1, 12, 20)) },
			Finding{Kind: WrongPage, Timeline: 1, From: 13 * mib, To: 14 * mib, Segment: name(1, 13)}, nil},
		{"written by a newer server", true, func(a *archive) {
			b := pages(1, 5, 128)
			b[0] = 0xFE
			a.remove(1, 5)
			a.store(1, 5, b)
		}, Finding{Kind: Unreadable, Timeline: 1, From: 5 * mib, To: 6 * mib, Segment: name(1, 5), Message: "version this program does not know"}, nil},
		{"no file", false, func(a *archive) { a.remove(1, 5); a.must(os.Mkdir(a.path(1, 5), 0o700)) },
			Finding{Kind: Missing, Timeline: 1, From: 5 * mib, To: 6 * mib, Segment: name(1, 5)},
			[]string{"timeline 1 from 0/500000 to 0/600000: segment missing"}},
		{"impossible name", false, func(a *archive) {
			a.must(os.WriteFile(filepath.Join(a.Dir(), "wal/00000001/000000010000000000001000"), nil, 0o600))
		}, Finding{Kind: Misplaced, Segment: "000000010000000000001000", Message: "impossible"}, nil},
		{"before the timeline begins", false, func(a *archive) { a.segments(3, 10, 10) },
			Finding{Kind: Misplaced, Timeline: 3, From: 10 * mib, To: 11 * mib, Segment: name(3, 10), Message: "begins at 0/B40000"}, nil},
		{"history is missing", false, func(a *archive) { a.must(os.Remove(filepath.Join(a.Dir(), "wal/00000003.history"))) },
			Finding{Kind: BadHistory, Timeline: 3, Message: "00000003.history is not stored"}, nil},
		{"history is garbage", false, func(a *archive) {
			a.must(os.WriteFile(filepath.Join(a.Dir(), "wal/00000003.history"), []byte("garbage\n"), 0o600))
		}, Finding{Kind: BadHistory, Timeline: 3, Message: "garbage"}, nil},
		{"histories disagree", false, func(a *archive) { a.history(4, "1 0/980001", "2 0/C00000") },
			Finding{Kind: BadHistory, Timeline: 4, Message: "00000004.history and 00000002.history disagree about the ancestors of timeline 2"}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			a := branched(t)
			tt.harm(a)
			if tt.deep {
				if report := a.check(Options{Record: true}); !report.OK() {
					t.Errorf("a quick check finds %s", report.Summary())
				}
			}
			for _, again := range []bool{false, true} { // the second time the hole is recorded already
				report := a.check(Options{Deep: tt.deep, Record: true})
				want := tt.want
				want.Recorded = len(tt.holes) > 0
				if len(report.Findings) != 1 || !strings.Contains(report.Findings[0].Message, want.Message) {
					t.Fatalf("findings:\n%s\nwant %s", report.Summary(), want)
				}
				want.Message = report.Findings[0].Message
				if report.Findings[0] != want {
					t.Errorf("finding %+v, want %+v", report.Findings[0], want)
				}
				wantNew := len(tt.holes)
				if again {
					wantNew = 0
				}
				if report.Holes != len(tt.holes) || report.New != wantNew || report.Filled != 0 {
					t.Errorf("again %v: %d holes, %d new, %d filled", again, report.Holes, report.New, report.Filled)
				}
			}
			holes, err := a.Holes(context.Background())
			var texts []string
			for _, h := range holes {
				texts = append(texts, h.String())
			}
			if err != nil || !slices.Equal(texts, tt.holes) {
				t.Errorf("recorded: %v, %v; want %v", texts, err, tt.holes)
			}
		})
	}
}

// A flipped bit may make a decoder run out of input, or a length impossible: that
// is damage, and no wrong size. A few bits are padding that no decoder reads.
func TestFlippedBitsAreDamage(t *testing.T) {
	t.Parallel()
	a := newArchive(t)
	a.segments(1, 1, 1)
	good, err := os.ReadFile(a.path(1, 1))
	a.must(err)
	unread := 0
	for at := 0; at < len(good); at += max(1, len(good)/150) {
		b := bytes.Clone(good)
		b[at] ^= 1
		a.must(os.WriteFile(a.path(1, 1), b, 0o600))
		err := a.CheckSegment(context.Background(), name(1, 1), walpage.Want{System: system, Timeline: 1, Start: mib, Size: mib})
		if err != nil && kindOf(err) != Damaged {
			t.Errorf("byte %d of %d: kind %q, %v", at, len(good), kindOf(err), err)
		}
		if err == nil {
			unread++
		}
	}
	if unread > 5 {
		t.Errorf("%d of 150 bits were flipped unnoticed", unread)
	}
}

func TestNothingIsChangedUnlessAsked(t *testing.T) {
	t.Parallel()
	a := branched(t)
	a.remove(1, 5)
	h := repo.Hole{Timeline: 1, From: 7 * mib, To: 8 * mib, Cause: repo.CauseDamaged}
	a.must(a.RecordHole(context.Background(), h))
	report := a.check(Options{Deep: true})
	if len(report.Findings) != 2 || report.Findings[0].Recorded || report.Findings[1].Kind != Recorded || report.Holes != 1 {
		t.Errorf("report:\n%s", report.Summary())
	}
	if holes, err := a.Holes(context.Background()); err != nil || len(holes) != 1 || holes[0].From != h.From {
		t.Errorf("holes %v, %v", holes, err)
	}
}

func TestNeighboursThatAreDamagedAreOneHole(t *testing.T) {
	t.Parallel()
	a := branched(t)
	a.flip(1, 5)
	a.flip(1, 6)
	a.flip(1, 8)
	report := a.check(Options{Deep: true, Record: true})
	if len(report.Findings) != 3 || report.Holes != 2 || report.New != 2 {
		t.Errorf("report:\n%s", report.Summary())
	}
}

func TestRecordedHoleIsForgottenWhenItsWALIsBack(t *testing.T) {
	t.Parallel()
	a := branched(t)
	aside := filepath.Join(t.TempDir(), "aside")
	a.must(os.Rename(a.path(1, 5), aside))
	if report := a.check(Options{Record: true}); report.New != 1 {
		t.Fatalf("report:\n%s", report.Summary())
	}
	a.must(os.Rename(aside, a.path(1, 5))) // not stored: who stores it removes the record
	// Without reading nobody knows whether what came back is whole.
	if report := a.check(Options{Record: true}); len(report.Findings) != 1 || report.Findings[0].Kind != Recorded || report.Filled != 0 ||
		!strings.Contains(report.Findings[0].Message, "segment missing, recorded 2026-11-21 12:00:00Z by wal check") {
		t.Errorf("quick:\n%s", report.Summary())
	}
	if report := a.check(Options{Deep: true, Record: true}); !report.OK() || report.Filled != 1 || report.Holes != 0 {
		t.Errorf("deep:\n%s", report.Summary())
	}
}

func TestHoleAtTheEndStaysRecorded(t *testing.T) {
	t.Parallel()
	a := branched(t)
	lost := repo.Hole{Timeline: 3, From: 13 * mib, To: 20 * mib, Cause: repo.CauseSlotLost, By: "wal receiver"}
	a.must(a.RecordHole(context.Background(), lost))
	for range 2 {
		report := a.check(Options{Deep: true, Record: true})
		if len(report.Findings) != 1 || report.Findings[0].Kind != Recorded || report.Findings[0].To != 20*mib || report.Filled != 0 {
			t.Errorf("report:\n%s", report.Summary())
		}
	}
	a.segments(3, 20, 20) // streaming goes on behind it
	report := a.check(Options{Deep: true, Record: true})
	if len(report.Findings) != 1 || report.Findings[0].Kind != Missing || !report.Findings[0].Recorded || report.New != 0 || report.Holes != 1 {
		t.Errorf("report:\n%s", report.Summary())
	}
}

// A receiver that jumps records from the byte it had received to, which may lie
// within a segment, and a check sees where the bytes of that segment end.
func TestHoleThatBeginsInsideASegmentIsTheSame(t *testing.T) {
	t.Parallel()
	a := newArchive(t)
	a.segments(1, 1, 4)
	a.receive(name(1, 5)+".partial", pages(1, 5, 20))
	a.segments(1, 9, 9)
	a.must(a.RecordHole(context.Background(), repo.Hole{Timeline: 1, From: 5*mib + 20*8192 + 4000, To: 9 * mib, Cause: repo.CauseRemoved}))
	report := a.check(Options{Deep: true, Record: true})
	if len(report.Findings) != 1 || !report.Findings[0].Recorded || report.New != 0 || report.Holes != 1 {
		t.Errorf("report:\n%s", report.Summary())
	}
	// More is missing than the receiver noticed.
	a.remove(1, 9)
	a.segments(1, 10, 10)
	report = a.check(Options{Deep: true, Record: true})
	if len(report.Findings) != 1 || !report.Findings[0].Recorded || report.Holes <= 1 {
		t.Errorf("report:\n%s", report.Summary())
	}
}

// A segment that waits for its sync while the next is being filled is complete.
// The server may have ended it early.
func TestPartialSegmentBeforeAnotherIsComplete(t *testing.T) {
	t.Parallel()
	a := newArchive(t)
	a.segments(1, 1, 2)
	a.receive(name(1, 3)+".partial", pages(1, 3, 20))
	a.receive(name(1, 4)+".partial", pages(1, 4, 2))
	report := a.check(Options{Deep: true})
	if want := []Range{{1, mib, 4*mib + 2*8192, 4}}; !report.OK() || !slices.Equal(report.Ranges, want) {
		t.Errorf("report:\n%s", report.Summary())
	}
}

// What was on both timelines is missing on both.
func TestGapAcrossASwitchIsSplit(t *testing.T) {
	t.Parallel()
	a := newArchive(t)
	a.segments(1, 3, 7)
	a.history(2, "1 0/980000")
	a.segments(2, 11, 12)
	report := a.check(Options{Record: true})
	want := []Finding{
		{Kind: Missing, Timeline: 1, From: 8 * mib, To: 9*mib + mib/2, Segment: name(1, 8), Recorded: true},
		{Kind: Missing, Timeline: 2, From: 9*mib + mib/2, To: 11 * mib, Segment: name(2, 9), Recorded: true},
	}
	for i := range report.Findings {
		report.Findings[i].Message = ""
	}
	if !slices.Equal(report.Findings, want) || report.Holes != 2 {
		t.Errorf("findings %+v, want %+v", report.Findings, want)
	}
}

// The archive may begin on any timeline and at any segment: that is no hole.
func TestArchiveThatBeginsLate(t *testing.T) {
	t.Parallel()
	a := newArchive(t)
	a.history(2, "1 0/980000")
	a.segments(2, 15, 17)
	a.segments(1, 13, 14) // only what the former primary wrote alone
	if report := a.check(Options{Deep: true}); !report.OK() {
		t.Errorf("report:\n%s", report.Summary())
	}
}

func TestHistoryOfAnAncestorIsTakenFromItsDescendant(t *testing.T) {
	t.Parallel()
	a := newArchive(t)
	a.segments(1, 3, 4)
	a.segments(2, 5, 5)
	a.history(3, "1 0/480000", "2 0/580000")
	a.segments(3, 5, 6)
	report := a.check(Options{})
	if len(report.Findings) != 2 || report.Findings[0].Kind != BadHistory || report.Findings[0].Timeline != 2 ||
		report.Findings[1].Kind != Missing || report.Findings[1].Timeline != 2 || report.Findings[1].From != 4*mib+mib/2 {
		t.Errorf("report:\n%s", report.Summary())
	}
}

func TestBackupKnowsTheSegmentSize(t *testing.T) {
	t.Parallel()
	a := newArchive(t)
	ctx := context.Background()
	w, err := a.NewManifestWriter(ctx, "20261121120000")
	a.must(err)
	a.must(w.Commit(ctx, repo.Summary{Server: "primary", Label: "20261121120000", SegmentSize: mib, Start: mib, End: 2 * mib}, nil))
	a.store(1, 1, pages(1, 1, 128)[:mib/2])
	report := a.check(Options{})
	if len(report.Findings) != 1 || report.Findings[0].Kind != WrongSize {
		t.Errorf("report:\n%s", report.Summary())
	}
}

func TestCheckStopsWhenTold(t *testing.T) {
	t.Parallel()
	a := branched(t)
	ctx, cancel := context.WithCancelCause(context.Background())
	why := errors.New("stopped")
	_, err := Check(ctx, a.Repository, Options{Deep: true, Workers: 1, Progress: func(string, int64, int64) { cancel(why) }})
	if !errors.Is(err, why) {
		t.Errorf("Check = %v, want %v", err, why)
	}
}

// Segments that are stored while the check runs are no findings, in whatever
// order they come.
func TestArchiveThatGrowsMeanwhile(t *testing.T) {
	t.Parallel()
	a := newArchive(t)
	a.segments(1, 1, 3)
	a.segments(1, 6, 6)
	a.receive(name(1, 7), pages(1, 7, 128))
	a.receive(name(1, 8)+".partial", pages(1, 8, 3))
	grown := false
	report := a.check(Options{Deep: true, Record: true, Workers: 1, Progress: func(string, int64, int64) {
		if grown {
			return
		}
		grown = true
		a.segments(1, 4, 5)
		a.segments(1, 7, 7)
		a.must(os.Remove(filepath.Join(a.ReceiveDir(), name(1, 7))))
		a.must(os.Rename(filepath.Join(a.ReceiveDir(), name(1, 8)+".partial"), filepath.Join(a.ReceiveDir(), name(1, 8))))
		a.receive(name(1, 8), pages(1, 8, 128))
	}})
	if !report.OK() || report.Segments != 7 || report.Received != 1 || report.Partial != 0 || report.Holes != 0 {
		t.Errorf("report:\n%s", report.Summary())
	}
}

// Old WAL may be deleted while the check runs.
func TestArchiveThatIsCutMeanwhile(t *testing.T) {
	t.Parallel()
	a := newArchive(t)
	a.segments(1, 1, 9)
	report := a.check(Options{Deep: true, Record: true, Workers: 1, Progress: func(_ string, done, _ int64) {
		if done == mib {
			for n := 1; n <= 4; n++ {
				a.remove(1, n)
			}
		}
	}})
	if !report.OK() || report.Segments != 5 || report.Holes != 0 {
		t.Errorf("report:\n%s", report.Summary())
	}
}

func TestSummaryHasBothPositions(t *testing.T) {
	t.Parallel()
	a := branched(t)
	a.remove(1, 5)
	report := a.check(Options{})
	text := report.Summary()
	for _, want := range []string{
		`server "primary", quick check: 13 segments stored, 1 waiting, 2 partial, 2 histories`,
		"timeline 1: 0/300000 to 0/500000 (2 segments)",
		"missing: timeline 1 from 0/500000 to 0/600000: WAL segment 000000010000000000000005 is missing",
		"1 findings, 0 holes recorded",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("summary lacks %q:\n%s", want, text)
		}
	}
}

func TestIntervals(t *testing.T) {
	t.Parallel()
	got := union([]interval{{5, 6}, {1, 3}, {2, 4}, {4, 5}, {8, 9}})
	if want := []interval{{1, 6}, {8, 9}}; !slices.Equal(got, want) {
		t.Errorf("union = %v, want %v", got, want)
	}
	holes := []interval{{2, 4}, {6, 8}}
	for v, want := range map[interval][]interval{
		{0, 1}: {{0, 1}}, {0, 10}: {{0, 2}, {4, 6}, {8, 10}}, {2, 4}: nil, {3, 7}: {{4, 6}}, {1, 3}: {{1, 2}}, {4, 6}: {{4, 6}},
	} {
		if got := v.without(holes); !slices.Equal(got, want) {
			t.Errorf("%v without %v = %v, want %v", v, holes, got, want)
		}
	}
}

func TestWALThatWasRemovedOnPurposeIsNoGap(t *testing.T) {
	ctx := context.Background()
	a := newArchive(t)
	a.segments(1, 1, 9)
	if _, err := a.DeleteWAL(ctx, []string{name(1, 3), name(1, 4), name(1, 6)}, mib); err != nil {
		t.Fatal(err)
	}
	report, err := Check(ctx, a.Repository, Options{Deep: true, Record: true})
	if err != nil || len(report.Findings) > 0 || report.Holes > 0 {
		t.Errorf("found %v, %d holes, %v", report.Findings, report.Holes, err)
	}
	a.remove(1, 7)
	report, err = Check(ctx, a.Repository, Options{Deep: true, Record: true})
	if err != nil || len(report.Findings) != 1 || report.Findings[0].From != 7*mib || report.Findings[0].To != 8*mib {
		t.Errorf("found %v, %v", report.Findings, err)
	}
}
