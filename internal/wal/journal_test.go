package wal

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/pgmoneta/pgmoneta-go/internal/durable"
	"github.com/pgmoneta/pgmoneta-go/internal/pg"
)

const mib = 1 << 20

func TestResumeAtFirstIncompleteSegment(t *testing.T) {
	tests := []struct {
		name              string
		complete, partial string
		want              position
		ok                bool
	}{
		{"nothing", "", "", position{}, false},
		{"after the last complete one", "000000010000000000000003 000000010000000000000004", "", position{1, 0x5000000}, true},
		{"at the partial one", "000000010000000000000004", "000000010000000000000005", position{1, 0x5000000}, true},
		{"two partial ones", "000000010000000000000004", "000000010000000000000006 000000010000000000000005", position{1, 0x5000000}, true},
		{"two partial ones and nothing complete", "", "000000010000000000000006 000000010000000000000005", position{1, 0x5000000}, true},
		{"two partial ones of a new timeline", "000000010000000000000009", "000000020000000000000006 000000020000000000000005", position{2, 0x5000000}, true},
		{"only a partial one", "", "000000010000000000000005", position{1, 0x5000000}, true},
		{"the highest timeline counts", "000000010000000000000009 000000020000000000000005", "000000010000000000000009", position{2, 0x6000000}, true},
		{"timeline 16 is after 10", "0000000A0000000000000005 000000100000000000000002", "", position{16, 0x3000000}, true},
		{"last segment below 4 GiB", "0000000100000000000000FF", "", position{1, 0x1_0000_0000}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, ok, err := resumeAt(strings.Fields(tt.complete), strings.Fields(tt.partial), 16*mib)
			if err != nil || ok != tt.ok || got != tt.want {
				t.Errorf("resumeAt = %+v, %v, %v; want %+v, %v", got, ok, err, tt.want, tt.ok)
			}
		})
	}
}

func TestFirstGapIsNotSkipped(t *testing.T) {
	stored := []string{"000000010000000000000004", "000000010000000000000005", "000000010000000000000008", "000000020000000000000006"}
	for _, tt := range []struct {
		name    string
		restart pg.LSN
		want    pg.LSN
	}{
		{"the slot is unknown", 0, 0x9000000},
		{"the slot is at the end", 0x9000028, 0x9000000},
		{"segments 6 and 7 were acknowledged by nobody", 0x5000028, 0x6000000},
		{"the slot is behind what is stored", 0x4000000, 0x6000000},
		{"nothing is missing since", 0x8000000, 0x9000000},
	} {
		if got := firstGap(position{1, 0x9000000}, tt.restart, stored, 16*mib); got != (position{1, tt.want}) {
			t.Errorf("%s: firstGap = %+v, want %s", tt.name, got, tt.want)
		}
	}
}

func TestContinueOnTheServersHistory(t *testing.T) {
	h := pg.History{Timeline: 3, Ancestors: []pg.Switch{{Timeline: 1, End: 0x3000148}, {Timeline: 2, End: 0x5000000}}}
	tests := []struct {
		name     string
		at, want position
	}{
		{"before the switch the old timeline goes on", position{1, 0x3000000}, position{1, 0x3000000}},
		{"past the switch the next one begins at its segment", position{1, 0x4000000}, position{2, 0x3000000}},
		{"a switch at a boundary", position{2, 0x5000000}, position{3, 0x5000000}},
		{"far past both", position{1, 0x9000000}, position{2, 0x3000000}},
		{"current timeline", position{3, 0x7000000}, position{3, 0x7000000}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got, err := continueOn("primary", tt.at, h, 16*mib); err != nil || got != tt.want {
				t.Errorf("continueOn(%+v) = %+v, %v; want %+v", tt.at, got, err, tt.want)
			}
		})
	}
	var diverged *DivergedError
	if _, err := continueOn("primary", position{4, 0x7000000}, h, 16*mib); !errors.As(err, &diverged) || diverged.Stored != 4 {
		t.Errorf("a timeline the server does not know: %v", err)
	}
}

