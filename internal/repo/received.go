package repo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/pgmoneta/pgmoneta-go/internal/container"
	"github.com/pgmoneta/pgmoneta-go/internal/durable"
	"github.com/pgmoneta/pgmoneta-go/internal/pg"
)

const partialSuffix = ".partial"

// A Received is a segment of the receive directory, opened for reading its plain
// bytes: all of it, also when it is partial, where zeros stand for what has not
// arrived. It is used by one goroutine. Close it.
type Received struct {
	file    *os.File
	journal *container.JournalReader // nil when the file is plain
	size    int64
	at      int64
}

// OpenReceived opens a file of the receive directory by its name there, with
// ".partial" or without. A missing one is [fs.ErrNotExist].
func (r *Repository) OpenReceived(ctx context.Context, name string) (*Received, error) {
	f, err := os.Open(filepath.Join(r.ReceiveDir(), name))
	if err != nil {
		return nil, err
	}
	in, err := r.received(ctx, f, name)
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return in, nil
}

func (r *Repository) received(ctx context.Context, f *os.File, name string) (*Received, error) {
	segment, partial := strings.CutSuffix(name, partialSuffix)
	object := journalName(segment)
	form, err := formOf(f)
	switch {
	case err != nil:
		return nil, err
	case form == plainForm:
		err = r.admitPlain(ctx, object)
		fallthrough
	case form == emptyForm:
		info, serr := f.Stat()
		if err := errors.Join(err, serr); err != nil {
			return nil, err
		}
		return &Received{file: f, size: info.Size()}, nil
	}
	j, err := container.OpenJournal(object, f, r.keys(ctx))
	if err != nil {
		return nil, err
	}
	if !partial && j.End() != j.Size() {
		return nil, &container.DamagedError{Object: object, Frame: -1, Err: fmt.Errorf("%w: only %d of %d bytes are whole", container.ErrForged, j.End(), j.Size())}
	}
	return &Received{file: f, journal: j, size: j.Size()}, nil
}

// Name returns the path of the file.
func (f *Received) Name() string { return f.file.Name() }

// Size returns the plain size.
func (f *Received) Size() int64 { return f.size }

// Read implements [io.Reader].
func (f *Received) Read(p []byte) (int, error) {
	if f.journal == nil {
		return f.file.Read(p)
	}
	n, err := f.journal.Read(p[:min(int64(len(p)), max(f.size-f.at, 0))])
	if errors.Is(err, io.EOF) && f.at < f.size {
		n = int(min(int64(len(p)), f.size-f.at))
		clear(p[:n])
		err = nil
	}
	f.at += int64(n)
	if n == 0 && err == nil && f.at >= f.size {
		err = io.EOF
	}
	return n, err
}

// Rewind makes the next Read begin at the first byte again.
func (f *Received) Rewind() error {
	f.at = 0
	if f.journal != nil {
		f.journal.Rewind()
		return nil
	}
	_, err := f.file.Seek(0, io.SeekStart)
	return err
}

// Close closes the file.
func (f *Received) Close() error { return f.file.Close() }

// PartialEnd returns the position up to which the partial segment of the given
// name, which begins at start, holds WAL. The file was a full segment of zeros
// before it was filled, and a record never ends in more zeros than its alignment
// adds. A segment that the server ended early, by switching to the next, seems to
// end there too.
func (r *Repository) PartialEnd(name string, start pg.LSN, size pg.SegmentSize) (pg.LSN, error) {
	f, err := r.OpenReceived(context.Background(), name+partialSuffix)
	if errors.Is(err, fs.ErrNotExist) && r.foreign != nil {
		return r.foreignPartialEnd(name, start, size)
	}
	if err != nil {
		return 0, err
	}
	defer func() { _ = f.Close() }()
	var n int64
	if f.journal != nil {
		n, err = lastRead(io.LimitReader(f.journal, int64(size)))
	} else {
		n, err = lastByte(f.file, min(f.size, int64(size)))
	}
	return start + pg.LSN(n+7)&^7, err
}

// foreignPartialEnd is PartialEnd for one that another program was receiving.
func (r *Repository) foreignPartialEnd(name string, start pg.LSN, size pg.SegmentSize) (pg.LSN, error) {
	in, err := r.foreign.OpenWAL(context.Background(), name+partialSuffix)
	if err != nil {
		return 0, err
	}
	n, err := lastRead(io.LimitReader(in, int64(size)))
	return start + pg.LSN(n+7)&^7, errors.Join(err, in.Close())
}

