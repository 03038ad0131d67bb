package compat

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pgmoneta/pgmoneta-go/internal/container"
	"github.com/pgmoneta/pgmoneta-go/internal/mgmt"
	"github.com/pgmoneta/pgmoneta-go/internal/onefile"
	"github.com/pgmoneta/pgmoneta-go/internal/sealed"
	"github.com/pgmoneta/pgmoneta-go/internal/vault"
	"github.com/pgmoneta/pgmoneta-go/test/pgtest"
)

// files is a directory with single files in it.
type files struct {
	t   testing.TB
	dir string
}

func (f files) path(name string) string { return filepath.Join(f.dir, name) }

func (f files) write(name string, content []byte) string {
	f.t.Helper()
	must(f.t, os.WriteFile(f.path(name), content, 0o640))
	return f.path(name)
}

// only fails the test unless the directory holds nothing but a file with that content and mode.
func (f files) only(name string, content []byte) {
	f.t.Helper()
	entries, err := os.ReadDir(f.dir)
	must(f.t, err)
	if len(entries) != 1 || entries[0].Name() != name {
		f.t.Fatalf("there is %v, want %s alone", entries, name)
	}
	got, err := os.ReadFile(f.path(name))
	must(f.t, err)
	info, err := os.Stat(f.path(name))
	must(f.t, err)
	if !bytes.Equal(got, content) || info.Mode().Perm() != 0o640 {
		f.t.Fatalf("%s has %d bytes, mode %s; want %d, the same bytes", name, len(got), info.Mode(), len(content))
	}
}

func (r *Repository) master(t testing.TB) *vault.MasterKey {
	t.Helper()
	key, err := vault.ParseMasterKey(r.MasterKey())
	must(t, err)
	return key
}

func contents(t testing.TB) [][]byte {
	return [][]byte{nil, []byte("x"), bytes.Repeat([]byte("all work and no play\n"), 5000), random(t, 1<<20+5)}
}

func TestDecryptsWhatCPgmonetaEncrypted(t *testing.T) {
	t.Parallel()
	r := New(t, t.TempDir(), "primary")
	master := r.master(t)
	for _, bits := range []int{128, 192, 256} {
		for _, plain := range contents(t) {
			f := files{t, t.TempDir()}
			path := f.write("base.tar.aes", r.Seal(t, plain, bits, random(t, 16)))
			if err := onefile.DecryptTo(context.Background(), path, master, new(bytes.Buffer)); err == nil {
				t.Error("it was written out before it was authenticated")
			}
			got, err := onefile.Decrypt(context.Background(), path, master)
			if err != nil || got != f.path("base.tar") {
				t.Fatalf("%d bytes, AES-%d: %s, %v", len(plain), bits, got, err)
			}
			f.only("base.tar", plain)
		}
	}
	plain := []byte("of another master key")
	for what, b := range map[string][]byte{
		"another key": New(t, t.TempDir(), "primary").Seal(t, plain, 256, random(t, 16)),
		"cut":         r.Seal(t, plain, 256, random(t, 16))[:50],
		"too short":   []byte("short"),
	} {
		f := files{t, t.TempDir()}
		if _, err := onefile.Decrypt(context.Background(), f.write("base.tar.aes", b), master); err == nil || !strings.Contains(err.Error(), "base.tar.aes") {
			t.Errorf("%s: %v", what, err)
		}
		f.only("base.tar.aes", b)
	}
}

func TestEncryptedFileIsDecrypted(t *testing.T) {
	t.Parallel()
	r := New(t, t.TempDir(), "primary")
	master := r.master(t)
	for _, plain := range contents(t) {
		f := files{t, t.TempDir()}
		path, err := onefile.Encrypt(context.Background(), f.write("dump", plain), container.AES192, master)
		must(t, err)
		var out bytes.Buffer
		if err := onefile.DecryptTo(context.Background(), path, master, &out); err != nil || !bytes.Equal(out.Bytes(), plain) {
			t.Errorf("%d bytes to a writer: %d, %v", len(plain), out.Len(), err)
		}
		stored, err := os.ReadFile(path)
		must(t, err)
		f.only("dump.aes", stored)
		if _, err = onefile.Decrypt(context.Background(), path, New(t, t.TempDir(), "other").master(t)); !errors.As(err, new(*sealed.KeyError)) {
			t.Errorf("another master key: %v", err)
		}
		f.only("dump.aes", stored)
		for _, broken := range [][]byte{stored[:len(stored)-1], append(bytes.Clone(stored), 0), append(bytes.Clone(stored[:70]), bytes.Repeat([]byte{7}, len(stored)-70)...)} {
			b := files{t, t.TempDir()}
			if _, err := onefile.Decrypt(context.Background(), b.write("dump.aes", broken), master); !errors.As(err, new(*container.DamagedError)) {
				t.Errorf("%d of %d bytes: %v", len(broken), len(stored), err)
			}
			b.only("dump.aes", broken)
		}
		_, err = onefile.Decrypt(context.Background(), path, master)
		must(t, err)
		f.only("dump", plain)
	}
}

