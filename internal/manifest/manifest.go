// Package manifest reads PostgreSQL's own backup manifests, the file
// backup_manifest that the server sends at the end of a base backup.
//
// # Guarantees
//
// Memory does not grow with the number of files. The manifest's own checksum
// is verified before [Reader.Files] ends without an error, so that a truncated
// or altered manifest never passes; entries yielded before that are
// provisional. Malformed input is an error, never a panic.
//
// See PostgreSQL documentation, "Backup Manifest Format".
package manifest

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"iter"
	"math/bits"
	"strings"

	"github.com/pgmoneta/pgmoneta-go/internal/pg"
)

// A File is an entry of the manifest.
type File struct {
	Path      string // relative to the data directory; any bytes but NUL
	Size      int64
	Modified  string // as written, GMT
	Algorithm string // NONE, CRC32C, SHA224, ...
	Checksum  string // lower-case hexadecimal
}

type jsonFile struct {
	Path      *string `json:"Path"`
	Encoded   string  `json:"Encoded-Path"` // hexadecimal, when the name is not UTF-8
	Size      int64   `json:"Size"`
	Modified  string  `json:"Last-Modified"`
	Algorithm string  `json:"Checksum-Algorithm"`
	Checksum  string  `json:"Checksum"`
}

func (j jsonFile) file() (File, error) {
	f := File{Size: j.Size, Modified: j.Modified, Algorithm: j.Algorithm, Checksum: strings.ToLower(j.Checksum)}
	if j.Path != nil {
		f.Path = *j.Path
	} else {
		b, err := hex.DecodeString(j.Encoded)
		if err != nil {
			return File{}, fmt.Errorf("encoded path %q: %w", j.Encoded, err)
		}
		f.Path = string(b)
	}
	if f.Path == "" || f.Size < 0 {
		return File{}, fmt.Errorf("file %q of %d bytes", f.Path, f.Size)
	}
	return f, nil
}

// Checksum spells a CRC-32C as PostgreSQL does: its four bytes in memory order.
func Checksum(crc32c uint32) string {
	return fmt.Sprintf("%08x", bits.ReverseBytes32(crc32c))
}

// A WALRange is WAL that recovery of the backup needs.
type WALRange struct {
	Timeline pg.Timeline `json:"Timeline"`
	Start    pg.LSN      `json:"Start-LSN"`
	End      pg.LSN      `json:"End-LSN"`
}

// A Reader reads one manifest from first to last byte.
type Reader struct {
	Version int
	System  uint64     // system identifier; 0 before PostgreSQL 17
	Ranges  []WALRange // complete when Files has ended

	in  io.Reader
	sum lineSum
}

// NewReader returns a reader of in.
func NewReader(in io.Reader) *Reader {
	r := &Reader{sum: lineSum{hash: sha256.New()}}
	r.in = io.TeeReader(in, &r.sum)
	return r
}

// Files yields the entries in the order of the manifest, which is the order in
// which the server sent the files. After an error it stops.
func (r *Reader) Files() iter.Seq2[File, error] {
	return func(yield func(File, error) bool) {
		err := r.read(func(f File) bool { return yield(f, nil) })
		if err != nil && !errors.Is(err, errStopped) {
			yield(File{}, fmt.Errorf("backup_manifest: %w", err))
		}
	}
}

var errStopped = errors.New("stopped")

func (r *Reader) read(yield func(File) bool) error {
	dec := json.NewDecoder(r.in)
	if err := expect(dec, json.Delim('{')); err != nil {
		return err
	}
	var claimed string
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return err
		}
		switch key {
		case "PostgreSQL-Backup-Manifest-Version":
			err = dec.Decode(&r.Version)
		case "System-Identifier":
			err = dec.Decode(&r.System)
		case "Files":
			err = readFiles(dec, yield)
		case "WAL-Ranges":
			err = dec.Decode(&r.Ranges)
		case "Manifest-Checksum":
			err = dec.Decode(&claimed)
		default:
			err = fmt.Errorf("unknown member %v", key)
		}
		if err != nil {
			return err
		}
	}
	if err := expect(dec, json.Delim('}')); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, r.in); err != nil {
		return err
	}
	return r.check(claimed)
}

func (r *Reader) check(claimed string) error {
	if r.Version < 1 || r.Version > 2 {
		return fmt.Errorf("version %d; versions 1 and 2 are known", r.Version)
	}
	if got := hex.EncodeToString(r.sum.hash.Sum(nil)); !strings.EqualFold(got, claimed) {
		return fmt.Errorf("its checksum is %s, but it says %q", got, claimed)
	}
	return nil
}

func readFiles(dec *json.Decoder, yield func(File) bool) error {
	if err := expect(dec, json.Delim('[')); err != nil {
		return err
	}
	for dec.More() {
		var j jsonFile
		if err := dec.Decode(&j); err != nil {
			return err
		}
		f, err := j.file()
		if err != nil {
			return err
		}
		if !yield(f) {
			return errStopped
		}
	}
	return expect(dec, json.Delim(']'))
}

func expect(dec *json.Decoder, want json.Delim) error {
	got, err := dec.Token()
	if err != nil {
		return err
	}
	if got != want {
		return fmt.Errorf("found %v, want %v", got, want)
	}
	return nil
}

// lineSum hashes all lines before the one with the checksum, which is the rule
// of the format.
type lineSum struct {
	hash hash.Hash
	held []byte // begin of a line that may become the one with the checksum
	mid  bool   // inside a line that is not
	last bool
}

const checksumKey = `"Manifest-Checksum"`

func (s *lineSum) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 && !s.last {
		end := bytes.IndexByte(p, '\n') + 1
		if end == 0 {
			end = len(p)
		}
		s.take(p[:end])
		p = p[end:]
	}
	return n, nil
}

// take adds a piece that reaches at most to the end of a line.
func (s *lineSum) take(p []byte) {
	ends := p[len(p)-1] == '\n'
	if s.mid {
		s.hash.Write(p)
		s.mid = !ends
		return
	}
	s.held = append(s.held, p...)
	switch {
	case bytes.HasPrefix(s.held, []byte(checksumKey)):
		s.last = true
	case !ends && strings.HasPrefix(checksumKey, string(s.held)): // undecided
	default:
		s.hash.Write(s.held)
		s.held, s.mid = s.held[:0], !ends
	}
}
