package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/container"
	"github.com/pgmoneta/pgmoneta-go/internal/mgmt"
	"github.com/pgmoneta/pgmoneta-go/internal/onefile"
	"github.com/pgmoneta/pgmoneta-go/internal/vault"
	"github.com/pgmoneta/pgmoneta-go/test/pgtest"
)

// converting starts a daemon that seals, and that can be reached over TCP.
func converting(t *testing.T, settings ...string) (d *daemon, local, remote *client) {
	t.Helper()
	s := pgtest.Start(t, pgtest.Options{WALSegmentSize: 1})
	port := freePort(t)
	d = prepareDaemon(t, map[string]*pgtest.Server{"primary": s}, append(settings, "encryption = aes", fmt.Sprintf("management = %d", port))...)
	d.mustAdmin(t, "master-key", "-P", "passphrase of the test")
	d.administrator(t, "letmein")
	if err := os.Mkdir(d.path("files"), 0o700); err != nil {
		t.Fatal(err)
	}
	pgtest.Own(t, d.dir)
	d.start(t)
	keys := keysOf(t, d)
	door := &mgmt.Remote{Address: fmt.Sprintf("127.0.0.1:%d", port), User: "dba", Password: vault.NewSecret("letmein")}
	return d, &client{daemon: d, keys: keys}, &client{daemon: d, keys: keys, door: door}
}

// put writes a file for a conversion, which the daemon may replace.
func (d *daemon) put(t *testing.T, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(d.path("files"), name)
	if err := os.WriteFile(path, content, 0o640); err != nil {
		t.Fatal(err)
	}
	pgtest.Own(t, d.path("files"))
	return path
}

// alone fails the test unless that file is all there is, with the content.
func (d *daemon) alone(t *testing.T, name string, content []byte) {
	t.Helper()
	if left := namesIn(t, d.path("files")); !slices.Equal(left, []string{name}) {
		t.Fatalf("there is %v, want %s alone", left, name)
	}
	if got, err := os.ReadFile(filepath.Join(d.path("files"), name)); err != nil || !bytes.Equal(got, content) {
		t.Fatalf("%s has %d bytes (%v), want %d, the same", name, len(got), err, len(content))
	}
}

func namesIn(t *testing.T, dir string) []string {
	t.Helper()
	names, err := fs.Glob(os.DirFS(dir), "*")
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// noise is content that no codec makes smaller.
func noise(n int) []byte {
	content := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{}).Read(content)
	return content
}

// convert asks for a command about a file and returns the path of the result.
func (c *client) convert(t *testing.T, command mgmt.Command, path string) string {
	t.Helper()
	return fmt.Sprint(c.must(t, command, mgmt.Document{"SourceFile": path})["DestinationFile"])
}

// Another client than ours has the daemon convert files: in every coding of its requests, over the socket and over
// TCP, with every codec that is configured.
func TestFilesAreConvertedForOtherClients(t *testing.T) {
	t.Parallel()
	d, local, remote := converting(t)
	content := bytes.Repeat([]byte("all work and no play\n"), 5000)
	for codec, suffix := range map[string]string{"zstd": ".zstd", "gzip": ".gz", "lz4": ".lz4", "bzip2": ".bz2"} {
		local.coding = mgmt.Coding{}
		local.must(t, mgmt.ConfSet, mgmt.Document{"ConfigKey": "compression", "ConfigValue": codec})
		for compression := range mgmt.CompressionBzip2 + 1 {
			for i, c := range []*client{local, remote} {
				if !long() && (int(compression)+len(suffix))%2 != i {
					continue
				}
				c.coding = mgmt.Coding{Compression: compression, Encryption: mgmt.Encryption(int(compression) % 4)}
				path := d.put(t, "note", content)
				for _, step := range []struct {
					command mgmt.Command
					path    string
				}{{mgmt.Compress, path + suffix}, {mgmt.Encrypt, path + suffix + ".aes"}, {mgmt.Decrypt, path + suffix}, {mgmt.Decompress, path}} {
					if got := c.convert(t, step.command, path); got != step.path {
						t.Fatalf("%s of %s: %s, want %s", step.command, path, got, step.path)
					}
					path = step.path
				}
				d.alone(t, "note", content)
			}
		}
	}
	// What the daemon made our own client reads, which asks nobody.
	sealed := remote.convert(t, mgmt.Encrypt, remote.convert(t, mgmt.Compress, d.put(t, "note", content)))
	out, code := d.cli(t, "decrypt", sealed, "-")
	if code != 0 || len(out) == 0 {
		t.Errorf("decrypt exits with %d", code)
	}
	info, err := os.Stat(sealed)
	if err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("%v, %v: the mode of the source is lost", info, err)
	}
	for _, job := range local.must(t, mgmt.Jobs, nil).List("Jobs") {
		if job := job.(mgmt.Document); job.Text("State") != "done" || job["Server"] != nil || !strings.HasPrefix(job.Text("File"), d.path("files/note")) {
			t.Errorf("job %v", job)
		}
	}
}

