package backup

import (
	"archive/tar"
	"bytes"
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
	"github.com/pgmoneta/pgmoneta-go/internal/datadir"
	"github.com/pgmoneta/pgmoneta-go/internal/manifest"
	"github.com/pgmoneta/pgmoneta-go/internal/pgrepl"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

const backupLabel = "backup_label"

// Files are what a base backup sends, taken out of its tar archives.
type files struct {
	pipe *pipeline
	wire container.Codec // in which archives come
	base *base           // of an incremental backup that the server makes; else nil
	// pages of the server have checksums, if it is set; kept are bad ones of the base
	// that were not replaced.
	pages *datadir.Pages
	kept  datadir.BadPages
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
	// What is cut off is missed in the server's manifest.
	plain, err := container.Decompress(f.wire, in)
	if err != nil {
		return fmt.Errorf("archive of tablespace %d: %w", ts.OID, err)
	}
	defer func() { _ = plain.Close() }()
	tr := tar.NewReader(plain)
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
		if err := f.regular(e, in); err != nil {
			return err
		}
	}
	return f.pipe.end(e)
}

// regular reads a regular file, however the server sends it.
func (f *files) regular(e *entry, in io.Reader) error {
	// What the server's manifest says of it.
	name, size := e.file.Path, e.file.Size
	read := f.content
	if f.base != nil {
		switch whole, sent := wholeName(name); {
		case sent:
			e.file.Path, read = whole, f.blocks
		case name == backupLabel:
			read = f.strippedLabel
		}
	}
	sum, err := read(e, in)
	if err != nil {
		return fmt.Errorf("receive %s: %w", name, err)
	}
	f.count++
	f.logical += e.file.Size
	f.biggest = max(f.biggest, e.file.Size)
	f.marks = append(f.marks, f.mark(name, size, manifest.Checksum(sum)))
	return nil
}

// wholeName returns the name of the file that an incremental file belongs to. Only
// in directories of relations does the server send such files.
func wholeName(name string) (string, bool) {
	dir, file := path.Split(name)
	whole, ok := strings.CutPrefix(file, incrementalPrefix)
	top, _, _ := strings.Cut(dir, "/")
	if !ok || whole == "" || top != "base" && top != "global" && top != "pg_tblspc" {
		return "", false
	}
	return dir + whole, true
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

// content reads the bytes of a file straight into frames and returns their CRC-32C.
func (f *files) content(e *entry, in io.Reader) (uint32, error) {
	f.pipe.begin(e.file.Path, e.file.Size)
	sum, err := f.copy(e, 0, e.file.Size, 0, in)
	e.file.CRC = manifest.Checksum(sum)
	return sum, err
}

// copy reads n bytes of a file from offset at and returns sum continued by them.
func (f *files) copy(e *entry, at, n int64, sum uint32, in io.Reader) (uint32, error) {
	for end := at + n; at < end; {
		room, err := f.pipe.reserve()
		if err != nil {
			return 0, err
		}
		room = room[:min(int64(len(room)), end-at)]
		n, err := io.ReadFull(in, room)
		if err != nil {
			return 0, err
		}
		sum = crc32.Update(sum, castagnoli, room)
		if e.file.Path == backupLabel {
			f.label = append(f.label, room...)
		}
		f.pipe.commit(e, at, n)
		at += int64(n)
		f.total += int64(n)
		f.received(f.total)
	}
	return sum, nil
}

// blocks reads an incremental file, whose blocks replace those of the base. The
// CRC-32C that it returns is that of what was sent; that of the file is not known.
func (f *files) blocks(e *entry, in io.Reader) (uint32, error) {
	crc := crc32.New(castagnoli)
	sent, err := readBlockMap(io.TeeReader(in, crc), e.file.Size, f.base.blockSize)
	if err != nil {
		return 0, err
	}
	file, err := f.base.find(e.file.Path)
	if err != nil {
		return 0, err
	}
	e.over = &overlay{base: file, sent: sent, blockSize: f.base.blockSize}
	e.file.Size = sent.size(f.base.blockSize)
	f.base.sample(e.over)
	f.inherit(e.file.Path, sent)
	sum := crc.Sum32()
	if len(sent.blocks) > 0 {
		f.pipe.beginBlocks()
	}
	for i := 0; i < len(sent.blocks); {
		n := sent.run(i)
		if sum, err = f.copy(e, int64(sent.blocks[i])*f.base.blockSize, int64(n)*f.base.blockSize, sum, in); err != nil {
			return 0, err
		}
		i += n
	}
	return sum, nil
}

// labelLimit bounds the size of backup_label, which has a few lines.
const labelLimit = 64 << 10

// strippedLabel reads the backup_label of an incremental backup and keeps what a
// whole data directory has in its place: with the lines that name the base
// PostgreSQL would refuse to start.
func (f *files) strippedLabel(e *entry, in io.Reader) (uint32, error) {
	if e.file.Size > labelLimit {
		return 0, fmt.Errorf("it has %d bytes", e.file.Size)
	}
	content, err := io.ReadAll(in)
	if err != nil {
		return 0, err
	}
	var kept []byte
	for line := range bytes.Lines(content) {
		if !bytes.HasPrefix(line, []byte("INCREMENTAL FROM ")) {
			kept = append(kept, line...)
		}
	}
	e.file.Size = int64(len(kept))
	_, err = f.content(e, bytes.NewReader(kept))
	return crc32.Checksum(content, castagnoli), err
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
