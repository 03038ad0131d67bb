package container

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strings"
	"testing"
)

var ciphers = []Cipher{AES128, AES192, AES256}

const (
	testRepository = "WKRS7GPJ3JYAIRNQ2RQBPAT2QJ"
	testObject     = "pack/20261121120000/1"
)

func testKey(t testing.TB, number uint32) Key {
	t.Helper()
	k, err := NewKey(testRepository, number, sha256.Sum256([]byte{byte(number)}))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// ring has keys 1 and 2.
func ring(t testing.TB) Keys {
	return func(n uint32) (Key, error) {
		if n > 2 {
			return Key{}, errors.New("no such key")
		}
		return testKey(t, n), nil
	}
}

func sealAs(t testing.TB, object string, codec Codec, c Cipher, key Key, plain []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := NewSealedWriter(&out, Header{Kind: Pack, Codec: codec, Cipher: c}, object, key)
	if err != nil {
		t.Fatal(err)
	}
	s, err := w.Stream(3)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Write(plain); err != nil {
		t.Fatal(err)
	}
	if err := s.Finish(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func seal(t testing.TB, codec Codec, plain []byte) []byte {
	return sealAs(t, testObject, codec, AES256, testKey(t, 1), plain)
}

func unseal(object string, b []byte, keys Keys) ([]byte, error) {
	r, err := Open(object, bytes.NewReader(b), int64(len(b)), Pack, keys)
	if err != nil {
		return nil, err
	}
	s := r.Stream()
	defer s.Close()
	return io.ReadAll(s)
}

func TestSealedRoundTrip(t *testing.T) {
	t.Parallel()
	for _, c := range ciphers {
		for _, codec := range codecs {
			for _, n := range []int{0, 1, FrameLimit, 2*FrameLimit + 17} {
				plain := relation(n)
				b := sealAs(t, testObject, codec, c, testKey(t, 2), plain)
				got, err := unseal(testObject, b, ring(t))
				if err != nil || !bytes.Equal(got, plain) {
					t.Errorf("%s, %s, %d bytes: %d bytes came back, %v", c, codec, n, len(got), err)
				}
			}
		}
	}
}

func TestSealedObjectHidesContent(t *testing.T) {
	t.Parallel()
	plain := []byte(strings.Repeat("planted secret ", 1000))
	b := seal(t, None, plain)
	sum := sha256.Sum256(plain)
	if bytes.Contains(b, []byte("planted")) || bytes.Contains(b, sum[:]) {
		t.Error("plain bytes or their hash are legible in a sealed object")
	}
	if bytes.Equal(b[headerSize:], seal(t, None, plain)[headerSize:]) {
		t.Error("the same bytes sealed twice are the same: the salt does not change")
	}
}

// TestSealedFormatIsAsDocumented opens a frame with nothing but the standard
// library and the words of doc/REPOSITORY.md.
func TestSealedFormatIsAsDocumented(t *testing.T) {
	t.Parallel()
	plain := []byte("a frame without a codec")
	b := sealAs(t, testObject, None, AES192, testKey(t, 1), plain)
	secret := sha256.Sum256([]byte{1})
	key, err := hkdf.Key(sha256.New, secret[:], b[32:64], "pgmoneta\x00"+testRepository+"\x00"+testObject+"\x00\x02", 24)
	if err != nil {
		t.Fatal(err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	data := append(bytes.Clone(b[:64]), byte(len(testObject)), 0, 0, 0)
	data = append(data, testObject...)
	got, err := gcm.Open(nil, make([]byte, 12), b[64:64+len(plain)+16], append(bytes.Clone(data), make([]byte, 8)...))
	if err != nil || !bytes.Equal(got, plain) {
		t.Fatalf("frame 0: %q, %v", got, err)
	}
	at := 64 + len(plain) + 16
	data = binary.LittleEndian.AppendUint64(data, 1)
	data = binary.LittleEndian.AppendUint64(data, uint64(at))
	entry, err := gcm.Open(nil, []byte{0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0}, b[at+8:at+8+56+16], data)
	if sum := sha256.Sum256(plain); err != nil || !bytes.Equal(entry[8:40], sum[:]) {
		t.Fatalf("index: %x, %v", entry, err)
	}
}

func TestKeyErrorsAreNotDamage(t *testing.T) {
	t.Parallel()
	b := sealAs(t, testObject, Zstd, AES256, testKey(t, 1), relation(100))
	lost := errors.New("key/3 is missing")
	for _, tt := range []struct {
		name string
		read func() error
		want error
	}{
		{"no keys at all", func() error { _, err := unpack(b); return err }, ErrNoKeys},
		{"key not found", func() error {
			_, err := unseal(testObject, b, func(uint32) (Key, error) { return Key{}, lost })
			return err
		}, lost},
	} {
		err := tt.read()
		var key *KeyError
		if !errors.As(err, &key) || !errors.Is(err, tt.want) || key.Number != 1 || errors.As(err, new(*DamagedError)) {
			t.Errorf("%s: %v, want a KeyError about key 1", tt.name, err)
		}
	}
}

// restoreChecksums makes the checksums right again that need no key, as
// somebody would who knows the format.
func restoreChecksums(b []byte) {
	le := binary.LittleEndian
	le.PutUint32(b[28:], headerSum(b))
	t := b[len(b)-trailerSize:]
	if at := le.Uint64(t); at < uint64(len(b)-trailerSize-8) {
		le.PutUint32(t[20:], crc32.Checksum(b[at+8:len(b)-trailerSize], castagnoli))
	}
	le.PutUint32(t[28:], crc32.Checksum(t[:28], castagnoli))
}

func TestForgeriesAreFound(t *testing.T) {
	t.Parallel()
	plain := relation(3 * FrameLimit)
	good := seal(t, None, plain)
	frame := FrameLimit + tagSize
	at := func(i int) int { return headerSize + i*frame }
	other, err := NewKey("ANOTHERREPOSITORY", 1, sha256.Sum256([]byte{1}))
	if err != nil {
		t.Fatal(err)
	}
	wrong, err := NewKey(testRepository, 1, sha256.Sum256([]byte("wrong")))
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name   string
		object string
		forge  func() []byte
	}{
		{"two frames exchanged", testObject, func() []byte {
			b := bytes.Clone(good)
			copy(b[at(0):at(1)], good[at(1):at(2)])
			copy(b[at(1):at(2)], good[at(0):at(1)])
			return b
		}},
		{"a frame of another object", testObject, func() []byte {
			b := bytes.Clone(good)
			copy(b[at(1):at(2)], seal(t, None, plain)[at(1):at(2)])
			return b
		}},
		{"index of another object", testObject, func() []byte {
			b := bytes.Clone(good)
			copy(b[at(3):], seal(t, None, plain)[at(3):])
			return b
		}},
		{"header of another object", testObject, func() []byte {
			b := bytes.Clone(good)
			copy(b, seal(t, None, plain)[:headerSize])
			return b
		}},
		{"frame removed, trailer mended", testObject, func() []byte {
			b := append(bytes.Clone(good[:at(2)]), good[at(3):]...)
			binary.LittleEndian.PutUint64(b[len(b)-trailerSize:], uint64(at(2)))
			return b
		}},
		{"index claims fewer frames", testObject, func() []byte {
			b := append(bytes.Clone(good[:len(good)-trailerSize-entrySize]), good[len(good)-trailerSize:]...)
			binary.LittleEndian.PutUint32(b[at(3)+4:], 2*entrySize+tagSize+trailerSize)
			binary.LittleEndian.PutUint32(b[len(b)-trailerSize+16:], 2)
			return b
		}},
		{"another name", "pack/20261121120000/2", func() []byte { return bytes.Clone(good) }},
		{"another repository", testObject, func() []byte { return sealAs(t, testObject, None, AES256, other, plain) }},
		{"another key of the same number", testObject, func() []byte { return sealAs(t, testObject, None, AES256, wrong, plain) }},
		{"another number of the key", testObject, func() []byte { b := bytes.Clone(good); b[21] = 2; return b }},
		{"another cipher", testObject, func() []byte { b := bytes.Clone(good); b[20] = byte(AES128); return b }},
		{"another codec", testObject, func() []byte { b := bytes.Clone(good); b[19] = byte(Zstd); return b }},
		{"cipher taken away", testObject, func() []byte {
			b := bytes.Clone(good)
			clear(b[20:24])
			clear(b[32:64])
			return b
		}},
		{"plain length in the trailer", testObject, func() []byte { b := bytes.Clone(good); b[len(b)-trailerSize+8]++; return b }},
		{"bytes between frames and index", testObject, func() []byte {
			b := append(bytes.Clone(good[:at(3)]), 0)
			b = append(b, good[at(3):]...)
			binary.LittleEndian.PutUint64(b[len(b)-trailerSize:], uint64(at(3)+1))
			return b
		}},
		{"bytes behind the end", testObject, func() []byte { return append(bytes.Clone(good), 0) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := tt.forge()
			restoreChecksums(b)
			got, err := unseal(tt.object, b, ring(t))
			var d *DamagedError
			if !errors.As(err, &d) || d.Object != tt.object {
				t.Errorf("%d bytes came back, %v: want a DamagedError that names the object", len(got), err)
			}
			if !bytes.HasPrefix(plain, got) {
				t.Error("bytes came back that were not stored")
			}
		})
	}
}

func TestEveryTruncationOfASealedObjectIsRefused(t *testing.T) {
	t.Parallel()
	b := seal(t, None, relation(FrameLimit+100))
	for n := range len(b) {
		if n > 1000 && n < FrameLimit-10 {
			continue // inside the first frame
		}
		if got, err := unseal(testObject, b[:n], ring(t)); !errors.As(err, new(*DamagedError)) {
			t.Fatalf("the first %d of %d bytes: %d bytes came back, %v", n, len(b), len(got), err)
		}
	}
}

func TestEveryFlippedBitOfASealedObjectIsFound(t *testing.T) {
	t.Parallel()
	plain := relation(2000)
	for _, codec := range []Codec{None, Zstd, LZ4} {
		b := seal(t, codec, plain)
		for i := range b {
			for _, mend := range []bool{false, true} {
				forged := bytes.Clone(b)
				forged[i] ^= 1 << (i % 8)
				if mend {
					restoreChecksums(forged)
				}
				got, err := unseal(testObject, forged, ring(t))
				mended := mend && bytes.Equal(forged, b) // it was a checksum
				if err == nil && !mended {
					t.Fatalf("%s: bit of byte %d flipped, checksums mended %t: nothing noticed", codec, i, mend)
				}
				if err != nil && !bytes.HasPrefix(plain, got) {
					t.Fatalf("%s: bit of byte %d flipped: wrong bytes came back", codec, i)
				}
				if err != nil && !errors.As(err, new(*DamagedError)) && !errors.As(err, new(*KeyError)) {
					t.Fatalf("%s: bit of byte %d flipped: %v does not name the object", codec, i, err)
				}
			}
		}
	}
}

func TestSealingIsNeverLeftOut(t *testing.T) {
	t.Parallel()
	if _, err := NewWriter(io.Discard, Header{Kind: Pack, Cipher: AES256}); err == nil {
		t.Error("a header with a cipher was written without a key")
	}
	for _, h := range []Header{{Kind: Pack}, {Kind: Pack, Cipher: 9}} {
		if _, err := NewSealedWriter(io.Discard, h, testObject, testKey(t, 1)); err == nil {
			t.Errorf("a sealed container with cipher %s was begun", h.Cipher)
		}
	}
	if _, err := NewSealedWriter(io.Discard, Header{Kind: Pack, Cipher: AES256}, testObject, Key{}); err == nil {
		t.Error("a sealed container was begun with no key")
	}
}

func TestParseCipher(t *testing.T) {
	t.Parallel()
	for _, c := range append(ciphers, Plain) {
		if got, err := ParseCipher(c.String()); got != c || err != nil {
			t.Errorf("ParseCipher(%q) = %v, %v", c, got, err)
		}
	}
	if _, err := ParseCipher("aes-256-cbc"); err == nil {
		t.Error("aes-256-cbc was accepted")
	}
}

func TestKeyDoesNotPrint(t *testing.T) {
	t.Parallel()
	k := testKey(t, 1)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x"} {
		if got := fmt.Sprintf(verb, k); got != "***" {
			t.Errorf("%s prints %q", verb, got)
		}
	}
}

// FuzzSealedReader changes sealed objects. Without the key nothing but what was
// sealed can come out of them.
func FuzzSealedReader(f *testing.F) {
	plain := []byte("plain bytes of a small file")
	for _, c := range ciphers {
		f.Add(sealAs(f, testObject, Zstd, c, testKey(f, 1), plain), true)
	}
	f.Fuzz(func(t *testing.T, b []byte, mend bool) {
		if mend && len(b) > headerSize+trailerSize {
			restoreChecksums(b)
		}
		r, err := Open(testObject, bytes.NewReader(b), int64(len(b)), Pack, ring(t))
		if err != nil || r.Header().Cipher == Plain {
			return
		}
		s := r.Stream()
		defer s.Close()
		if got, err := io.ReadAll(s); err == nil && !bytes.Equal(got, plain) {
			t.Errorf("%q came out of a forged object", got)
		}
	})
}

func BenchmarkSeal(b *testing.B) {
	plain := relation(FrameLimit)
	for _, c := range ciphers {
		b.Run(c.String(), func(b *testing.B) {
			w, err := NewSealedWriter(io.Discard, Header{Kind: Pack, Cipher: c}, testObject, testKey(b, 1))
			if err != nil {
				b.Fatal(err)
			}
			b.SetBytes(FrameLimit)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := w.WriteFrame(plain, Frame{Plain: FrameLimit}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
