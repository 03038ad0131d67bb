package container

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// What the ordinary programs wrote can be read.
func TestDecompressReadsFilesOfOtherPrograms(t *testing.T) {
	t.Parallel()
	plain := relation(3<<20 + 17)
	for suffix, command := range map[string][]string{
		".gz": {"gzip", "-c"}, ".zst": {"zstd", "-q", "--long", "-c"}, ".lz4": {"lz4", "-q", "-c"}, ".bz2": {"bzip2", "-c"}, "": {"cat"},
	} {
		path := filepath.Join(t.TempDir(), "plain")
		if err := os.WriteFile(path, plain, 0o600); err != nil {
			t.Fatal(err)
		}
		packed, err := exec.Command(command[0], append(command[1:], path)...).Output()
		if err != nil {
			t.Fatalf("%v: %v", command, err)
		}
		name, codec := CutSuffix("000000010000000000000001" + suffix)
		if name != "000000010000000000000001" {
			t.Errorf("CutSuffix leaves %q of %q", name, suffix)
		}
		got, err := readCompressed(codec, packed)
		if err != nil || !bytes.Equal(got, plain) {
			t.Errorf("%v: %d bytes, %v", command, len(got), err)
		}
		if codec == None {
			continue
		}
		if got, err := readCompressed(codec, packed[:len(packed)/2]); err == nil && len(got) == len(plain) {
			t.Errorf("%v: half of it is read as all", command)
		}
	}
}

func readCompressed(codec Codec, packed []byte) ([]byte, error) {
	r, err := Decompress(codec, bytes.NewReader(packed))
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }()
	return io.ReadAll(io.LimitReader(r, 8<<20))
}

func FuzzDecompress(f *testing.F) {
	for _, codec := range codecs {
		e, err := NewEncoder(codec, 1)
		if err != nil {
			f.Fatal(err)
		}
		packed, _, err := e.Append(nil, relation(1000))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(codec), packed)
		f.Add(uint8(codec), packed[:len(packed)/2])
	}
	f.Fuzz(func(t *testing.T, codec uint8, packed []byte) {
		got, err := readCompressed(Codec(codec), packed)
		if err == nil && Codec(codec) == None && !bytes.Equal(got, packed) {
			t.Error("plain bytes were changed")
		}
	})
}
