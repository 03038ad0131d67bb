// Package shmem is the memory that supervisor and workers share: what each server and each job is doing, for status and metrics.
//
// # Layout
//
// A segment is a sealed memfd: one page of header, then a slot for each server, then a slot for each job. A slot has two blocks, the first
// written by the supervisor only and the second by the worker only; blocks begin on a cache line of their own. Everything
// is 64-bit words that are read and written atomically. Text is words behind a sequence lock ([Text]).
//
// # Guarantees
//
// Readers in any process never wait for a writer and never see half of a value. A writer that dies in the middle of a text leaves that text
// unreadable until the next Store, nothing else. The size cannot change while it is mapped (F_SEAL_SHRINK, F_SEAL_GROW), so no access faults.
//
// # Not guaranteed
//
// The fields of a slot are not consistent with each other: a snapshot may have one field from before an update and one from after it.
// Nothing here survives the last process, and nothing here is a lock or a secret.
//
// This is the only package of the project that uses unsafe.
package shmem

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	magic = 0x504d_4f4e_5348_4d31 // "PMONSHM1"

	// LayoutVersion changes whenever a field is added, moved or removed.
	LayoutVersion = 7

	wordSize = 8
	pageSize = 4096
	lineSize = 64 // blocks are aligned to cache lines, so that writers do not slow each other down
)

// requiredSeals are the seals of a segment.
const requiredSeals = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_SEAL

// Default capacities.
const (
	DefaultServers = 1024
	DefaultJobs    = 256
)

// Limits of a capacity, so that sizes cannot overflow.
const (
	maxServers = 1 << 16
	maxJobs    = 1 << 16
)

// Capacity is the number of slots of a segment. 0 means the default.
type Capacity struct{ Servers, Jobs int }

// A LayoutError reports a segment that this binary cannot use. A worker that gets one was started by another version of
// the program: it must end, and the supervisor has to be restarted.
type LayoutError struct {
	Field string // what differs: "magic", "layout version", "size", "seals", "capacity"
	Got   uint64
	Want  uint64 // 0 when there is no single right value
}

func (e *LayoutError) Error() string {
	return fmt.Sprintf("shared segment: %s is %#x, want %#x: supervisor and worker are different versions of pgmoneta, restart the daemon",
		e.Field, e.Got, e.Want)
}

// A Segment is a mapped shared segment. Its methods may be called from any goroutine.
type Segment struct {
	file    *os.File
	base    unsafe.Pointer
	size    int
	servers []Server
	jobs    []Job
	header  header

	mu     sync.Mutex // texts of this process: one store at a time
	closed bool
}

// header is the first page.
type header struct {
	magic, version   Counter
	generation       Counter
	servers, jobs    Counter
	serverSize       Counter
	jobSize          Counter
	created          Counter
	pid              Counter
	info, warn, fail Counter
	fatal            Counter
	logTurn          Gauge
	requests         [RequestKinds]Requests
}

// RequestKinds is how many kinds of requests are counted.
const RequestKinds = 8

// Requests are the requests of one kind to the storage, of all processes together.
type Requests struct {
	Failed  Counter
	Elapsed Histogram // of all of them
}

// Create makes a segment in which every field is zero. The caller closes it.
func Create(capacity Capacity) (*Segment, error) {
	if capacity.Servers == 0 {
		capacity.Servers = DefaultServers
	}
	if capacity.Jobs == 0 {
		capacity.Jobs = DefaultJobs
	}
	if !capacity.valid() {
		return nil, fmt.Errorf("shared segment: capacity of %d servers and %d jobs is out of range", capacity.Servers, capacity.Jobs)
	}
	fd, err := unix.MemfdCreate("pgmoneta", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("create shared segment: %w", err)
	}
	file := os.NewFile(uintptr(fd), "shared segment")
	s, err := create(file, fd, capacity)
	if err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("create shared segment: %w", err)
	}
	return s, nil
}

func create(file *os.File, fd int, capacity Capacity) (*Segment, error) {
	if err := unix.Ftruncate(fd, int64(capacity.size())); err != nil {
		return nil, err
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, requiredSeals); err != nil {
		return nil, err
	}
	s, err := mapSegment(file, fd, capacity)
	if err != nil {
		return nil, err
	}
	h := &s.header
	h.version.Store(LayoutVersion)
	h.servers.Store(uint64(capacity.Servers))
	h.jobs.Store(uint64(capacity.Jobs))
	h.serverSize.Store(uint64(serverSlotSize()))
	h.jobSize.Store(uint64(jobSlotSize()))
	h.created.Store(uint64(time.Now().UnixNano()))
	h.pid.Store(uint64(os.Getpid()))
	h.generation.Store(1)
	// Last: a segment with a magic number is complete.
	h.magic.Store(magic)
	return s, nil
}

