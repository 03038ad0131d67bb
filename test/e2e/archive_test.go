package e2e

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pgmoneta/pgmoneta-go/test/pgtest"
)

// separate runs pgmoneta-cli and returns both of its outputs.
func (d *daemon) separate(t *testing.T, args ...string) (stdout, stderr []byte, code int) {
	t.Helper()
	cmd := pgtest.Command(t, d.dir, filepath.Join(d.bin, "pgmoneta-cli"), append([]string{"-c", d.path("pgmoneta.conf")}, args...)...)
	var out, complaints bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaints
	_ = cmd.Run() // the exit code tells
	return out.Bytes(), complaints.Bytes(), cmd.ProcessState.ExitCode()
}

// unpacked has tar read an archive and starts what comes out of it.
func unpacked(t *testing.T, major int, content []byte, option string) *pgtest.Server {
	t.Helper()
	dir := t.TempDir()
	cmd := pgtest.Command(t, dir, "/usr/bin/tar", option, "-x", "-f", "-", "-C", dir)
	pgtest.Own(t, dir)
	cmd.Stdin = bytes.NewReader(content)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("tar: %v\n%s", err, out)
	}
	found, err := filepath.Glob(filepath.Join(dir, "primary-??????????????"))
	if err != nil || len(found) != 1 {
		t.Fatalf("unpacked %v, %v", found, err)
	}
	return pgtest.OpenDir(t, major, found[0], pgtest.Options{})
}

// ledger starts a daemon with one backup, of a table with 5,000 rows, and 1,000 more rows in the WAL after it.
func ledger(t *testing.T) (*pgtest.Server, *daemon) {
	t.Helper()
	s := pgtest.Start(t, pgtest.Options{})
	d := newDaemon(t, map[string]*pgtest.Server{"primary": s}, "compression = gzip")
	d.waitStreaming(t, "primary")
	s.Exec(t, "CREATE TABLE ledger AS SELECT i FROM generate_series(1, 5000) i")
	d.must(t, "backup", "primary")
	s.Exec(t, "INSERT INTO ledger SELECT i FROM generate_series(5001, 6000) i")
	d.stored(t, "primary", s.SwitchWAL(t))
	return s, d
}

