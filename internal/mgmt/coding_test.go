package mgmt

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/pgmoneta/pgmoneta-go/internal/vault"
)

// masterKey is that of the published test vector.
func masterKey(t testing.TB) KeySource {
	t.Helper()
	key, err := vault.ParseMasterKey([]byte("bWFzdGVya2V5MTIz\nLf+lfhFcnzFBB2aM0ULzsA==\n"))
	if err != nil {
		t.Fatal(err)
	}
	return func() (*vault.MasterKey, error) { return key, nil }
}

func codings() (list []Coding) {
	for c := CompressionNone; c <= CompressionBzip2; c++ {
		for e := EncryptionNone; e <= EncryptionAES128; e++ {
			list = append(list, Coding{c, e})
		}
	}
	return list
}

func TestRequestsOfEveryCoding(t *testing.T) {
	t.Parallel()
	keys := masterKey(t)
	path := start(t, func(_ context.Context, req *Request) (Response, error) {
		if req.Server() == "" {
			return nil, nil
		}
		return nil, &Error{Code: CodeInfoNoBackup, Err: errors.New("no such backup")}
	}, Options{Keys: keys})
	for _, coding := range codings() {
		for _, args := range []Document{{}, {"Server": "it's", "Backup": "x"}} {
			c, err := Dial(t.Context(), path)
			if err != nil {
				t.Fatal(err)
			}
			c.Version, c.Coding, c.Keys = "0.22.0", coding, keys
			doc, err := c.Call(t.Context(), Info, args)
			_ = c.Close()
			if err != nil {
				t.Fatalf("%+v: %v", coding, err)
			}
			if o := doc.Outcome(); o.Status != (len(args) == 0) || !o.Status && o.Code != CodeInfoNoBackup {
				t.Errorf("%+v, %v: %+v", coding, args, o)
			}
		}
	}
}

// What C pgmoneta sent for a ping with compression lz4.
func TestLZ4RequestOf022(t *testing.T) {
	t.Parallel()
	const body = "AAAAhfEgeyJIZWFkZXIiOnsiQ2xpZW50VmVyc2lvbiI6IjAuMjIuMCIsIkNvbW1hbmQiOjkMAEJwcmVzIwChMywiRW5jcnlwdDIAkTAsIk91dHB1dAsA8BtUaW1lc3RhbXAiOiIyMDI2MTEyMTEyNDYwMiJ9LCJSZXF1ZXN0Ijp7fX0="
	text, err := Coding{Compression: CompressionLZ4}.decode([]byte(body), MaxRequest, nil)
	want := `{"Header":{"ClientVersion":"0.22.0","Command":9,"Compression":3,"Encryption":0,"Output":0,"Timestamp":"20261121124602"},"Request":{}}`
	if err != nil || string(text) != want {
		t.Errorf("%s, %v", text, err)
	}
}

// Clients of 0.22 ask the frame for its content's size.
func TestZstdFramesTellTheirSize(t *testing.T) {
	t.Parallel()
	for _, n := range []int{2, 300, 100_000} {
		b, err := CompressionZstd.compress(bytes.Repeat([]byte("x"), n))
		if err != nil {
			t.Fatal(err)
		}
		var h zstd.Header
		if err := h.Decode(b); err != nil || !h.HasFCS || h.FrameContentSize != uint64(n) {
			t.Errorf("%d bytes: %+v, %v", n, h, err)
		}
	}
}

// refusal sends a frame and returns the refusal, which must be readable without a key.
func refusal(t *testing.T, path string, coding Coding, body []byte) string {
	t.Helper()
	frame := binary.BigEndian.AppendUint32([]byte{byte(coding.Compression), byte(coding.Encryption)}, uint32(len(body)))
	answer := exchange(t, path, append(frame, body...))
	h, err := readHeader(bytes.NewReader(answer))
	if err != nil || !h.coding.plain() {
		t.Fatalf("%+v: answered %q, %v", coding, answer, err)
	}
	doc, err := Decode(answer[headerSize:])
	if err != nil || doc.Outcome().Code != CodeBadPayload {
		t.Fatalf("%+v: %q, %v", coding, answer, err)
	}
	return doc.Outcome().Message
}

func TestBodiesThatAreNotWhatTheirCodesSay(t *testing.T) {
	t.Parallel()
	path := start(t, succeed, Options{Keys: masterKey(t)})
	bare := start(t, succeed, Options{})
	var zipped bytes.Buffer
	w := gzip.NewWriter(&zipped)
	if _, err := io.CopyN(w, zeros{}, MaxRequest+1); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	encoded := func(b []byte) []byte { return base64.StdEncoding.AppendEncode(nil, b) }
	bomb := encoded(zipped.Bytes())
	sealed, err := Coding{Encryption: EncryptionAES128}.encode([]byte("{}"), masterKey(t))
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, path string
		coding     Coding
		body       []byte
		want       string
	}{
		{"empty gzip", path, Coding{Compression: CompressionGzip}, nil, "EOF"},
		{"truncated gzip", path, Coding{Compression: CompressionGzip}, encoded(zipped.Bytes()[:300]), "unexpected EOF"},
		{"gzip that grows", path, Coding{Compression: CompressionGzip}, bomb, "too long"},
		{"truncated zstd", path, Coding{Compression: CompressionZstd}, encoded([]byte("\x28\xb5\x2f\xfd\x20")), "EOF"},
		{"lz4 that claims much", path, Coding{Compression: CompressionLZ4}, encoded([]byte("\xff\xff\xff\xff\x00")), "too long"},
		{"lz4 that claims too much", path, Coding{Compression: CompressionLZ4}, encoded([]byte("\x00\xff\xff\xff\x00")), "cannot hold"},
		{"bzip2 of nothing", path, Coding{Compression: CompressionBzip2}, encoded([]byte("BZh9")), "EOF"},
		{"no base64", path, Coding{Compression: CompressionZstd}, []byte("{}"), "illegal base64"},
		{"another size of key", path, Coding{Encryption: EncryptionAES256}, sealed, "same master key"},
		{"no key", bare, Coding{Encryption: EncryptionAES128}, sealed, "needs the master key"},
		{"unknown compression", path, Coding{Compression: 5}, []byte("{}"), "compressions are 0 to 4"},
		{"unknown encryption", path, Coding{Encryption: 4}, []byte("{}"), "encryptions 0 to 3"},
	}
	for _, tt := range tests {
		if got := refusal(t, tt.path, tt.coding, tt.body); !strings.Contains(got, tt.want) {
			t.Errorf("%s: %q does not say %q", tt.name, got, tt.want)
		}
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func FuzzDecodeBody(f *testing.F) {
	keys := masterKey(f)
	for _, c := range codings() {
		body, err := c.encode([]byte(`{"Header":{},"Request":{"Server":"a"}}`), keys)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(byte(c.Compression), byte(c.Encryption), body)
	}
	const limit = 1 << 16
	f.Fuzz(func(t *testing.T, compression, encryption byte, body []byte) {
		c := Coding{Compression(compression % 5), Encryption(encryption % 4)}
		text, err := c.decode(body, limit, keys)
		if err == nil && len(text) > limit && !c.plain() {
			t.Error(fmt.Sprint(len(text), " bytes"))
		}
	})
}
