//go:build disk

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pgmoneta/pgmoneta-go/test/pgtest"
)

// A disk is an ext4 file system in a file, mounted over a loop device.
type disk struct {
	image, at, device string
}

// newDisk mounts an empty file system that becomes read-only on its first error.
func newDisk(t *testing.T, at string) *disk {
	t.Helper()
	d := &disk{image: filepath.Join(t.TempDir(), "image"), at: at}
	if err := os.Mkdir(at, 0o755); err != nil {
		t.Fatal(err)
	}
	run(t, "truncate", "--size=400M", d.image)
	run(t, "mkfs.ext4", "-q", d.image)
	d.mount(t)
	t.Cleanup(func() { d.unmount(t) })
	return d
}

// mount takes a new device each time: on one whose file system failed and is still open
// somewhere the kernel mounts that very file system again.
func (d *disk) mount(t *testing.T) {
	t.Helper()
	d.device = run(t, "losetup", "--find", "--show", d.image)
	run(t, "mount", "-o", "errors=remount-ro", d.device, d.at)
}

// unmount also lets go of the device, as soon as nothing below is open any more.
func (d *disk) unmount(t *testing.T) {
	t.Helper()
	run(t, "umount", "--lazy", d.at)
	run(t, "losetup", "--detach", d.device)
}

// fail makes the kernel see an error: from now on nothing can be written or synced, whatever is open.
func (d *disk) fail(t *testing.T) {
	t.Helper()
	if err := os.WriteFile("/sys/fs/ext4/"+filepath.Base(d.device)+"/trigger_fs_error", []byte("1"), 0); err != nil {
		t.Fatal(err)
	}
}

// mend does what an administrator does, with the daemon running.
func (d *disk) mend(t *testing.T) {
	t.Helper()
	d.unmount(t)
	// It exits with 1 when it has mended something.
	out, err := exec.Command("fsck.ext4", "-f", "-y", d.image).CombinedOutput()
	if err != nil && !strings.Contains(string(out), "MODIFIED") {
		t.Fatalf("fsck.ext4: %v\n%s", err, out)
	}
	d.mount(t)
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v (this test needs root and loop devices)\n%s", name, strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// TestReadOnlyFileSystem lets the file system of base_dir fail under a server that waits for the daemon: no commit is
// acknowledged, nobody spins, and once the disk is mended everything goes on by itself with nothing lost.
func TestReadOnlyFileSystem(t *testing.T) {
	s := pgtest.Start(t, pgtest.Options{Major: pgtest.Newest(t), WALSegmentSize: 1})
	d := prepareDaemon(t, map[string]*pgtest.Server{"primary": s})
	disk := newDisk(t, d.path("base"))
	pgtest.Own(t, d.path("base"))
	d.start(t)
	d.waitStreaming(t, "primary")
	d.must(t, "backup", "primary")
	s.Exec(t, "ALTER SYSTEM SET synchronous_standby_names = 'pgmoneta'")
	s.Exec(t, "SELECT pg_reload_conf()")
	load := pgtest.StartLoad(t, s, 4)
	load.WaitFor(t, 100)

	disk.fail(t)
	waitFor(t, 20*time.Second, "the error to show", func() error {
		if why := fmt.Sprint(d.status(t, "primary")["LastError"]); !strings.Contains(why, "read-only") {
			return fmt.Errorf("last error %q", why)
		}
		return nil
	})
	acknowledged, worker := load.Count(), d.worker(t, "primary")
	began := processorTime(t, worker)
	const watched = 5 * time.Second
	time.Sleep(watched) // nothing may happen in it
	if n := load.Count() - acknowledged; n > 0 {
		t.Errorf("%d commits were acknowledged on a disk that cannot be written to", n)
	}
	if spent := processorTime(t, worker) - began; spent > watched/10 {
		t.Errorf("the worker took %s of processor in %s of trouble", spent, watched)
	}

	disk.mend(t)
	load.WaitFor(t, 100)
	acked := load.Stop()
	d.waitFlushed(t, "primary", s)
	d.must(t, "wal", "check", "primary")
	copy := d.restored(t, s.Major, "primary", "latest")
	if missing := acked.Missing(t, copy); len(missing) > 0 {
		t.Errorf("%d of %d acknowledged rows are missing: %s", len(missing), len(acked), missing[0])
	}
	pgtest.EqualContent(t, s, copy)
	t.Logf("%d rows acknowledged, %d of them before the disk failed", len(acked), acknowledged)
}

// processorTime returns what a process has used. See proc(5); a tick is a hundredth of a second.
func processorTime(t *testing.T, pid int) time.Duration {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(stat), ") ") // the name may hold spaces
	var ticks time.Duration
	for _, field := range strings.Fields(rest)[11:13] {
		n, err := strconv.Atoi(field)
		if err != nil {
			t.Fatal(err)
		}
		ticks += time.Duration(n)
	}
	return ticks * 10 * time.Millisecond
}
