package durable

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// A Direct writes and reads large blocks of a file past the page cache (O_DIRECT). For what is written once
// and not read soon, such as a data directory that is restored or a pack, the cache is all cost: pages to be
// found and cleared, a copy, a flood of writing at the sync, and the pages of a database that give way to it.
// Beside that an error of the disk is told by the very write that met it.
//
// What is written is as durable as by any write: not before the file or its file system is synced. Nothing else
// may write the same blocks at the same time.
//
// WriteAt and ReadAt may be called by several goroutines at once.
type Direct struct {
	file io.WriterAt

	mu     sync.Mutex
	opened bool
	f      *os.File // nil when the file system has no such thing
}

const (
	// directBlock divides offsets and lengths, as disks with blocks of 4 KiB want it. Memory that a disk
	// wants aligned is: Go's allocator gives large slices whole pages.
	directBlock = 4096
	// DirectLeast is how many bytes are written or read past the page cache at least. For fewer
	// that would take longer than the copy that it saves.
	DirectLeast = 64 << 10
)

// NewDirect returns a Direct for f, an [*os.File] or a [File] that is open for reading and writing. With a File of
// another [FS] than [OS], and on file systems that have no such thing, it does nothing. Close it before f.
func NewDirect(f io.WriterAt) *Direct { return &Direct{file: f} }

// WriteAt writes b at an offset and reports whether it has. If not, because b is too small, not aligned, or
// the file system has no direct writes, the caller writes b to the file itself.
func (d *Direct) WriteAt(b []byte, at int64) (done bool, err error) {
	f := d.open(b, at)
	if f == nil {
		return false, nil
	}
	_, err = f.WriteAt(b, at)
	if errors.Is(err, unix.EINVAL) {
		return false, nil // the disk wants more than that, or a part of b is written and the rest is not aligned
	}
	return err == nil, err
}

// ReadAt reads from an offset as [io.ReaderAt] says, and reports whether it has, as WriteAt does.
func (d *Direct) ReadAt(b []byte, at int64) (n int, done bool, err error) {
	f := d.open(b, at)
	if f == nil {
		return 0, false, nil
	}
	n, err = f.ReadAt(b, at)
	if errors.Is(err, unix.EINVAL) {
		return 0, false, nil // as above, or the file ends within a block
	}
	return n, true, err
}

// open opens the file once more, when it is first needed. That does not go by its name, which may be another file's
// by now. It returns nil when b is not to be written or read there.
func (d *Direct) open(b []byte, at int64) *os.File {
	if len(b) < DirectLeast || len(b)%directBlock != 0 || at%directBlock != 0 {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.opened {
		return d.f
	}
	d.opened = true
	file, ok := d.file.(interface {
		syscall.Conn
		Name() string
	})
	if !ok {
		return nil
	}
	raw, err := file.SyscallConn()
	if err != nil {
		return nil
	}
	_ = raw.Control(func(fd uintptr) {
		again, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", fd), unix.O_RDWR|unix.O_DIRECT|unix.O_CLOEXEC, 0)
		if err == nil {
			d.f = os.NewFile(uintptr(again), file.Name())
		}
	})
	return d.f
}

// Close ends it; everything is left to the caller from then on.
func (d *Direct) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	f := d.f
	d.opened, d.f = true, nil
	if f == nil {
		return nil
	}
	return f.Close()
}

// Reserve makes a new file size bytes long, which read as zero. Where the file system can reserve the space it
// does: it is told at once when that is not there, and writes in any order leave the file in one piece.
func Reserve(f *os.File, size int64) error {
	err := osFile{f}.control(func(fd int) error { return unix.Fallocate(fd, 0, 0, size) })
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		return f.Truncate(size)
	}
	return wrapPath("allocate", f.Name(), err)
}
