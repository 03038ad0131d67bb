package durable

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// A File is a file being written. It is used by one goroutine at a time, except
// that Sync and Datasync may run beside writes: they then cover the writes that
// returned before they were called.
type File interface {
	io.Writer
	io.WriterAt
	io.ReaderAt

	// Allocate makes the file at least size bytes long, reserving the space so
	// that later writes below size cannot fail for lack of it. The new bytes
	// read as zero.
	Allocate(size int64) error

	// Sync makes content and size durable, Datasync the content and what is
	// needed to read it back.
	Sync() error
	Datasync() error

	// Close reports the errors of earlier writes that surface only now.
	Close() error

	// Name returns the path the file was created under.
	Name() string
}

// An FS performs the operations that change what is on disk. It is safe for
// concurrent use.
type FS interface {
	// Create makes a new file with mode 0600. It fails with [fs.ErrExist]
	// if the name is taken.
	Create(path string) (File, error)

	// Open opens an existing file for reading and writing.
	Open(path string) (File, error)

	// Rename gives a file a new name in the same file system. It fails with
	// [fs.ErrExist] rather than replace a file.
	Rename(from, to string) error

	// Replace gives a file the name of another in the same directory, which
	// is gone then. Only [ReplaceFile] needs it.
	Replace(from, to string) error

	// Remove removes a file or an empty directory.
	Remove(path string) error

	// Mkdir makes one directory with mode 0700; its parent must exist.
	Mkdir(path string) error

	// SyncDir makes the names in a directory durable.
	SyncDir(path string) error
}

// OS is the [FS] of the machine.
type OS struct{}

// Create implements [FS].
func (OS) Create(path string) (File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

// Open implements [FS].
func (OS) Open(path string) (File, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

// Rename implements [FS].
func (OS) Rename(from, to string) error {
	err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		return linkRename(from, to)
	}
	if err != nil {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
	}
	return nil
}

// Replace implements [FS].
func (OS) Replace(from, to string) error { return os.Rename(from, to) }

// linkRename is Rename for file systems without RENAME_NOREPLACE (NFS): a hard
// link refuses an existing name as well. A crash between its two steps leaves
// the file under both names, which the owner of the old name cleans up.
func linkRename(from, to string) error {
	if err := os.Link(from, to); err != nil {
		return err
	}
	return os.Remove(from)
}

// Remove implements [FS].
func (OS) Remove(path string) error { return os.Remove(path) }

// Mkdir implements [FS].
func (OS) Mkdir(path string) error { return os.Mkdir(path, 0o700) }

// SyncDir implements [FS].
func (OS) SyncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	err = d.Sync()
	if cerr := d.Close(); err == nil {
		err = cerr
	}
	return err
}

type osFile struct{ *os.File }

func (f osFile) Allocate(size int64) error {
	err := f.control(func(fd int) error { return unix.Fallocate(fd, 0, 0, size) })
	if !errors.Is(err, unix.EOPNOTSUPP) {
		return wrapPath("allocate", f.Name(), err)
	}
	// The file system cannot reserve: write the zeros.
	return f.zero(size)
}

func (f osFile) zero(size int64) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	block := make([]byte, 256<<10)
	for at := info.Size(); at < size; at += int64(len(block)) {
		if _, err := f.WriteAt(block[:min(int64(len(block)), size-at)], at); err != nil {
			return err
		}
	}
	return nil
}

func (f osFile) Datasync() error {
	return wrapPath("fdatasync", f.Name(), f.control(unix.Fdatasync))
}

// control runs op on the descriptor without switching it to blocking mode as
// Fd would, and repeats it when a signal interrupts it.
func (f osFile) control(op func(fd int) error) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var opErr error
	err = raw.Control(func(fd uintptr) {
		for {
			opErr = op(int(fd))
			if opErr != unix.EINTR {
				return
			}
		}
	})
	return errors.Join(err, opErr)
}

func wrapPath(op, path string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: op, Path: path, Err: err}
}

