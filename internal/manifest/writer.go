package manifest

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash"
	"io"
	"unicode/utf8"
)

// TimeLayout is how a manifest spells times, for package time.
const TimeLayout = "2006-01-02 15:04:05 GMT"

// A Writer writes a manifest: files in any order, then the ranges of WAL. Memory does not grow with the number of files.
type Writer struct {
	out   *bufio.Writer
	sum   hash.Hash
	files int
}

// NewWriter begins the manifest of a backup of a system: of version 2, as
// PostgreSQL 17 and later write it, or of version 1 when system is 0.
func NewWriter(out io.Writer, system uint64) *Writer {
	sum := sha256.New()
	w := &Writer{out: bufio.NewWriterSize(io.MultiWriter(sum, out), 64<<10), sum: sum}
	if system == 0 {
		w.printf("{ \"PostgreSQL-Backup-Manifest-Version\": 1,\n\"Files\": [")
		return w
	}
	w.printf("{ \"PostgreSQL-Backup-Manifest-Version\": 2,\n\"System-Identifier\": %d,\n\"Files\": [", system)
	return w
}

// printf writes text. An error shows at the next flush at the latest.
func (w *Writer) printf(format string, args ...any) { _, _ = fmt.Fprintf(w.out, format, args...) }

// Add appends an entry.
func (w *Writer) Add(f File) error {
	name, err := pathMember(f.Path)
	if err != nil {
		return err
	}
	if w.files > 0 {
		w.printf(",")
	}
	w.files++
	_, err = fmt.Fprintf(w.out, "\n{ %s, \"Size\": %d, \"Last-Modified\": \"%s\", \"Checksum-Algorithm\": \"%s\", \"Checksum\": \"%s\" }",
		name, f.Size, f.Modified, f.Algorithm, f.Checksum)
	return err
}

// pathMember spells a path; names that are not UTF-8 are written in hexadecimal.
func pathMember(path string) (string, error) {
	if !utf8.ValidString(path) {
		return fmt.Sprintf("\"Encoded-Path\": \"%x\"", path), nil
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(path)
	return "\"Path\": " + string(bytes.TrimSuffix(b.Bytes(), []byte("\n"))), err
}

// Finish writes the ranges of WAL and the checksum.
func (w *Writer) Finish(ranges []WALRange) error {
	w.printf("\n],\n\"WAL-Ranges\": [")
	for i, r := range ranges {
		if i > 0 {
			w.printf(",")
		}
		w.printf("\n{ \"Timeline\": %d, \"Start-LSN\": \"%s\", \"End-LSN\": \"%s\" }", r.Timeline, r.Start, r.End)
	}
	w.printf("\n],\n")
	// The checksum is that of all lines before it.
	if err := w.out.Flush(); err != nil {
		return err
	}
	w.printf("%s: \"%s\"}\n", checksumKey, hex.EncodeToString(w.sum.Sum(nil)))
	return w.out.Flush()
}
