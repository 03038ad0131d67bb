package shmem

import (
	"encoding/binary"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"unicode/utf8"
)

// A Text is a short text in shared memory, behind a sequence lock: the sequence number is odd while a store is in progress, and a reader
// that saw it odd or changing reads again. The bytes are words that are read and written atomically, since a plain copy would be a data race.
type Text struct {
	sequence Counter
	length   Counter
	words    []atomic.Uint64
	mu       *sync.Mutex
}

// loadAttempts bounds how often a reader tries again. A store takes less than a microsecond, so this many attempts can only
// be used up when the writer died or was stopped in the middle.
const loadAttempts = 2000

// spins is the number of attempts before a reader lets others run.
const spins = 16

// Capacity returns the largest length in bytes.
func (t *Text) Capacity() int { return len(t.words) * wordSize }

// Store sets the text, cut to the capacity at the begin of a character. Goroutines of one process may call it at the same time; several
// processes must not.
func (t *Text) Store(text string) {
	text = clip(text, t.Capacity())
	t.mu.Lock()
	defer t.mu.Unlock()
	// If the writer before us died in the middle the number is odd: go on from it, and end even as always.
	sequence := t.sequence.Load() | 1
	t.sequence.Store(sequence)
	t.length.Store(uint64(len(text)))
	for i := 0; i*wordSize < len(text); i++ {
		t.words[i].Store(packWord(text[i*wordSize:]))
	}
	t.sequence.Store(sequence + 1)
}

// packWord returns up to eight bytes of text as a word, first byte lowest.
func packWord(text string) uint64 {
	var b [wordSize]byte
	copy(b[:], text)
	return binary.LittleEndian.Uint64(b[:])
}

// clip returns at most n bytes of text without cutting a character.
func clip(text string, n int) string {
	if len(text) <= n {
		return text
	}
	for n > 0 && !utf8.RuneStart(text[n]) {
		n--
	}
	return text[:n]
}

// Load returns the text. It reports false when no consistent value could be read, because the writer died in the middle of a Store.
func (t *Text) Load() (string, bool) {
	var buffer [maxText]byte
	for attempt := range loadAttempts {
		if n, ok := t.read(&buffer); ok {
			return string(buffer[:n]), true
		}
		if attempt >= spins {
			runtime.Gosched()
		}
	}
	return "", false
}

// String returns the text, empty when it cannot be read.
func (t *Text) String() string {
	text, _ := t.Load()
	return strings.ToValidUTF8(text, "?")
}

// read makes one attempt.
func (t *Text) read(buffer *[maxText]byte) (length int, ok bool) {
	before := t.sequence.Load()
	if before&1 != 0 {
		return 0, false
	}
	// The length is from another process: never trust it for an index.
	n := int(min(t.length.Load(), uint64(t.Capacity())))
	for i := 0; i*wordSize < n; i++ {
		binary.LittleEndian.PutUint64(buffer[i*wordSize:], t.words[i].Load())
	}
	return n, t.sequence.Load() == before
}
