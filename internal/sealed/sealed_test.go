package sealed

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/pgmoneta/pgmoneta-go/internal/container"
	"github.com/pgmoneta/pgmoneta-go/internal/vault"
)

// masters are two master keys; deriving takes a while, so that all tests share them.
var masters = sync.OnceValue(func() [2]*vault.MasterKey {
	var keys [2]*vault.MasterKey
	for i := range keys {
		k, err := vault.NewMasterKey(vault.NewSecret("correct horse"), bytes.Repeat([]byte{byte(i)}, vault.SaltSize))
		if err != nil {
			panic(err)
		}
		keys[i] = k
	}
	return keys
})

func seal(t testing.TB, plain []byte, master *vault.MasterKey, c container.Cipher) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := NewWriter(&out, master, c)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(plain); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func open(b []byte, master *vault.MasterKey) ([]byte, error) {
	r, err := Open("the file", bytes.NewReader(b), int64(len(b)), master)
	if err != nil {
		return nil, err
	}
	plain, err := io.ReadAll(r)
	return plain, errors.Join(err, r.Close())
}

func noise(n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(n)})
	_, _ = r.Read(b)
	return b
}

func TestSealedFileIsReadBack(t *testing.T) {
	t.Parallel()
	for _, size := range []int{0, 1, container.FrameLimit, 2*container.FrameLimit + 17} {
		for _, c := range []container.Cipher{container.AES128, container.AES192, container.AES256} {
			plain := noise(size)
			b := seal(t, plain, masters()[0], c)
			if !Is(b) || size > 0 && bytes.Contains(b, plain[:min(size, 64)]) && size > 16 {
				t.Errorf("%d bytes with %s: %t, or legible", size, c, Is(b))
			}
			if got, err := open(b, masters()[0]); err != nil || !bytes.Equal(got, plain) {
				t.Errorf("%d bytes with %s: %d bytes, %v", size, c, len(got), err)
			}
		}
	}
	if _, err := NewWriter(io.Discard, masters()[0], container.Plain); err == nil {
		t.Error("a sealed file without a cipher was begun")
	}
}

func TestSealedFileTellsAnotherMasterKeyFromDamage(t *testing.T) {
	t.Parallel()
	b := seal(t, noise(5000), masters()[0], container.AES256)
	var other *KeyError
	if _, err := open(b, masters()[1]); !errors.As(err, &other) || other.Name != "the file" {
		t.Errorf("another master key: %v", err)
	}
	var damaged *container.DamagedError
	check := func(what string, b []byte) {
		t.Helper()
		if _, err := open(b, masters()[0]); !errors.As(err, &damaged) || damaged.Object != "the file" {
			t.Fatalf("%s: %v", what, err)
		}
	}
	for n := range b {
		check("cut", b[:n])
		turned := bytes.Clone(b)
		turned[n] ^= 1
		check("a bit turned", turned)
	}
	check("longer", append(bytes.Clone(b), 0))
	again := seal(t, noise(5000), masters()[0], container.AES256)
	check("another's beginning", append(bytes.Clone(again[:1000]), b[1000:]...))
	var plain bytes.Buffer
	w, err := container.NewStreamWriter(&plain, container.Header{Kind: container.File, Codec: container.None}, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Finish(); err != nil {
		t.Fatal(err)
	}
	check("not encrypted", plain.Bytes())
}

func FuzzOpen(f *testing.F) {
	good := seal(f, noise(100), masters()[0], container.AES256)
	f.Add(good)
	f.Add(good[:len(good)-1])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		if plain, err := open(b, masters()[0]); err == nil && !bytes.Equal(b, good) {
			t.Errorf("%d bytes were made up and read as %d", len(b), len(plain))
		}
	})
}