// Open maps a segment that another process created and handed over. It takes over f and closes it when it fails;
// the error is a [*LayoutError] when the segment is not one of this version.
func Open(f *os.File) (*Segment, error) {
	s, err := open(f)
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return s, nil
}

func open(f *os.File) (*Segment, error) {
	fd := int(f.Fd())
	seals, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0)
	if err != nil {
		return nil, fmt.Errorf("open shared segment: read seals: %w", err)
	}
	if seals&requiredSeals != requiredSeals {
		return nil, &LayoutError{"seals", uint64(seals), requiredSeals}
	}
	capacity, err := readCapacity(f)
	if err != nil {
		return nil, err
	}
	return mapSegment(f, fd, capacity)
}

// readCapacity checks the header by plain reads, before anything is mapped.
func readCapacity(f *os.File) (Capacity, error) {
	var h [7]uint64
	raw := unsafe.Slice((*byte)(unsafe.Pointer(&h)), len(h)*wordSize)
	if _, err := f.ReadAt(raw, 0); err != nil && !errors.Is(err, io.EOF) {
		return Capacity{}, fmt.Errorf("open shared segment: read header: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		return Capacity{}, fmt.Errorf("open shared segment: %w", err)
	}
	for _, check := range []LayoutError{
		{"magic", h[0], magic},
		{"layout version", h[1], LayoutVersion},
		{"size of a server slot", h[5], uint64(serverSlotSize())},
		{"size of a job slot", h[6], uint64(jobSlotSize())},
	} {
		if check.Got != check.Want {
			return Capacity{}, &check
		}
	}
	capacity := Capacity{Servers: int(min(h[3], maxServers+1)), Jobs: int(min(h[4], maxJobs+1))}
	if !capacity.valid() {
		return Capacity{}, &LayoutError{"capacity", max(h[3], h[4]), maxServers}
	}
	if info.Size() != int64(capacity.size()) {
		return Capacity{}, &LayoutError{"size", uint64(info.Size()), uint64(capacity.size())}
	}
	return capacity, nil
}

func (c Capacity) valid() bool {
	return c.Servers > 0 && c.Servers <= maxServers && c.Jobs > 0 && c.Jobs <= maxJobs
}

// size returns the size of a segment in bytes, whole pages.
func (c Capacity) size() int {
	return roundUp(pageSize+c.Servers*serverSlotSize()+c.Jobs*jobSlotSize(), pageSize)
}

func roundUp(n, to int) int { return (n + to - 1) / to * to }

// mapSegment maps the file and lays the slots over it.
func mapSegment(file *os.File, fd int, capacity Capacity) (*Segment, error) {
	size := capacity.size()
	base, err := unix.MmapPtr(fd, 0, nil, uintptr(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map shared segment: %w", err)
	}
	s := &Segment{file: file, base: base, size: size}
	s.header = layHeader(s.cursor(0))
	s.servers = make([]Server, capacity.Servers)
	at, step := pageSize, serverSlotSize()
	for i := range s.servers {
		s.servers[i] = layServer(s.cursor(at + i*step))
	}
	s.jobs = make([]Job, capacity.Jobs)
	at, step = at+capacity.Servers*step, jobSlotSize()
	for i := range s.jobs {
		s.jobs[i] = layJob(s.cursor(at + i*step))
	}
	return s, nil
}

func (s *Segment) cursor(offset int) *cursor {
	return &cursor{base: s.base, offset: offset, mu: &s.mu}
}

// File returns the descriptor to hand to a worker. It stays with the segment.
func (s *Segment) File() *os.File { return s.file }

// Servers returns the number of server slots.
func (s *Segment) Servers() int { return len(s.servers) }

// Jobs returns the number of job slots.
func (s *Segment) Jobs() int { return len(s.jobs) }

// ServerSlot returns the slot of a server. i counts from 0 to Servers()-1; anything else panics.
func (s *Segment) ServerSlot(i int) *Server { return &s.servers[i] }

// JobSlot returns the slot of a job. i counts from 0 to Jobs()-1; anything else panics.
func (s *Segment) JobSlot(i int) *Job { return &s.jobs[i] }

// Generation counts configurations: the supervisor raises it after every reload.
func (s *Segment) Generation() Counter { return s.header.generation }

// Created returns when the segment was made.
func (s *Segment) Created() time.Time { return time.Unix(0, int64(s.header.created.Load())).UTC() }

// LogCounter returns the number of log lines of a level, of all processes together. It is the one kind of field that everybody may write, by Add
// only. Levels below INFO have no counter; they share that of INFO.
func (s *Segment) LogCounter(level slog.Level) Counter {
	switch {
	case level < slog.LevelWarn:
		return s.header.info
	case level < slog.LevelError:
		return s.header.warn
	case level < slog.LevelError+4:
		return s.header.fail
	}
	return s.header.fatal
}

// CountLog counts one log line; it fits the hook of the logger.
func (s *Segment) CountLog(level slog.Level) { s.LogCounter(level).Add(1) }

// CountRequest counts a request to the storage. Every process may, as with lines of the log. kind counts from 0 to
// RequestKinds-1; anything else panics.
func (s *Segment) CountRequest(kind int, elapsed time.Duration, failed bool) {
	q := &s.header.requests[kind]
	q.Elapsed.Add(elapsed)
	if failed {
		q.Failed.Add(1)
	}
}

// Requests returns what was counted of a kind.
func (s *Segment) Requests(kind int) (elapsed Distribution, failed uint64) {
	q := &s.header.requests[kind]
	return q.Elapsed.Load(), q.Failed.Load()
}

// LogTurn is when the log file was last changed for the next, in Unix nanoseconds. Whoever writes to it may set it.
func (s *Segment) LogTurn() Gauge { return s.header.logTurn }

// Close gives the shared memory back and closes the file. Slots, counters and texts of a closed segment are harmless: they read as zero or what
// was stored since, and nobody else sees what is stored. The address range stays reserved for that. Closing twice does nothing.
func (s *Segment) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	_, err := unix.MmapPtr(-1, 0, s.base, uintptr(s.size), unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_FIXED|unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		err = fmt.Errorf("unmap shared segment: %w", err)
	}
	return errors.Join(err, s.file.Close())
}

// A Counter is an unsigned number in shared memory: a count, a size in bytes, an LSN.
type Counter struct{ word *atomic.Uint64 }

// Load returns the value.
func (c Counter) Load() uint64 { return c.word.Load() }

// Store sets the value.
func (c Counter) Store(v uint64) { c.word.Store(v) }

// Add adds to the value and returns the new one.
func (c Counter) Add(delta uint64) uint64 { return c.word.Add(delta) }

// A Gauge is a signed number in shared memory: a state, a time in Unix nanoseconds, a queue length.
type Gauge struct{ word *atomic.Int64 }

// Load returns the value.
func (g Gauge) Load() int64 { return g.word.Load() }

// Store sets the value.
func (g Gauge) Store(v int64) { g.word.Store(v) }

// Add adds to the value and returns the new one.
func (g Gauge) Add(delta int64) int64 { return g.word.Add(delta) }

// CompareAndSwap sets the value to next if it is old, and reports whether it was.
func (g Gauge) CompareAndSwap(old, next int64) bool { return g.word.CompareAndSwap(old, next) }

// StoreTime sets the value to t in Unix nanoseconds, 0 for the zero time.
func (g Gauge) StoreTime(t time.Time) { g.Store(unixNano(t)) }

// Time returns the value as a time, the zero time for 0.
func (g Gauge) Time() time.Time {
	n := g.Load()
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, n).UTC()
}

