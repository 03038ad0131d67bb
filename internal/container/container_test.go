package container

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// relation returns n bytes that compress like pages of a table.
func relation(n int) []byte {
	r := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, 0, n+64)
	for len(b) < n {
		b = append(b, "account 00000000 balance 0000 filler                            "...)
		for i := range 4 {
			b[len(b)-50+i] = byte('0' + r.IntN(10))
		}
	}
	return b[:n]
}

func pack(t testing.TB, codec Codec, plain []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := NewStreamWriter(&out, Header{Kind: Pack, Codec: codec}, 3)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(plain); err != nil {
		t.Fatal(err)
	}
	if err := w.Finish(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func unpack(b []byte) ([]byte, error) {
	r, err := NewReader("pack/test/1", bytes.NewReader(b), int64(len(b)), Pack)
	if err != nil {
		return nil, err
	}
	s := r.Stream()
	defer s.Close()
	return io.ReadAll(s)
}

var codecs = []Codec{None, Gzip, Zstd, LZ4, Bzip2}

func TestRoundTrip(t *testing.T) {
	for _, codec := range codecs {
		for _, n := range []int{0, 1, FrameLimit - 1, FrameLimit, FrameLimit + 1, 3*FrameLimit + 17} {
			plain := relation(n)
			got, err := unpack(pack(t, codec, plain))
			if err != nil || !bytes.Equal(got, plain) {
				t.Errorf("%s, %d bytes: %d bytes came back, %v", codec, n, len(got), err)
			}
		}
	}
}

func TestZeros(t *testing.T) {
	for _, n := range []int{0, 1, 2, 100, FrameLimit - 1, FrameLimit} {
		zeros := make([]byte, n)
		if !Zeros(zeros) || sum(zeros) != sha256.Sum256(zeros) {
			t.Errorf("%d zeros: %t, or another sum", n, Zeros(zeros))
		}
		for _, i := range []int{0, n / 2, n - 1} {
			if n == 0 {
				break
			}
			zeros[i] = 1
			if Zeros(zeros) || sum(zeros) != sha256.Sum256(zeros) {
				t.Errorf("%d bytes, of which byte %d is none: %t, or another sum", n, i, Zeros(zeros))
			}
			zeros[i] = 0
		}
	}
	plain := make([]byte, 3*FrameLimit)
	for _, codec := range codecs {
		if got, err := unpack(pack(t, codec, plain)); err != nil || !bytes.Equal(got, plain) {
			t.Errorf("%s: %d bytes came back, %v", codec, len(got), err)
		}
	}
}

func TestStandardToolsReadContainers(t *testing.T) {
	plain := relation(2*FrameLimit + 5)
	for codec, tool := range map[Codec]string{Zstd: "zstd", LZ4: "lz4"} {
		path, err := exec.LookPath(tool)
		if err != nil {
			t.Fatalf("%s is needed to check the format against something not ours: apt-get install %s", tool, tool)
		}
		file := filepath.Join(t.TempDir(), "object")
		if err := os.WriteFile(file, pack(t, codec, plain), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := exec.Command(path, "-d", "-c", file).Output()
		if err != nil || !bytes.Equal(got, plain) {
			t.Errorf("%s -d gave %d bytes, %v; want %d", tool, len(got), err, len(plain))
		}
	}
}

func TestEveryTruncationIsRefused(t *testing.T) {
	b := pack(t, Zstd, relation(FrameLimit+100))
	for n := range len(b) {
		if _, err := unpack(b[:n]); err == nil {
			t.Fatalf("the first %d of %d bytes were accepted", n, len(b))
		}
	}
}

func TestEveryFlippedBitIsFound(t *testing.T) {
	plain := relation(FrameLimit + 100)
	for _, codec := range []Codec{None, Zstd} {
		b := pack(t, codec, plain)
		step := 1 + len(b)/300
		for i := 0; i < len(b); i += step {
			damaged := bytes.Clone(b)
			damaged[i] ^= 0x10
			got, err := unpack(damaged)
			var d *DamagedError
			if err == nil && !bytes.Equal(got, plain) {
				t.Fatalf("%s: byte %d flipped, wrong bytes came back without an error", codec, i)
			}
			if err != nil && (!errors.As(err, &d) || d.Object != "pack/test/1") {
				t.Fatalf("%s: byte %d flipped: %v does not name the object", codec, i, err)
			}
			// Padding inside a codec's frame may carry no information; everything of ours does.
			if err == nil && (i < headerSize || codec == None) {
				t.Fatalf("%s: byte %d flipped and nothing noticed", codec, i)
			}
		}
	}
}

func TestOneKindCannotPassForAnother(t *testing.T) {
	b := pack(t, None, []byte("x"))
	if _, err := NewReader("wal/1", bytes.NewReader(b), int64(len(b)), Segment); err == nil {
		t.Error("a pack was read as a WAL segment")
	}
}

func FuzzReader(f *testing.F) {
	for _, codec := range codecs {
		f.Add(pack(f, codec, []byte("plain bytes of a small file")))
	}
	k := NewChecker(1)
	f.Cleanup(k.Close)
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := NewReader("pack/test/1", bytes.NewReader(b), int64(len(b)), Pack)
		if err != nil {
			return
		}
		if checked, read := found(t, k, r); !maps.Equal(checked, read) {
			t.Errorf("%v, by reading %v", checked, read)
		}
	})
}

func FuzzFrame(f *testing.F) {
	for _, codec := range codecs {
		enc, err := NewEncoder(codec, 3)
		if err != nil {
			f.Fatal(err)
		}
		stored, frame, err := enc.Append(nil, relation(3000))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(codec), frame.Plain, stored)
	}
	f.Fuzz(func(t *testing.T, codec uint8, plain uint32, stored []byte) {
		dec := NewDecoder()
		defer dec.Close()
		got, _ := dec.decode(nil, Codec(codec), Frame{Plain: min(plain, FrameLimit)}, stored)
		if len(got) > 4*FrameLimit {
			t.Errorf("%d bytes out of one frame", len(got))
		}
	})
}

func BenchmarkEncode(b *testing.B) {
	plain := relation(FrameLimit)
	for _, codec := range codecs {
		b.Run(codec.String(), func(b *testing.B) {
			enc, err := NewEncoder(codec, 3)
			if err != nil {
				b.Fatal(err)
			}
			var dst []byte
			b.SetBytes(FrameLimit)
			b.ReportAllocs()
			for b.Loop() {
				if dst, _, err = enc.Append(dst[:0], plain); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