// lastByte returns the length of f, at most size, without the zeros at its end.
func lastByte(f io.ReaderAt, size int64) (int64, error) {
	block := make([]byte, 64<<10)
	for size > 0 {
		n := min(size, int64(len(block)))
		if _, err := f.ReadAt(block[:n], size-n); err != nil {
			return 0, err
		}
		if last := lastOf(block[:n]); last > 0 {
			return size - n + last, nil
		}
		size -= n
	}
	return 0, nil
}

// lastRead is lastByte for what can only be read from its beginning.
func lastRead(in io.Reader) (int64, error) {
	block := make([]byte, 64<<10)
	for at, end := int64(0), int64(0); ; {
		n, err := in.Read(block)
		if last := lastOf(block[:n]); last > 0 {
			end = at + last
		}
		at += int64(n)
		if errors.Is(err, io.EOF) {
			return end, nil
		}
		if err != nil {
			return 0, err
		}
	}
}

// lastOf returns the length of b without the zeros at its end.
func lastOf(b []byte) int64 { return int64(len(bytes.TrimRight(b, "\x00"))) }

// journalName is what a journal of the receive directory is bound to.
func journalName(segment string) string { return "receive/" + segment }

// A form is how a file of the receive directory is kept.
type form int

const (
	emptyForm   form = iota // nothing but zeros where it begins
	plainForm               // WAL as it is
	journalForm             // sealed
)

func formOf(f io.ReaderAt) (form, error) {
	b := make([]byte, 64)
	n, err := f.ReadAt(b, 0)
	switch {
	case err != nil && !errors.Is(err, io.EOF):
		return emptyForm, err
	case container.Begins(b[:n]):
		return journalForm, nil
	case lastOf(b[:n]) == 0:
		return emptyForm, nil
	}
	return plainForm, nil
}

// ReceiveFS returns an FS over fsys for who writes segments in the receive
// directory as if they were plain: in order, from the first byte on. In a sealed
// repository what is written to a file that ends in ".partial" is a journal.
//
// One that exists is continued. What is written over it with the same bytes
// leaves it as it is, so that at no moment less of it can be read than before; other
// bytes replace what was there. One of the other kind, plain or sealed, is turned into
// the kind that is wanted first.
func (r *Repository) ReceiveFS(fsys durable.FS) durable.FS { return receiveFS{fsys, r} }

type receiveFS struct {
	durable.FS
	repo *Repository
}

const convertedSuffix = ".converted"

func (s receiveFS) wrap(f durable.File, path string) (durable.File, error) {
	segment, partial := strings.CutSuffix(filepath.Base(path), partialSuffix)
	if !partial || s.repo.Cipher() == container.Plain {
		return f, nil
	}
	w := &journalFile{File: f, repo: s.repo, object: journalName(segment)}
	if err := w.open(); err != nil {
		_ = f.Close()
		return nil, err
	}
	return w, nil
}

// Create implements [durable.FS].
func (s receiveFS) Create(path string) (durable.File, error) {
	f, err := s.FS.Create(path)
	if err != nil {
		return nil, err
	}
	return s.wrap(f, path)
}

// Open implements [durable.FS].
func (s receiveFS) Open(path string) (durable.File, error) {
	if !strings.HasSuffix(path, partialSuffix) {
		return s.FS.Open(path)
	}
	f, err := s.FS.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		// A conversion may have been cut short between its last two steps.
		if s.FS.Rename(path+convertedSuffix, path) != nil {
			return nil, err
		}
		f, err = s.FS.Open(path)
	}
	if err != nil {
		return nil, err
	}
	want := plainForm
	if s.repo.Cipher() != container.Plain {
		want = journalForm
	}
	have, err := formOf(f)
	if err == nil && have != emptyForm && have != want {
		if err = errors.Join(f.Close(), s.convert(path)); err != nil {
			return nil, err
		}
		f, err = s.FS.Open(path)
	}
	if err != nil {
		return nil, err
	}
	return s.wrap(f, path)
}