func TestFilesThatAreNotConverted(t *testing.T) {
	t.Parallel()
	d, local, remote := converting(t)
	other, err := vault.NewMasterKey(vault.NewSecret("another"), noise(16))
	if err != nil {
		t.Fatal(err)
	}
	foreign := d.put(t, "foreign", []byte("of another master key"))
	if foreign, err = onefile.Encrypt(t.Context(), foreign, container.AES256, other); err != nil {
		t.Fatal(err)
	}
	content := []byte("content")
	sealed, err := os.ReadFile(local.convert(t, mgmt.Encrypt, d.put(t, "cut", content)))
	if err != nil {
		t.Fatal(err)
	}
	cut := d.put(t, "cut.aes", sealed[:len(sealed)-1])
	torn := d.put(t, "torn.zstd", []byte{0x28, 0xb5, 0x2f, 0xfd, 0, 0})
	taken, note := d.put(t, "taken", content), d.put(t, "note", content)
	d.put(t, "taken.zstd", content)
	d.put(t, "taken.aes", content)
	link, shortcut := filepath.Join(d.path("files"), "link"), filepath.Join(d.path("files"), "shortcut")
	for target, at := range map[string]string{"note": link, d.path("base"): shortcut} {
		if err := os.Symlink(target, at); err != nil {
			t.Fatal(err)
		}
	}
	before := namesIn(t, d.path("files"))
	missing := filepath.Join(d.path("files"), "missing")
	tests := []struct {
		command mgmt.Command
		path    any
		code    mgmt.Code
		why     string
	}{
		{mgmt.Compress, "note", mgmt.CodeZstdOther, "an absolute path is needed"},
		{mgmt.Encrypt, nil, mgmt.CodeEncryptOther, "an absolute path is needed"},
		{mgmt.Compress, missing, mgmt.CodeZstdNoFile, "no such file"},
		{mgmt.Decompress, missing + ".zstd", mgmt.CodeZstdNoFile, "no such file"},
		{mgmt.Encrypt, missing, mgmt.CodeEncryptNoFile, "no such file"},
		{mgmt.Decrypt, missing + "/missing.aes", mgmt.CodeDecryptNoFile, "no such file"},
		{mgmt.Compress, d.path("files"), mgmt.CodeZstdOther, "not a regular file"},
		{mgmt.Encrypt, "/dev/null", mgmt.CodeEncryptOther, "not a regular file"},
		{mgmt.Compress, link, mgmt.CodeZstdOther, "no link to it"},
		{mgmt.Compress, taken, mgmt.CodeZstdOther, "file already exists"},
		{mgmt.Encrypt, taken, mgmt.CodeEncryptOther, "file already exists"},
		{mgmt.Decompress, note, mgmt.CodeZstdOther, "its name ends in none of"},
		{mgmt.Decrypt, note, mgmt.CodeDecryptOther, "does not end in .aes"},
		{mgmt.Compress, torn, mgmt.CodeZstdOther, "compressed already"},
		{mgmt.Encrypt, cut, mgmt.CodeEncryptOther, "encrypted already"},
		{mgmt.Encrypt, d.path(".pgmoneta/master.key"), mgmt.CodeEncryptOther, "it is the master key itself"},
		{mgmt.Decrypt, foreign, mgmt.CodeDecryptOther, "master key"},
		{mgmt.Decrypt, cut, mgmt.CodeDecryptOther, cut},
		{mgmt.Decompress, torn, mgmt.CodeZstdOther, torn},
		{mgmt.Encrypt, d.path("base/pgmoneta.jobs"), mgmt.CodeEncryptOther, "lies below base_dir"},
		{mgmt.Compress, d.path("base/primary/format"), mgmt.CodeZstdOther, "pgmoneta-cli archive"},
		{mgmt.Compress, shortcut + "/primary/format", mgmt.CodeZstdOther, "lies below base_dir"},
		{mgmt.Compress, d.path("files") + "/../base/primary/format", mgmt.CodeZstdOther, "lies below base_dir"},
	}
	for i, tt := range tests {
		c := []*client{local, remote}[i%2]
		o := c.call(t, tt.command, mgmt.Document{"SourceFile": tt.path}).Outcome()
		if o.Status || o.Code != tt.code || !strings.Contains(o.Message, tt.why) {
			t.Errorf("%s %v: %+v, want code %d, %q", tt.command, tt.path, o, tt.code, tt.why)
		}
	}
	if after := namesIn(t, d.path("files")); !slices.Equal(before, after) {
		t.Errorf("there is %v, was %v", after, before)
	}
	local.must(t, mgmt.ConfSet, mgmt.Document{"ConfigKey": "compression", "ConfigValue": "none"})
	if o := local.call(t, mgmt.Compress, mgmt.Document{"SourceFile": note}).Outcome(); o.Code != mgmt.CodeCompressUnknown || !strings.Contains(o.Message, "compression is none") {
		t.Errorf("without compression: %+v", o)
	}
}