// An archive on standard output is a tar and nothing else; one that could not be finished has another exit code.
func TestArchiveToStandardOutput(t *testing.T) {
	t.Parallel()
	s, d := ledger(t)
	tar, complaints, code := d.separate(t, "archive", "--offline", "primary", "newest", "latest", "-")
	if code != 0 || !strings.Contains(string(complaints), "archived backup") {
		t.Fatalf("exit %d\n%s", code, complaints)
	}
	if got := unpacked(t, s.Major, tar, "-z").QueryString(t, "SELECT count(*) FROM ledger"); got != "6000" {
		t.Errorf("%s rows", got)
	}
	for _, tt := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"archive", "primary", "newest", "-"}, 1, "--offline"},
		{[]string{"archive", "--offline", "primary", "20200101000000", "-"}, 2, "no archive"},
		{[]string{"archive", "--offline", "primary", "newest", "lsn=FF/0", "-"}, 2, "no archive"},
	} {
		if out, complaints, code := d.separate(t, tt.args...); code != tt.code || len(out) > 0 || !strings.Contains(string(complaints), tt.says) {
			t.Errorf("%v: exit %d, %d bytes on standard output\n%s", tt.args, code, len(out), complaints)
		}
	}
	// The reader leaves, and a pack is damaged in the middle of it.
	full := pgtest.Command(t, d.dir, "/bin/sh", "-c", filepath.Join(d.bin, "pgmoneta-cli")+" -c "+d.path("pgmoneta.conf")+
		" archive --offline primary newest - > /dev/full")
	if out, err := full.CombinedOutput(); err == nil || !strings.Contains(string(out), "no space left") {
		t.Errorf("a full disk: %v\n%s", err, out)
	}
	packs, err := filepath.Glob(d.path("base/primary/pack/*/*"))
	if err != nil || len(packs) == 0 {
		t.Fatal(packs, err)
	}
	b, err := os.ReadFile(packs[0])
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.Chmod(packs[0], 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(packs[0], b, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, complaints, code := d.separate(t, "archive", "--offline", "primary", "newest", "-"); code != 2 || !strings.Contains(string(complaints), "no archive") {
		t.Errorf("of a damaged repository: exit %d\n%s", code, complaints)
	}
}

// Of an encrypted repository an archive is encrypted too, and the master key alone opens it.
func TestArchiveOfAnEncryptedRepositoryIsSealed(t *testing.T) {
	t.Parallel()
	s := pgtest.Start(t, pgtest.Options{WALSegmentSize: 1})
	plant(t, s, 1)
	d := prepareDaemon(t, map[string]*pgtest.Server{"primary": s}, "compression = none", "encryption = aes-192")
	d.mustAdmin(t, "-P", "correct horse battery", "master-key")
	d.start(t)
	d.waitStreaming(t, "primary")
	d.must(t, "backup", "primary")
	dir := d.path("archives")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	pgtest.Own(t, dir)
	name := d.must(t, "archive", "primary", "newest", dir)["FileName"].(string)
	if !strings.HasSuffix(name, ".tar.aes") {
		t.Errorf("the file is %s", name)
	}
	if found := d.legible(t); len(found) > 0 {
		t.Errorf("legible in %v", found)
	}
	streamed, complaints, code := d.separate(t, "archive", "--offline", "primary", "newest", "-")
	if code != 0 || bytes.Contains(streamed, []byte(plantedText[:30])) {
		t.Errorf("to standard output: exit %d, %d bytes\n%s", code, len(streamed), complaints)
	}
	if err := os.WriteFile(filepath.Join(dir, "other.tar.aes"), streamed, 0o644); err != nil {
		t.Fatal(err)
	}
	tar, complaints, code := d.separate(t, "decrypt", filepath.Join(dir, "other.tar.aes"), "-")
	if code != 0 {
		t.Fatalf("decrypt to standard output: exit %d\n%s", code, complaints)
	}
	pgtest.EqualContent(t, s, unpacked(t, s.Major, tar, "--no-same-owner"))
	if err := os.WriteFile(filepath.Join(dir, "cut.tar.aes"), streamed[:len(streamed)-1000], 0o644); err != nil {
		t.Fatal(err)
	}
	pgtest.Own(t, dir)
	if out, complaints, code := d.separate(t, "decrypt", filepath.Join(dir, "cut.tar.aes"), "-"); code != 2 || len(out) > 0 || !strings.Contains(string(complaints), "damaged") {
		t.Errorf("decrypt of one that was cut: exit %d, %d bytes\n%s", code, len(out), complaints)
	}
	if got := d.must(t, "decrypt", name)["DestinationFile"]; got != strings.TrimSuffix(name, ".aes") {
		t.Errorf("decrypted to %v", got)
	}
	again := d.must(t, "encrypt", strings.TrimSuffix(name, ".aes"))["DestinationFile"]
	if again != name {
		t.Errorf("encrypted to %v", again)
	}
	plain := d.must(t, "archive", "--plain", "primary", "newest", dir)["FileName"].(string)
	content, err := os.ReadFile(plain)
	if err != nil || !bytes.Contains(content, []byte(plantedText[:30])) {
		t.Errorf("--plain: %s of %d bytes, %v", plain, len(content), err)
	}
	if err := os.Rename(d.path(".pgmoneta/master.key"), d.path("master.key")); err != nil {
		t.Fatal(err)
	}
	if out, code := d.cli(t, "decrypt", name); code != 2 || !strings.Contains(out, "master key") {
		t.Errorf("decrypt without the master key: exit %d\n%s", code, out)
	}
}