// The daemon too reads what C pgmoneta made, when its client asks for it.
func TestDaemonConvertsWhatCPgmonetaMade(t *testing.T) {
	t.Parallel()
	r := New(t, base(t), "primary")
	h := r.home(t, pgtest.Start(t, pgtest.Options{}), "")
	plain := bytes.Repeat([]byte("all work and no play\n"), 5000)
	h.write("files/base.tar.lz4.aes", string(r.Seal(t, LZ4(plain, false), 192, random(t, 16))))
	pgtest.Own(t, h.dir)
	h.daemon()
	path := h.path("files/base.tar.lz4.aes")
	for _, command := range []mgmt.Command{mgmt.Decrypt, mgmt.Decompress} {
		conn, err := mgmt.Dial(t.Context(), h.path(mgmt.SocketName))
		must(t, err)
		conn.Version = "0.22.0"
		doc, err := conn.Call(t.Context(), command, mgmt.Document{"SourceFile": path})
		must(t, err)
		must(t, doc.Outcome().Err())
		path = doc.Object("Response").Text("DestinationFile")
		conn.Close()
	}
	if got, err := os.ReadFile(path); err != nil || path != h.path("files/base.tar") || !bytes.Equal(got, plain) {
		t.Errorf("%s: %d bytes, %v", path, len(got), err)
	}
}

// What is compressed the system's own tools read, and the other way round.
func TestCompressionIsThatOfTheTools(t *testing.T) {
	t.Parallel()
	for codec, tool := range map[container.Codec]string{container.Gzip: "gzip", container.Zstd: "zstd", container.Bzip2: "bzip2", container.LZ4: ""} {
		for _, plain := range contents(t) {
			f := files{t, t.TempDir()}
			path, err := onefile.Compress(context.Background(), f.write("dump", plain), codec, 3)
			must(t, err)
			stored, err := os.ReadFile(path)
			must(t, err)
			f.only(filepath.Base(path), stored)
			if tool != "" {
				out, err := exec.Command(tool, "-dcq", path).Output()
				if err != nil && strings.HasSuffix(path, ".zstd") { // its own suffix is .zst
					in := exec.Command(tool, "-dcq")
					in.Stdin = bytes.NewReader(stored)
					out, err = in.Output()
				}
				if err != nil || !bytes.Equal(out, plain) {
					t.Errorf("%s of %s: %d bytes, %v", tool, path, len(out), err)
				}
			}
			for _, cut := range []int{0, len(stored) / 2, len(stored) - 1} {
				c := files{t, t.TempDir()}
				if _, err := onefile.Decompress(context.Background(), c.write(filepath.Base(path), stored[:cut])); err == nil && !(codec == container.LZ4 && cut == 0) {
					t.Errorf("%s cut to %d of %d bytes was decompressed", codec, cut, len(stored))
				}
			}
			_, err = onefile.Decompress(context.Background(), path)
			must(t, err)
			f.only("dump", plain)
		}
	}
	for _, plain := range contents(t) {
		for _, streaming := range []bool{false, true} {
			f := files{t, t.TempDir()}
			_, err := onefile.Decompress(context.Background(), f.write("dump.lz4", LZ4(plain, streaming)))
			must(t, err)
			f.only("dump", plain)
		}
	}
}

func TestFilesAreRefusedByNameAndNeverReplaced(t *testing.T) {
	t.Parallel()
	r := New(t, t.TempDir(), "primary")
	master, ctx := r.master(t), context.Background()
	f := files{t, t.TempDir()}
	for name, try := range map[string]func(path string) (string, error){
		"a.aes":      func(p string) (string, error) { return onefile.Encrypt(ctx, p, container.AES256, master) },
		"a":          func(p string) (string, error) { return onefile.Decrypt(ctx, p, master) },
		"a.zst":      func(p string) (string, error) { return onefile.Compress(ctx, p, container.Gzip, 3) },
		"a.zstd.aes": func(p string) (string, error) { return onefile.Decompress(ctx, p) },
	} {
		if _, err := try(f.write(name, []byte("content"))); !errors.As(err, new(*onefile.SuffixError)) {
			t.Errorf("%s: %v", name, err)
		}
	}
	f = files{t, t.TempDir()}
	f.write("b.aes", []byte("is there"))
	if _, err := onefile.Encrypt(ctx, f.write("b", []byte("content")), container.AES256, master); !errors.Is(err, fs.ErrExist) {
		t.Errorf("over another file: %v", err)
	}
	f.write("c.aes.tmp", []byte("of another command"))
	if _, err := onefile.Encrypt(ctx, f.write("c", []byte("content")), container.AES256, master); err == nil || !strings.Contains(err.Error(), "another command") {
		t.Errorf("while another is at work: %v", err)
	}
	if _, err := onefile.Encrypt(ctx, f.dir, container.AES256, master); err == nil {
		t.Error("a directory was encrypted")
	}
	if _, err := onefile.Encrypt(ctx, f.path("missing"), container.AES256, master); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
	stopped, stop := context.WithCancel(ctx)
	stop()
	if _, err := onefile.Encrypt(stopped, f.write("d", []byte("content")), container.AES256, master); !errors.Is(err, context.Canceled) {
		t.Errorf("stopped: %v", err)
	}
	if left, _ := filepath.Glob(f.path("d*")); len(left) != 1 {
		t.Errorf("left %v", left)
	}
	for _, name := range []string{"b", "c", "d"} {
		if got, err := os.ReadFile(f.path(name)); err != nil || string(got) != "content" {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}
