package manifest

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

// seal appends the checksum as PostgreSQL does.
func seal(body string) string {
	return fmt.Sprintf("%s\"Manifest-Checksum\": \"%x\"}\n", body, sha256.Sum256([]byte(body)))
}

const body17 = `{ "PostgreSQL-Backup-Manifest-Version": 2,
"System-Identifier": 7575000000000000001,
"Files": [
{ "Path": "backup_label", "Size": 227, "Last-Modified": "2026-11-21 12:00:00 GMT", "Checksum-Algorithm": "CRC32C", "Checksum": "1A2B3C4D" },
{ "Encoded-Path": "62617365ff", "Size": 8192, "Last-Modified": "2026-11-21 12:00:00 GMT", "Checksum-Algorithm": "CRC32C", "Checksum": "00000000" }
],
"WAL-Ranges": [
{ "Timeline": 1, "Start-LSN": "0/2000028", "End-LSN": "0/2000100" }
],
`

func readAll(r *Reader) ([]File, error) {
	var files []File
	for f, err := range r.Files() {
		if err != nil {
			return files, err
		}
		files = append(files, f)
	}
	return files, nil
}

func TestReadManifest(t *testing.T) {
	for name, in := range map[string]io.Reader{
		"at once":      strings.NewReader(seal(body17)),
		"byte by byte": iotest.OneByteReader(strings.NewReader(seal(body17))),
	} {
		r := NewReader(in)
		files, err := readAll(r)
		if err != nil || len(files) != 2 || files[0].Path != "backup_label" || files[0].Checksum != "1a2b3c4d" || files[1].Path != "base\xff" {
			t.Errorf("%s: %+v, %v", name, files, err)
		}
		if r.Version != 2 || r.System != 7575000000000000001 || len(r.Ranges) != 1 || r.Ranges[0].End != 0x2000100 {
			t.Errorf("%s: header %+v", name, r)
		}
	}
}

func TestDamagedManifestIsRefused(t *testing.T) {
	whole := seal(body17)
	for n := range len(whole) - 1 {
		if _, err := readAll(NewReader(strings.NewReader(whole[:n]))); err == nil {
			t.Fatalf("the first %d bytes were accepted", n)
		}
	}
	for i := range whole {
		b := []byte(whole)
		b[i] ^= 0x01
		if _, err := readAll(NewReader(strings.NewReader(string(b)))); err == nil && !strings.EqualFold(string(b), whole) && i < len(whole)-1 {
			t.Fatalf("byte %d changed (%q) and was accepted", i, b[i])
		}
	}
}

func FuzzReader(f *testing.F) {
	f.Add(seal(body17))
	f.Add(seal(strings.Replace(body17, ": 2", ": 1", 1)))
	f.Fuzz(func(_ *testing.T, in string) { _, _ = readAll(NewReader(strings.NewReader(in))) })
}

func TestWrittenManifestIsRead(t *testing.T) {
	want := []File{
		{Path: "backup_label", Size: 227, Modified: "2026-11-21 12:00:00 GMT", Algorithm: "CRC32C", Checksum: "1a2b3c4d"},
		{Path: "base/5/\xff", Size: 8192, Modified: "2026-11-21 12:00:00 GMT", Algorithm: "CRC32C", Checksum: "00000000"},
		{Path: "base/\"<&\n\u2028ä", Modified: "2026-11-21 12:00:00 GMT", Algorithm: "CRC32C", Checksum: "00000000"},
	}
	for n := range len(want) + 1 {
		var out bytes.Buffer
		w := NewWriter(&out, 7575000000000000001)
		for _, f := range want[:n] {
			if err := w.Add(f); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Finish([]WALRange{{1, 0x28, 0x100}, {2, 0x100, 0x10000000F}}); err != nil {
			t.Fatal(err)
		}
		r := NewReader(&out)
		got, err := readAll(r)
		if err != nil || !slices.Equal(got, want[:n]) || r.System != 7575000000000000001 || r.Version != 2 || len(r.Ranges) != 2 || r.Ranges[1].End != 0x10000000F {
			t.Errorf("%d files: %+v of %+v, %v", n, got, r, err)
		}
	}
}