// Whatever operation the power fails at, every byte up to the last position
// that flush returned is there afterwards, under a name a restart looks at.
func TestNoFlushedByteIsLostAtAnyPowerCut(t *testing.T) {
	t.Run("new files", func(t *testing.T) { cutEverywhere(t, false) })
	t.Run("first into a spare", func(t *testing.T) { cutEverywhere(t, true) })
}

func cutEverywhere(t *testing.T, spare bool) {
	const size = mib
	rng := rand.New(rand.NewPCG(7, 7))
	content := make([]byte, 3*size+size/2)
	for i := range content {
		content[i] = byte(rng.Uint32())
	}
	const start = pg.LSN(5 * size)
	for cut := 1; ; cut++ {
		root := t.TempDir()
		if spare {
			if err := os.WriteFile(sparePath(root, size), make([]byte, size), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		fsys, err := durable.NewPowerCut(root, cut)
		if err != nil {
			t.Fatal(err)
		}
		flushed, werr := receiveAll(fsys, root, start, content)
		after := t.TempDir()
		if err := fsys.Image(after); err != nil {
			t.Fatal(err)
		}
		for at := start; at < flushed; at += size {
			name := pg.SegmentName(1, at, size)
			b, err := os.ReadFile(filepath.Join(after, name))
			if errors.Is(err, os.ErrNotExist) {
				b, err = os.ReadFile(filepath.Join(after, name+partialSuffix))
			} else if len(b) != size {
				t.Fatalf("cut %d: %s has %d bytes under its final name", cut, name, len(b))
			}
			n := min(int64(flushed-at), size)
			if err != nil || int64(len(b)) < n || !bytes.Equal(b[:n], content[at-start:][:n]) {
				t.Fatalf("cut %d: flushed to %s, but %s does not have its first %d bytes: %v", cut, flushed, name, n, err)
			}
		}
		if werr == nil {
			if flushed != start+pg.LSN(len(content)) {
				t.Fatalf("flushed to %s", flushed)
			}
			return
		}
	}
}

func receiveAll(fsys durable.FS, dir string, start pg.LSN, content []byte) (flushed pg.LSN, err error) {
	j := newJournal(fsys, dir, mib, 1, start, func(string) {})
	defer func() { err = errors.Join(err, j.close()) }()
	flushed = start
	at := start
	for len(content) > 0 {
		n := min(len(content), 100_000)
		if err := j.append(at, content[:n]); err != nil {
			return flushed, err
		}
		content, at = content[n:], at+pg.LSN(n)
		if err := j.write(); err != nil {
			return flushed, err
		}
		lsn, err := j.flush()
		if err != nil {
			return flushed, err
		}
		flushed = lsn
	}
	return flushed, nil
}

func TestFailedFlushIsFinal(t *testing.T) {
	root := t.TempDir()
	fail := true
	fsys, err := durable.NewFault(root, func(op durable.Op) error {
		if op.Kind == "datasync" && fail {
			fail = false
			return syscall.EIO
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	j := newJournal(fsys, root, mib, 1, 0, func(string) {})
	defer j.close()
	if err := errors.Join(j.append(0, []byte("x")), j.write()); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := j.flush(); !errors.Is(err, syscall.EIO) {
			t.Errorf("flush: %v, want EIO for good", err)
		}
	}
	if _, flushed := j.positions(); flushed != 0 {
		t.Errorf("flushed is %s after a failed flush", flushed)
	}
}

func TestJournalRefusesAJumpInWAL(t *testing.T) {
	j := newJournal(durable.OS{}, t.TempDir(), mib, 1, 0, func(string) {})
	defer j.close()
	if err := j.append(100, []byte("x")); err == nil {
		t.Error("WAL from 0/64 was accepted where 0/0 was due")
	}
}