func unixNano(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

// cursor hands out the words of a block one after the other. A cursor without a base only measures.
type cursor struct {
	base   unsafe.Pointer
	offset int
	mu     *sync.Mutex
}

// words takes n words and returns the address of the first, nil when measuring.
func (c *cursor) words(n int) unsafe.Pointer {
	at := c.offset
	c.offset += n * wordSize
	if c.base == nil {
		return nil
	}
	return unsafe.Add(c.base, at)
}

// block continues at the next cache line.
func (c *cursor) block() { c.offset = roundUp(c.offset, lineSize) }

func (c *cursor) counter() Counter { return Counter{(*atomic.Uint64)(c.words(1))} }

func (c *cursor) gauge() Gauge { return Gauge{(*atomic.Int64)(c.words(1))} }

// text takes a text of at most capacity bytes, a multiple of eight.
func (c *cursor) text(capacity int) Text {
	t := Text{sequence: c.counter(), length: c.counter(), mu: c.mu}
	first := (*atomic.Uint64)(c.words(capacity / wordSize))
	if first != nil {
		t.words = unsafe.Slice(first, capacity/wordSize)
	}
	return t
}

func layHeader(c *cursor) header {
	h := header{
		magic: c.counter(), version: c.counter(), generation: c.counter(),
		servers: c.counter(), jobs: c.counter(), serverSize: c.counter(), jobSize: c.counter(),
		created: c.counter(), pid: c.counter(),
		info: c.counter(), warn: c.counter(), fail: c.counter(), fatal: c.counter(),
		logTurn: c.gauge(),
	}
	c.block()
	for i := range h.requests {
		h.requests[i] = Requests{Failed: c.counter(), Elapsed: c.histogram()}
	}
	return h
}
