package backup

import (
	"archive/tar"
	"errors"
	"fmt"
	"hash/crc32"
	"hash/maphash"
	"io"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/pgmoneta/pgmoneta-go/internal/container"
	"github.com/pgmoneta/pgmoneta-go/internal/manifest"
	"github.com/pgmoneta/pgmoneta-go/internal/pgrepl"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Files are what a base backup sends, taken out of its tar archives.
type files struct {
	pipe *pipeline
	// received is told how many bytes of files have arrived.
	received func(int64)

	count   int64
	logical int64
	biggest int64
	label   []byte // content of backup_label
	total   int64

	// marks holds a hash of path, size and checksum of each regular file in the
	// order of arrival, which is the order of PostgreSQL's manifest.
	seed  maphash.Seed
	marks []uint64
}

// archive reads the tar of one tablespace.
func (f *files) archive(ts pgrepl.BackupTablespace, in io.Reader) error {
	prefix := ""
	if ts.OID != 0 {
		prefix = "pg_tblspc/" + strconv.FormatUint(uint64(ts.OID), 10)
	}
	tr := tar.NewReader(in)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("archive of tablespace %d: %w", ts.OID, err)
		}
		if err := f.member(prefix, h, tr); err != nil {
			return err
		}
	}
}

// member adds one member of an archive.
func (f *files) member(prefix string, h *tar.Header, in io.Reader) error {
	row, err := row(prefix, h)
	if err != nil || row.Path == "" {
		return err
	}
	e := &entry{file: row}
	if row.Kind == repo.Regular {
		if err := f.content(e, in); err != nil {
			return err
		}
	}
	return f.pipe.end(e)
}

// row describes a member of the archive whose files lie below prefix. Names and
// kinds that no server sends are refused: they would be restored one day. The
// path is empty for the archive's own directory.
func row(prefix string, h *tar.Header) (repo.File, error) {
	member := path.Clean(h.Name)
	if member == "." {
		return repo.File{}, nil
	}
	if !filepath.IsLocal(member) || strings.ContainsRune(member, 0) {
		return repo.File{}, fmt.Errorf("the server sent a file named %q", h.Name)
	}
	r := repo.File{Path: path.Join(prefix, member), Mode: uint32(h.Mode) & 0o777, ModTime: h.ModTime.UTC()}
	switch h.Typeflag {
	case tar.TypeReg:
		r.Kind, r.Size = repo.Regular, h.Size
	case tar.TypeDir:
		r.Kind = repo.Directory
	case tar.TypeSymlink:
		r.Kind, r.Link = repo.Symlink, h.Linkname
	default:
		return repo.File{}, fmt.Errorf("the server sent %q, which is of tar type %q", h.Name, h.Typeflag)
	}
	return r, nil
}

// content reads the bytes of a file straight into frames.
func (f *files) content(e *entry, in io.Reader) error {
	size := e.file.Size
	// A file of a frame or more begins a frame, so that equal blocks of the same
	// file make equal frames in the next backup. Small files share frames.
	fresh := size >= container.FrameLimit
	sum := uint32(0)
	for at := int64(0); at < size; {
		room, err := f.pipe.reserve(fresh && at == 0)
		if err != nil {
			return err
		}
		room = room[:min(int64(len(room)), size-at)]
		n, err := io.ReadFull(in, room)
		if err != nil {
			return fmt.Errorf("receive %s: %w", e.file.Path, err)
		}
		sum = crc32.Update(sum, castagnoli, room)
		if e.file.Path == "backup_label" {
			f.label = append(f.label, room...)
		}
		f.pipe.commit(e, at, n)
		at += int64(n)
		f.total += int64(n)
		f.received(f.total)
	}
	// PostgreSQL prints the four bytes of the checksum in memory order.
	e.file.CRC = fmt.Sprintf("%02x%02x%02x%02x", byte(sum), byte(sum>>8), byte(sum>>16), byte(sum>>24))
	f.count++
	f.logical += size
	f.biggest = max(f.biggest, size)
	f.marks = append(f.marks, f.mark(e.file.Path, size, e.file.CRC))
	return nil
}

func (f *files) mark(name string, size int64, checksum string) uint64 {
	var h maphash.Hash
	h.SetSeed(f.seed)
	_, _ = h.WriteString(name)
	_, _ = h.WriteString(strconv.FormatInt(size, 10))
	_, _ = h.WriteString(checksum)
	return h.Sum64()
}

// A MismatchError reports a file that did not arrive as the server describes it.
type MismatchError struct {
	Path     string
	Size     int64
	Checksum string // CRC-32C by the server's manifest
}

func (e *MismatchError) Error() string {
	return fmt.Sprintf("file %s did not arrive as the server's manifest describes it (%d bytes, CRC-32C %s): "+
		"the backup was dropped, take it again", e.Path, e.Size, e.Checksum)
}

// compare checks PostgreSQL's manifest against what arrived.
func (f *files) compare(m *manifest.Reader) error {
	i := 0
	for file, err := range m.Files() {
		if err != nil {
			return err
		}
		if file.Algorithm != "CRC32C" {
			return fmt.Errorf("backup_manifest has a checksum of kind %q for %s", file.Algorithm, file.Path)
		}
		if i >= len(f.marks) || f.marks[i] != f.mark(file.Path, file.Size, file.Checksum) {
			return &MismatchError{Path: file.Path, Size: file.Size, Checksum: file.Checksum}
		}
		i++
	}
	if i != len(f.marks) {
		return fmt.Errorf("%d files arrived, but backup_manifest lists %d", len(f.marks), i)
	}
	return nil
}