// convert turns a plain partial segment into a journal, or back.
func (s receiveFS) convert(path string) error {
	in, err := s.repo.OpenReceived(context.Background(), filepath.Base(path))
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	temp := path + convertedSuffix
	if err := s.FS.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := s.copy(in, path, temp); err != nil {
		return err
	}
	if err := s.FS.SyncDir(filepath.Dir(path)); err != nil {
		return err
	}
	if err := s.FS.Remove(path); err != nil {
		return err
	}
	if err := s.FS.Rename(temp, path); err != nil {
		return err
	}
	return s.FS.SyncDir(filepath.Dir(path))
}

func (s receiveFS) copy(in *Received, path, temp string) error {
	end, err := lastRead(in)
	if err == nil {
		err = in.Rewind()
	}
	if err != nil {
		return err
	}
	f, err := s.FS.Create(temp)
	if err != nil {
		return err
	}
	out, err := s.wrap(f, path)
	if err != nil {
		return err
	}
	if err = out.Allocate(in.Size()); err == nil {
		_, err = io.Copy(io.NewOffsetWriter(out, 0), io.LimitReader(in, end))
	}
	if err == nil {
		err = out.Sync()
	}
	return errors.Join(err, out.Close())
}

// A journalFile is a file whose content is kept in a journal.
type journalFile struct {
	durable.File
	repo   *Repository
	object string

	allocated int64
	size      int64                    // of the content, when it will be whole
	at        int64                    // where the next write must begin
	before    *container.JournalReader // what is there and was not written again yet; nil for nothing
	next      int64                    // where the next part begins
	writer    *container.JournalWriter // nil before the first write that is new
	have      []byte
}

// open reads what is there.
func (f *journalFile) open() error {
	j, err := container.OpenJournal(f.object, f.File, f.repo.keys(context.Background()))
	if err != nil {
		return err
	}
	f.before, f.next = j, j.Next()
	return nil
}

// Allocate implements [durable.File]. Each write makes a record, whose head and
// tag take space too; an eighth is enough for records of some hundred bytes.
func (f *journalFile) Allocate(size int64) error {
	f.size = size
	return f.reserve(size + size/8)
}

func (f *journalFile) reserve(size int64) error {
	if size <= f.allocated {
		return nil
	}
	f.allocated = size
	return f.File.Allocate(size)
}

// WriteAt implements [io.WriterAt]: writes must follow each other, from the first byte on.
func (f *journalFile) WriteAt(p []byte, at int64) (int, error) {
	if at != f.at {
		return 0, fmt.Errorf("%s: write at %d, expected %d", f.Name(), at, f.at)
	}
	same, err := f.skip(p)
	if err != nil {
		return 0, err
	}
	if fresh := p[same:]; len(fresh) > 0 {
		if err := f.append(fresh, at+int64(same)); err != nil {
			return 0, err
		}
	}
	f.at += int64(len(p))
	return len(p), nil
}

// skip returns how many bytes of p are there already.
func (f *journalFile) skip(p []byte) (int, error) {
	same := 0
	for f.before != nil && same < len(p) {
		if f.have == nil {
			f.have = make([]byte, 64<<10)
		}
		n, err := f.before.Read(f.have[:min(len(f.have), len(p)-same)])
		if errors.Is(err, io.EOF) {
			f.before, f.have = nil, nil
			break
		}
		if err != nil {
			return 0, err
		}
		if !bytes.Equal(f.have[:n], p[same:same+n]) {
			f.before, f.have = nil, nil // from here on it is another WAL
			break
		}
		same += n
	}
	return same, nil
}

func (f *journalFile) append(p []byte, at int64) error {
	if f.writer == nil {
		var err error
		if f.writer, err = f.repo.newJournal(f.File, f.next, f.size, f.object); err != nil {
			return err
		}
	}
	if end := f.writer.Next() + container.Grows(len(p)); end > f.allocated {
		if err := f.reserve(end + f.size/8); err != nil {
			return err
		}
	}
	return f.writer.Write(p, at)
}

// newJournal begins a part of a journal with the key for new objects.
func (r *Repository) newJournal(w io.WriterAt, at, size int64, object string) (*container.JournalWriter, error) {
	r.ring.mu.Lock()
	key, ok := r.ring.keys[r.ring.write]
	r.ring.mu.Unlock()
	if !ok {
		return nil, fmt.Errorf("server %q: %s: no key of the repository is open to encrypt it with", r.server, object)
	}
	return container.NewJournalWriter(w, at, uint32(size), object, r.ring.Cipher, key)
}