// runningJob waits for a job of that kind to run and returns its number.
func (c *client) runningJob(t *testing.T, kind string) (number int64) {
	t.Helper()
	waitFor(t, time.Minute, kind, func() error {
		for _, job := range c.must(t, mgmt.Jobs, nil).List("Jobs") {
			if job := job.(mgmt.Document); job.Text("Kind") == kind && job.Text("State") == "running" {
				number, _ = job.Integer("Job")
				return nil
			}
		}
		return fmt.Errorf("it does not run")
	})
	return number
}

// send asks for a command about a file and returns its outcome when there is one.
func (c *client) send(t *testing.T, command mgmt.Command, args mgmt.Document) <-chan mgmt.Outcome {
	t.Helper()
	conn, outcome := c.dial(t), make(chan mgmt.Outcome, 1)
	go func() {
		defer conn.Close()
		doc, err := conn.Call(t.Context(), command, args)
		if err != nil {
			doc = mgmt.Document{"Outcome": mgmt.Document{"Message": err.Error()}}
		}
		outcome <- doc.Outcome()
	}()
	return outcome
}

// One file is converted at a time, and that can be cancelled, outlives its client, and ends with the daemon or its
// process: each time the file is as it was or as it was to become.
func TestConversionIsInterrupted(t *testing.T) {
	t.Parallel()
	d, c, _ := converting(t, "compression = bzip2")
	content := noise(12 << 20) // seconds of work
	big, small := d.put(t, "big", content), mgmt.Document{"SourceFile": d.put(t, "small", []byte("content"))}
	args := mgmt.Document{"SourceFile": big}

	first := c.send(t, mgmt.Compress, args)
	number := c.runningJob(t, "compress")
	if o := c.call(t, mgmt.Compress, mgmt.Document{"SourceFile": small["SourceFile"], "NoWait": true}).Outcome(); o.Status || !strings.Contains(o.Message, "busy with the compress of another file") {
		t.Errorf("beside another, without waiting: %+v", o)
	}
	second := c.send(t, mgmt.Encrypt, small) // waits
	if out, code := d.cli(t, "cancel", "primary", fmt.Sprint(number)); code != 2 {
		t.Errorf("cancelled as the job of a server: exit %d\n%s", code, out)
	}
	d.must(t, "cancel", "-", fmt.Sprint(number))
	if o := <-first; o.Status || o.Code != mgmt.CodeBzip2Other || !strings.Contains(o.Message, "cancelled on request") {
		t.Errorf("cancelled: %+v", o)
	}
	if o := <-second; !o.Status {
		t.Errorf("the one that waited: %+v", o)
	}
	if left := namesIn(t, d.path("files")); !slices.Equal(left, []string{"big", "small.aes"}) {
		t.Errorf("after the cancellation there is %v", left)
	}

	first = c.send(t, mgmt.Compress, args)
	there(t, big+".bz2.tmp")
	for _, pid := range d.children("pgmoneta: compress") {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	if o := <-first; o.Status || !strings.Contains(o.Message, "the compress ended without a result") {
		t.Errorf("killed: %+v", o)
	}
	if o := c.call(t, mgmt.Compress, args).Outcome(); o.Status || !strings.Contains(o.Message, "then remove this") {
		t.Errorf("after it was killed: %+v", o)
	}
	if err := os.Remove(big + ".bz2.tmp"); err != nil {
		t.Fatal(err)
	}

	d.leave(t, mgmt.Compress, args)
	there(t, big+".bz2")
	first = c.send(t, mgmt.Decompress, mgmt.Document{"SourceFile": big + ".bz2"})
	c.runningJob(t, "decompress")
	d.end()
	<-first
	if err := os.Remove(filepath.Join(d.path("files"), "small.aes")); err != nil {
		t.Fatal(err)
	}
	if left := namesIn(t, d.path("files")); !slices.Equal(left, []string{"big.bz2"}) {
		t.Errorf("after the end of the daemon there is %v", left)
	}
}

// there waits for a file.
func there(t *testing.T, path string) {
	t.Helper()
	waitFor(t, time.Minute, path, func() error {
		_, err := os.Stat(path)
		return err
	})
}

// leave sends a request and goes without its answer.
func (d *daemon) leave(t *testing.T, command mgmt.Command, args mgmt.Document) {
	t.Helper()
	conn, err := mgmt.Dial(t.Context(), d.path(mgmt.SocketName))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := conn.Call(ctx, command, args); err == nil {
		t.Errorf("%s was answered at once", command)
	}
}
