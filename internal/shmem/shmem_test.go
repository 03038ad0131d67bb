package shmem

import (
	"encoding/binary"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestMain lets the test binary play a worker that writes texts to an inherited segment until it is killed.
func TestMain(m *testing.M) {
	if os.Getenv("SHMEM_TEST_WRITER") == "1" {
		s, err := Open(os.NewFile(3, "segment"))
		if err != nil {
			panic(err)
		}
		slot := s.ServerSlot(1)
		for i := uint64(1); ; i++ {
			slot.LastError.Store(pattern(i))
			slot.WrittenLSN.Store(i)
		}
	}
	os.Exit(m.Run())
}

// pattern returns a text that shows by itself whether it is whole: one letter, repeated as often as the letter says.
func pattern(i uint64) string {
	n := i % 26
	return strings.Repeat(string(rune('a'+n)), 20+9*int(n))
}

// whole reports whether a text is one of pattern, or the empty text before the first store.
func whole(text string) bool {
	return text == "" || text == pattern(uint64(text[0]-'a'))
}

func newSegment(t testing.TB, c Capacity) *Segment {
	t.Helper()
	s, err := Create(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// inherited returns what a worker would get: another descriptor of the same segment.
func inherited(t *testing.T, f *os.File) *os.File {
	t.Helper()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return os.NewFile(uintptr(fd), "segment")
}

func TestSegmentIsSharedBetweenMappings(t *testing.T) {
	t.Parallel()
	a := newSegment(t, Capacity{Servers: 3, Jobs: 2})
	b, err := Open(inherited(t, a.File()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = b.Close() }()
	if b.Servers() != 3 || b.Jobs() != 2 {
		t.Errorf("capacity %d, %d, want 3, 2", b.Servers(), b.Jobs())
	}
	now := time.Now().UTC().Round(0)
	slot := a.ServerSlot(2)
	slot.Name.Store("primary")
	slot.SlotState.Store("reserved")
	slot.SystemIdentifier.Store(1 << 63)
	slot.Heartbeat.StoreTime(now)
	slot.StoreQueue.Add(-2)
	slot.Streaming.Store(1)
	want := ServerSnapshot{Name: "primary", SlotState: "reserved", SystemIdentifier: 1 << 63, Heartbeat: now, StoreQueue: -2, Streaming: true}
	if got := b.ServerSlot(2).Snapshot(); !reflect.DeepEqual(got, want) {
		t.Errorf("snapshot is %+v, want %+v", got, want)
	}
	if got := b.ServerSlot(1).Snapshot(); !reflect.DeepEqual(got, ServerSnapshot{}) {
		t.Errorf("the slot before is %+v, want zero", got)
	}
	slot.Clear()
	if got := b.ServerSlot(2).Snapshot(); !reflect.DeepEqual(got, ServerSnapshot{}) {
		t.Errorf("a cleared slot holds %+v", got)
	}
	job := a.JobSlot(1)
	job.Phase.Store("copy")
	job.DoneBytes.Add(5)
	if got := b.JobSlot(1).Snapshot(); got.Phase != "copy" || got.DoneBytes != 5 {
		t.Errorf("job is %+v", got)
	}
	job.Clear()
	if got := b.JobSlot(1).Snapshot(); got != (JobSnapshot{}) {
		t.Errorf("cleared job is %+v", got)
	}
	a.CountLog(slog.LevelWarn)
	a.CountLog(slog.LevelError)
	b.CountLog(slog.LevelError)
	if w, e := b.LogCounter(slog.LevelWarn).Load(), a.LogCounter(slog.LevelError).Load(); w != 1 || e != 2 {
		t.Errorf("%d warnings and %d errors, want 1 and 2", w, e)
	}
}

// Every field of every slot has words of its own, and the two blocks of a slot share no cache line.
func TestFieldsDoNotOverlap(t *testing.T) {
	t.Parallel()
	s := newSegment(t, Capacity{Servers: 2, Jobs: 2})
	n := uint64(0)
	var values []func() uint64
	visit := func(slot any) {
		v := reflect.ValueOf(slot)
		for i := range v.NumField() {
			n++
			want := n
			switch f := v.Field(i).Interface().(type) {
			case Counter:
				f.Store(want)
				values = append(values, f.Load)
			case Gauge:
				f.Store(int64(want))
				values = append(values, func() uint64 { return uint64(f.Load()) })
			case Histogram:
				f.sum.Store(want)
				for _, b := range f.buckets {
					b.Store(want)
				}
				values = append(values, func() uint64 {
					for _, n := range f.Load().Counts {
						if n != want {
							return 0
						}
					}
					return uint64(f.Load().Sum)
				})
			case Text:
				f.Store(strings.Repeat(string(rune(' '+want%90)), f.Capacity()))
				values = append(values, func() uint64 {
					text := f.String()
					if len(text) != f.Capacity() || strings.Trim(text, text[:1]) != "" || uint64(text[0]-' ') != want%90 {
						return 0
					}
					return want
				})
			}
		}
	}
	for i := range 2 {
		visit(*s.ServerSlot(i))
		visit(*s.JobSlot(i))
	}
	for i, value := range values {
		if got := value(); got != uint64(i)+1 {
			t.Errorf("field %d holds %d after all were stored", i, got)
		}
	}
	if got := s.header.magic.Load(); got != magic {
		t.Errorf("the header was overwritten: %#x", got)
	}
	s.ServerSlot(0).Clear()
	s.JobSlot(0).Clear()
	if got := s.ServerSlot(0).Snapshot(); !reflect.DeepEqual(got, ServerSnapshot{}) {
		t.Errorf("a server slot that was full and cleared holds %+v", got)
	}
	if got := s.JobSlot(0).Snapshot(); got != (JobSnapshot{}) {
		t.Errorf("a job slot that was full and cleared holds %+v", got)
	}
}

func TestTextIsCutBetweenCharacters(t *testing.T) {
	t.Parallel()
	s := newSegment(t, Capacity{Servers: 1, Jobs: 1})
	text := &s.ServerSlot(0).Name
	for _, tt := range []struct{ store, want string }{
		{"", ""},
		{"short", "short"},
		{strings.Repeat("x", 128), strings.Repeat("x", 128)},
		{strings.Repeat("x", 127) + "é", strings.Repeat("x", 127)},
		{strings.Repeat("x", 126) + "éé", strings.Repeat("x", 126) + "é"},
		{"x", "x"},
	} {
		text.Store(tt.store)
		if got, ok := text.Load(); !ok || got != tt.want {
			t.Errorf("after Store(%q): %q, %t", tt.store, got, ok)
		}
	}
}

func TestReadersNeverSeeTornText(t *testing.T) {
	t.Parallel()
	s := newSegment(t, Capacity{Servers: 1, Jobs: 1})
	text := &s.ServerSlot(0).LastError
	var stop atomic.Bool
	var reads atomic.Int64
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := uint64(0); !stop.Load(); i++ {
			text.Store(pattern(i))
		}
	})
	const readers, each = 8, 2000
	var group sync.WaitGroup
	for range readers {
		group.Go(func() {
			for range each {
				got, ok := text.Load()
				if !ok {
					continue // starved by the scheduler: allowed, a torn value is not
				}
				reads.Add(1)
				if !whole(got) {
					t.Errorf("torn text %q", got)
					return
				}
			}
		})
	}
	group.Wait()
	stop.Store(true)
	wg.Wait()
	if reads.Load() < readers*each/2 {
		t.Errorf("only %d of %d reads succeeded", reads.Load(), readers*each)
	}
}

func TestReadersSurviveAKilledWriter(t *testing.T) {
	t.Parallel()
	s := newSegment(t, Capacity{Servers: 2, Jobs: 1})
	text := &s.ServerSlot(1).LastError
	for range 5 {
		s.ServerSlot(1).WrittenLSN.Store(0)
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = []string{"SHMEM_TEST_WRITER=1"}
		cmd.ExtraFiles = []*os.File{s.File()}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		deadline := time.Now().Add(20 * time.Second)
		for s.ServerSlot(1).WrittenLSN.Load() < 2000 {
			if got, ok := text.Load(); ok && !whole(got) {
				t.Errorf("torn text %q", got)
			}
			if time.Now().After(deadline) {
				t.Fatalf("the writer got to %d only", s.ServerSlot(1).WrittenLSN.Load())
			}
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		if got, ok := text.Load(); ok && !whole(got) {
			t.Errorf("torn text %q after the end of the writer", got)
		}
	}
}

func TestTextOfDeadWriterIsUnreadableUntilTheNextStore(t *testing.T) {
	t.Parallel()
	s := newSegment(t, Capacity{Servers: 1, Jobs: 1})
	text := &s.ServerSlot(0).LastError
	text.Store("before")
	text.sequence.Add(1) // as a writer that died after its first step leaves it
	if got, ok := text.Load(); ok || text.String() != "" {
		t.Errorf("Load = %q, %t, want not ok", got, ok)
	}
	text.Store("after")
	if got, ok := text.Load(); !ok || got != "after" {
		t.Errorf("Load after a Store = %q, %t", got, ok)
	}
}

func TestDamagedLengthIsHarmless(t *testing.T) {
	t.Parallel()
	s := newSegment(t, Capacity{Servers: 1, Jobs: 1})
	text := &s.ServerSlot(0).LastError
	text.length.Store(1 << 62)
	if got, ok := text.Load(); !ok || len(got) != text.Capacity() {
		t.Errorf("Load = %d bytes, %t", len(got), ok)
	}
}

func TestUseAfterCloseIsHarmless(t *testing.T) {
	t.Parallel()
	s, err := Create(Capacity{Servers: 1, Jobs: 1})
	if err != nil {
		t.Fatal(err)
	}
	slot := s.ServerSlot(0)
	slot.Name.Store("x")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if got := slot.Snapshot(); got.Name != "" {
		t.Errorf("snapshot after Close: %+v, want zero", got)
	}
	slot.Name.Store("y")
	slot.Errors.Add(1)
	if err := s.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

func TestSegmentIsSealed(t *testing.T) {
	t.Parallel()
	s := newSegment(t, Capacity{Servers: 1, Jobs: 1})
	if err := s.File().Truncate(0); err == nil {
		t.Error("the segment could be shrunk")
	}
	if err := s.File().Truncate(1 << 30); err == nil {
		t.Error("the segment could be grown")
	}
}

func TestOpenRefusesOtherLayouts(t *testing.T) {
	t.Parallel()
	size := int64(Capacity{1, 1}.size())
	good := [...]uint64{magic, LayoutVersion, 1, 1, 1, uint64(serverSlotSize()), uint64(jobSlotSize())}
	for _, tt := range []struct {
		field string
		at    int
		value uint64
		size  int64
		seals int
	}{
		{"magic", 0, 1, size, requiredSeals},
		{"layout version", 1, LayoutVersion + 1, size, requiredSeals},
		{"size of a server slot", 5, 8, size, requiredSeals},
		{"size of a job slot", 6, 8, size, requiredSeals},
		{"capacity", 3, 0, size, requiredSeals},
		{"capacity", 4, 1 << 62, size, requiredSeals},
		{"size", 3, 2, size - pageSize, requiredSeals},
		{"magic", 0, 0, 0, requiredSeals},
		{"seals", 0, magic, size, unix.F_SEAL_SHRINK},
	} {
		t.Run(tt.field, func(t *testing.T) {
			t.Parallel()
			header := good
			header[tt.at] = tt.value
			f := memfd(t, header[:], tt.size, tt.seals)
			var layout *LayoutError
			if _, err := Open(f); !errors.As(err, &layout) || layout.Field != tt.field {
				t.Errorf("Open: %v, want a LayoutError of %s", err, tt.field)
			}
			if f.Close() == nil {
				t.Error("Open left the file open")
			}
		})
	}
	plain, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(plain); err == nil {
		t.Error("Open accepted a plain file")
	}
}

// memfd returns a memfd with a header, a size and seals.
func memfd(t *testing.T, header []uint64, size int64, seals int) *os.File {
	t.Helper()
	fd, err := unix.MemfdCreate("test", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "test")
	var raw []byte
	for _, w := range header {
		raw = binary.NativeEndian.AppendUint64(raw, w)
	}
	if size > 0 {
		if _, err := f.WriteAt(raw, 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestCreateChecksCapacity(t *testing.T) {
	t.Parallel()
	for _, c := range []Capacity{{-1, 1}, {1, -1}, {maxServers + 1, 1}} {
		if _, err := Create(c); err == nil {
			t.Errorf("Create(%+v) succeeded", c)
		}
	}
	if s := newSegment(t, Capacity{}); s.Servers() != DefaultServers || s.Jobs() != DefaultJobs {
		t.Errorf("default capacity is %d, %d", s.Servers(), s.Jobs())
	}
}

func BenchmarkTextStore(b *testing.B) {
	text := &newSegment(b, Capacity{Servers: 1, Jobs: 1}).ServerSlot(0).CurrentSegment
	for b.Loop() {
		text.Store("000000010000000000000001")
	}
}

func BenchmarkTextLoad(b *testing.B) {
	text := &newSegment(b, Capacity{Servers: 1, Jobs: 1}).ServerSlot(0).CurrentSegment
	text.Store("000000010000000000000001")
	b.ReportAllocs()
	for b.Loop() {
		text.Load()
	}
}

func BenchmarkSnapshot(b *testing.B) {
	slot := newSegment(b, Capacity{Servers: 1, Jobs: 1}).ServerSlot(0)
	for b.Loop() {
		slot.Snapshot()
	}
}
