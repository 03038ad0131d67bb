package backup

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"iter"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/pgmoneta/pgmoneta-go/internal/container"
	"github.com/pgmoneta/pgmoneta-go/internal/durable"
	"github.com/pgmoneta/pgmoneta-go/internal/manifest"
	"github.com/pgmoneta/pgmoneta-go/internal/pg"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
)

// A strangeTree is a backup of another program in memory. What is in again takes the place of a file
// from its second reading on.
type strangeTree struct {
	repo.Tree
	label repo.Label
	files map[string][]byte
	again map[string][]byte
	seen  map[string]bool
}

const strangeSystem = 7710649025785056541

func strange(label repo.Label, relation []byte) *strangeTree {
	control := make([]byte, 8192)
	binary.NativeEndian.PutUint64(control, strangeSystem)
	binary.NativeEndian.PutUint32(control[288:], crc32.Checksum(control[:288], castagnoli))
	text := "START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\nCHECKPOINT LOCATION: 0/2000060\nSTART TIMELINE: 1\n"
	return &strangeTree{label: label, again: map[string][]byte{}, seen: map[string]bool{}, files: map[string][]byte{
		"global/pg_control": control, "backup_label": []byte(text), "base/1/100": relation, "base/1/zero": make([]byte, 20000), "PG_VERSION": []byte("17\n")}}
}

func (s *strangeTree) Summary() repo.Summary {
	return repo.Summary{Server: "primary", Label: s.label, Type: repo.Incremental, Base: "20250101000000", Overlaid: true, PostgreSQL: pg.Version(170003),
		Start: 0x2000028, End: 0x2000100, StartTLI: 1, EndTLI: 1, SegmentSize: 1 << 20, Cipher: "none", Logical: 1 << 20}
}

func (s *strangeTree) Files() iter.Seq2[repo.File, error] {
	return func(yield func(repo.File, error) bool) {
		for _, name := range slices.Sorted(maps.Keys(s.files)) {
			if !yield(repo.File{Path: name, Kind: repo.Regular, Mode: 0o600, Size: int64(len(s.files[name]))}, nil) {
				return
			}
		}
	}
}

func (s *strangeTree) OpenFile(_ context.Context, f repo.File) (io.ReadCloser, error) {
	content := s.files[f.Path]
	if other, ok := s.again[f.Path]; ok && s.seen[f.Path] {
		content = other
	}
	s.seen[f.Path] = true
	return io.NopCloser(bytes.NewReader(content)), nil
}

func (s *strangeTree) OpenManifest(context.Context) (io.ReadCloser, error) {
	var b bytes.Buffer
	err := manifest.NewWriter(&b, strangeSystem).Finish([]manifest.WALRange{{Timeline: 1, Start: 0x2000028, End: 0x2000100}})
	return io.NopCloser(&b), err
}

func copier(t *testing.T) (*Copier, *repo.Repository) {
	t.Helper()
	r, err := repo.Open(durable.OS{}, t.TempDir(), "primary")
	if err != nil {
		t.Fatal(err)
	}
	c := NewCopier(CopyOptions{Repo: r, Codec: container.Zstd, Level: 1, Workers: 2, Progress: func(string, int64, int64) {}, Log: slog.New(slog.DiscardHandler)})
	t.Cleanup(c.Close)
	return c, r
}

// What is not the same when it is read again is not committed, whichever bit it is, of data or of zeros.
func TestCopyReadsTheSameTwice(t *testing.T) {
	t.Parallel()
	relation := bytes.Repeat([]byte("relation"), 64<<10)
	flipped := func(b []byte, at int) []byte {
		b = slices.Clone(b)
		b[at] ^= 4
		return b
	}
	for name, again := range map[string][]byte{
		"base/1/100":        flipped(relation, 300000),
		"base/1/zero":       flipped(make([]byte, 20000), 19999),
		"PG_VERSION":        make([]byte, 3), // zeros are stored nowhere
		"global/pg_control": nil,
		"backup_label":      []byte(strings.Repeat("x", 10)),
	} {
		c, r := copier(t)
		s := strange("20260101000000", relation)
		s.again[name] = again
		_, err := c.Copy(t.Context(), s)
		var other *DifferenceError
		if short := len(again) < len(s.files[name]); err == nil || !short && (!errors.As(err, &other) || other.Path != name) {
			t.Errorf("%s: %v", name, err)
		}
		if list, err := r.Backups(t.Context()); err != nil || len(list) > 0 {
			t.Errorf("%s: listed %v, %v", name, list, err)
		}
	}
}

// Pages with a wrong checksum, which no server is asked about any more, are stored once for all that are copied in
// one go, and are found by no other backup: that would take them for sound.
func TestCopiedPagesAreNotTakenForSound(t *testing.T) {
	t.Parallel()
	page := bytes.Repeat([]byte{7}, 8192)
	relation := bytes.Repeat(page, 40)
	for i := range relation[:len(relation)/8192] {
		relation[8192*i+100] = byte(i) // frames differ
	}
	c, r := copier(t)
	var stored []int64
	for _, l := range []repo.Label{"20260103000000", "20260102000000"} {
		done, err := c.Copy(t.Context(), strange(l, relation))
		if err != nil {
			t.Fatal(err)
		}
		if err := done.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		stored = append(stored, done.Summary.Stored)
		if s := done.Summary; s.Type != repo.Full || s.Base != "" || s.Overlaid || s.Checkpoint != 0x2000060 || s.Logical != int64(len(relation)+8192+20000+3+len(s.BackupLabel)) {
			t.Errorf("%+v", s)
		}
	}
	if stored[1] >= stored[0] || packBytes(t, r) == 0 {
		t.Errorf("stored %v", stored)
	}
	m, err := r.OpenManifest(t.Context(), "20260103000000")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = m.Close() }()
	k := newKnown()
	if err := k.load(t.Context(), r, m.Packs); err != nil {
		t.Fatal(err)
	}
	printer, err := r.NewPrinter(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, found := k.find(printer.Print(relation[:smallFrame])); found {
		t.Error("a frame with wrong checksums is found")
	}
	if !slices.ContainsFunc(k.chunks[0], func(f knownFrame) bool { return f.print != container.Print{} }) {
		t.Error("no frame is found, not even those without pages")
	}
}