// WriteFile makes content durable under path, which must not exist. The bytes
// are written beside it under temp, a path in the same file system; a file
// left there by a crash is replaced.
func WriteFile(fsys FS, path, temp string, content []byte) error {
	if err := fsys.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := fsys.Create(temp)
	if err != nil {
		return err
	}
	if err := writeSync(f, content); err != nil {
		_ = fsys.Remove(temp)
		return err
	}
	return Publish(fsys, temp, path)
}

func writeSync(f File, content []byte) error {
	_, err := f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// Publish renames a complete and synced file to its final name and makes that
// name durable. If the name is taken the file at temp is removed and
// [fs.ErrExist] returned.
func Publish(fsys FS, temp, path string) error {
	if err := fsys.Rename(temp, path); err != nil {
		_ = fsys.Remove(temp)
		return err
	}
	return fsys.SyncDir(filepath.Dir(path))
}

// MkdirAll makes path and its missing parents, each durable in its own parent
// before the next is made.
func MkdirAll(fsys FS, path string) error {
	info, err := os.Stat(path)
	if err == nil && info.IsDir() {
		return nil
	}
	if err == nil {
		return &fs.PathError{Op: "mkdir", Path: path, Err: unix.ENOTDIR}
	}
	parent := filepath.Dir(path)
	if parent != path {
		if err := MkdirAll(fsys, parent); err != nil {
			return err
		}
	}
	if err := fsys.Mkdir(path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return fsys.SyncDir(parent)
}

// RemoveAll removes path and everything below it. What is missing already is
// no error. The removal of path itself is made durable.
func RemoveAll(fsys FS, path string) error {
	var doomed []string
	err := filepath.WalkDir(path, func(p string, _ fs.DirEntry, err error) error {
		if err == nil {
			doomed = append(doomed, p)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("remove %s: %w", path, err)
	}
	for i := len(doomed) - 1; i >= 0; i-- {
		if err := fsys.Remove(doomed[i]); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if len(doomed) == 0 {
		return nil
	}
	return fsys.SyncDir(filepath.Dir(path))
}

// A Barrier makes everything durable that was written to a file system since it was
// opened, content and names. It is the one sync at the end of a restore, where one per
// file would cost more than the restore itself.
//
// It is opened before the first write that it is for. The kernel writes in the background
// too, and tells an error of that to every descriptor that was open then, but to one that
// is opened later only as long as nobody else has been told.
type Barrier struct{ dir *os.File }

// OpenBarrier opens a barrier for the file system that holds the directory at path. Close it.
func OpenBarrier(path string) (*Barrier, error) {
	d, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	return &Barrier{d}, nil
}

// Sync waits until everything is durable. An error is final: what of it is lost nobody can tell.
func (b *Barrier) Sync() error {
	return wrapPath("syncfs", b.dir.Name(), osFile{b.dir}.control(unix.Syncfs))
}

// Close closes the barrier and syncs nothing.
func (b *Barrier) Close() error { return b.dir.Close() }

// SyncFS is a [Barrier] that is opened only now: of what could not be written before it may
// not hear.
func SyncFS(path string) error {
	b, err := OpenBarrier(path)
	if err != nil {
		return err
	}
	return errors.Join(b.Sync(), b.Close())
}

// StartWriteback asks the kernel to begin writing what a file has in memory, and does not
// wait for it: the [Barrier] that comes later then finds less to do. Nothing is
// durable by it, and a file system that cannot is no error.
func StartWriteback(f *os.File) {
	_ = osFile{f}.control(func(fd int) error { return unix.SyncFileRange(fd, 0, 0, unix.SYNC_FILE_RANGE_WRITE) })
}

// ForgetPages has the kernel drop what it holds of a file and need not write any more, so that
// what is read next is what is on disk. Where writing has failed, it may go on holding pages that look
// right, count as written and are lost. It is advice: file systems in memory do not follow it.
func ForgetPages(f *os.File) {
	_ = osFile{f}.control(func(fd int) error { return unix.Fadvise(fd, 0, 0, unix.FADV_DONTNEED) })
}
