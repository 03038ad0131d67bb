package repo

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"strconv"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/container"
	"github.com/pgmoneta/pgmoneta-go/internal/pg"
	"github.com/pgmoneta/pgmoneta-go/internal/storage"
)

// ManifestVersion is the version of the manifest's content that is written and read.
const ManifestVersion = 1

// A Type tells how a backup was made.
type Type string

// Types of backups.
const (
	Full        Type = "full"
	Incremental Type = "incremental"
)

// A Summary is what a listing shows of a backup. It is the last frame of the
// manifest, so that it can be read without the files.
type Summary struct {
	Version     int            `json:"manifest_version"`
	Server      string         `json:"server"`
	Label       Label          `json:"label"`
	Type        Type           `json:"type"`
	Base        Label          `json:"base,omitempty"`
	System      string         `json:"system_identifier"`
	PostgreSQL  pg.Version     `json:"postgresql_version"`
	Start       pg.LSN         `json:"start_lsn"`
	Checkpoint  pg.LSN         `json:"checkpoint_lsn"`
	End         pg.LSN         `json:"end_lsn"`
	StartTLI    pg.Timeline    `json:"start_timeline"`
	EndTLI      pg.Timeline    `json:"end_timeline"`
	SegmentSize pg.SegmentSize `json:"wal_segment_size"`
	Standby     bool           `json:"from_standby,omitempty"`
	Codec       string         `json:"codec"`
	Cipher      string         `json:"cipher"`
	StartedAt   time.Time      `json:"started_at"`
	StoppedAt   time.Time      `json:"stopped_at"` // when the server ended the backup, by our clock
	EndedAt     time.Time      `json:"ended_at"`   // when its WAL was stored too
	Tablespaces []Tablespace   `json:"tablespaces,omitempty"`
	BackupLabel string         `json:"backup_label"`
	Files       int64          `json:"files"`
	Logical     int64          `json:"logical_bytes"` // sum of the files' sizes
	Biggest     int64          `json:"biggest_file_bytes"`
	Stored      int64          `json:"stored_bytes"` // bytes this backup added to the repository
	FrameBytes  int            `json:"frame_bytes,omitempty"`
	Overlaid    bool           `json:"overlaid,omitempty"` // blocks laid over the base: backup_manifest describes what the server sent, not the files
	PackFrame   int            `json:"pack_frame"`         // first frame of the pack table

	// Pages whose checksums were wrong on the server, and the first of them by name. The
	// backup was kept because that was allowed.
	CorruptPages int64         `json:"corrupt_pages,omitempty"`
	Corrupt      []CorruptPage `json:"corrupt,omitempty"`
}

// A CorruptPage is a page of a relation that does not have the checksum written in it.
type CorruptPage struct {
	Path  string `json:"path"`  // of the file that holds it
	Block int64  `json:"block"` // of the relation's fork
}

// A Tablespace is a directory outside the data directory.
type Tablespace struct {
	OID      uint32 `json:"oid"`
	Name     string `json:"name"`
	Location string `json:"location"` // on the server
}

// A PackRef is a row of a manifest's pack table.
type PackRef struct {
	Name string `json:"pack"`
	Live int64  `json:"live_bytes"` // plain bytes this backup uses
}

// A Kind is the kind of a file.
type Kind string

// Kinds of files.
const (
	Regular   Kind = "f"
	Directory Kind = "d"
	Symlink   Kind = "l"
)

// A File is a row of the manifest. Paths are relative to the data directory,
// slash-separated; files of tablespaces lie below pg_tblspc/<oid>/.
type File struct {
	Path    string    `json:"p"`
	Kind    Kind      `json:"k"`
	Mode    uint32    `json:"m"` // permission bits
	ModTime time.Time `json:"t"`
	Size    int64     `json:"s,omitempty"`
	Link    string    `json:"l,omitempty"` // target of a symlink
	CRC     string    `json:"c,omitempty"` // CRC-32C, as in backup_manifest; not known of a file that was overlaid
	Extents []Extent  `json:"x,omitempty"`

	// Of a file of a [Tree], and never stored.
	Sum  string `json:"-"` // SHA-512 in hexadecimal, as recorded
	Sent int64  `json:"-"` // what the server sent of a file that is put together
}

// An Extent maps a run of a file to a run of a pack's plain bytes. The run may
// go on over any number of frames. Bytes of a file that no extent covers are zero.
//
// It is stored as the array [offset, length, pack, frame, skip].
type Extent struct {
	Offset int64 // in the file
	Length int64
	Pack   int   // row of the pack table
	Frame  int   // frame of the pack in which the run begins
	Skip   int64 // plain bytes of that frame before the run
}

// MarshalJSON implements [json.Marshaler].
func (e Extent) MarshalJSON() ([]byte, error) {
	b := make([]byte, 0, 48)
	for i, n := range [...]int64{e.Offset, e.Length, int64(e.Pack), int64(e.Frame), e.Skip} {
		b = append(b, "[,,,,"[i])
		b = strconv.AppendInt(b, n, 10)
	}
	return append(b, ']'), nil
}

// UnmarshalJSON implements [json.Unmarshaler]. It is most of the work of reading a manifest.
func (e *Extent) UnmarshalJSON(b []byte) error {
	const numbers = 5
	b, array := bytes.CutPrefix(b, []byte("["))
	b, closed := bytes.CutSuffix(b, []byte("]"))
	if n := bytes.Count(b, []byte(",")) + 1; !array || !closed || n != numbers {
		return fmt.Errorf("extent of %d numbers, want %d", n, numbers)
	}
	var a [numbers]int64
	for i := range a {
		var number []byte
		number, b, _ = bytes.Cut(b, []byte(","))
		n, err := strconv.ParseInt(string(bytes.TrimSpace(number)), 10, 64)
		if err != nil {
			return err
		}
		if n < 0 || n > 1<<50 {
			return fmt.Errorf("extent with number %d", n)
		}
		a[i] = n
	}
	*e = Extent{Offset: a[0], Length: a[1], Pack: int(a[2]), Frame: int(a[3]), Skip: a[4]}
	return nil
}

// lineLimit bounds a row: a file of 1 TiB in single-frame extents needs half of it.
const lineLimit = 64 << 20

func manifestName(l Label) string { return ManifestName(l) }

// ManifestName is the object that makes a backup one of ours.
func ManifestName(l Label) string { return "backup/" + string(l) + "/manifest" }

// PostgresManifestName is the object that holds PostgreSQL's own manifest of a backup.
func PostgresManifestName(l Label) string { return "backup/" + string(l) + "/backup_manifest" }

// A ManifestWriter writes the manifest of one backup: any number of files,
// then the summary. Memory does not grow with the number of files.
type ManifestWriter struct {
	stage  storage.Stage
	upload storage.Upload
	w      *container.StreamWriter
	err    error
}

// NewManifestWriter begins the manifest of label. The backup is not listed
// before [ManifestWriter.Commit] returns.
func (r *Repository) NewManifestWriter(ctx context.Context, label Label) (*ManifestWriter, error) {
	stage, err := r.engine.Stage(ctx, OwnerJob)
	if err != nil {
		return nil, err
	}
	m := &ManifestWriter{stage: stage}
	if m.upload, err = stage.Create(ctx, manifestName(label)); err == nil {
		m.w, err = r.manifestStream(m.upload, manifestName(label))
	}
	if err != nil {
		m.Abort()
		return nil, err
	}
	return m, nil
}

// manifestStream begins a container of manifest data.
func (r *Repository) manifestStream(w io.Writer, name string) (*container.StreamWriter, error) {
	c, err := r.NewContainer(w, name, container.Manifest, container.Zstd)
	if err != nil {
		return nil, err
	}
	return c.Stream(3)
}

// NewPostgresManifest begins the container of PostgreSQL's own manifest of label.
func (r *Repository) NewPostgresManifest(w io.Writer, label Label) (*container.StreamWriter, error) {
	return r.manifestStream(w, PostgresManifestName(label))
}

// Add appends a file.
func (m *ManifestWriter) Add(f File) error { return m.line(f) }

func (m *ManifestWriter) line(v any) error {
	if m.err != nil {
		return m.err
	}
	b, err := json.Marshal(v)
	if err == nil {
		_, err = m.w.Write(append(b, '\n'))
	}
	m.err = err
	return err
}

// Commit writes the pack table and the summary, of which it sets Version and
// PackFrame, and makes the backup exist.
func (m *ManifestWriter) Commit(ctx context.Context, s Summary, packs []PackRef) error {
	defer m.Abort()
	if m.err != nil {
		return m.err
	}
	s.Version = ManifestVersion
	if err := m.w.EndFrame(); err != nil {
		return err
	}
	s.PackFrame = m.w.Frames()
	for _, p := range packs {
		if err := m.line(p); err != nil {
			return err
		}
	}
	if err := m.w.EndFrame(); err != nil {
		return err
	}
	if err := m.line(s); err != nil {
		return err
	}
	if err := m.w.Finish(); err != nil {
		return err
	}
	if err := m.upload.Close(); err != nil {
		return err
	}
	return m.stage.Commit(ctx)
}

// Abort drops the manifest. After Commit it does nothing.
func (m *ManifestWriter) Abort() { _ = m.stage.Abort() }

// A Manifest is an opened manifest. Close it.
type Manifest struct {
	Summary Summary
	Packs   []PackRef

	object storage.Object
	reader *container.Reader
}

// OpenManifest opens the manifest of label and reads its summary and pack table.
func (r *Repository) OpenManifest(ctx context.Context, label Label) (*Manifest, error) {
	var s container.Scratch
	defer s.Close()
	return r.openManifest(ctx, label, &s)
}

func (r *Repository) openManifest(ctx context.Context, label Label, s *container.Scratch) (*Manifest, error) {
	m, err := r.openSummary(ctx, label, s)
	if err != nil {
		return nil, err
	}
	if err := m.readPacks(s); err != nil {
		_ = m.Close()
		return nil, m.damaged(err)
	}
	return m, nil
}

func (r *Repository) openSummary(ctx context.Context, label Label, s *container.Scratch) (*Manifest, error) {
	c, o, err := r.OpenContainer(ctx, manifestName(label), container.Manifest)
	if err != nil {
		return nil, err
	}
	m := &Manifest{object: o, reader: c}
	if err := m.readSummary(label, s); err != nil {
		_ = o.Close()
		return nil, err
	}
	return m, nil
}

func (m *Manifest) readSummary(label Label, s *container.Scratch) error {
	last := m.reader.Frames() - 1
	b, err := m.reader.ReadFrame(last, s)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, &m.Summary); err != nil {
		return m.damaged(err)
	}
	switch {
	case m.Summary.Version != ManifestVersion:
		return m.damaged(fmt.Errorf("manifest version %d; this program reads %d", m.Summary.Version, ManifestVersion))
	case m.Summary.Label != label:
		return m.damaged(fmt.Errorf("describes backup %q", m.Summary.Label))
	case m.Summary.PackFrame < 0 || m.Summary.PackFrame > last || !m.Summary.SegmentSize.Valid():
		return m.damaged(errors.New("summary is not plausible"))
	}
	return nil
}

func (m *Manifest) damaged(err error) error {
	var d *container.DamagedError
	if errors.As(err, &d) {
		return err
	}
	return &container.DamagedError{Object: m.reader.Name(), Frame: -1, Err: err}
}

func (m *Manifest) readPacks(s *container.Scratch) error {
	rows := m.lines(m.Summary.PackFrame, m.reader.Frames()-1, s)
	for line, err := range rows {
		if err != nil {
			return err
		}
		var p PackRef
		if err := json.Unmarshal(line, &p); err != nil {
			return err
		}
		m.Packs = append(m.Packs, p)
	}
	return nil
}

// Files yields the files in the order they were added. After an error it stops.
func (m *Manifest) Files() iter.Seq2[File, error] {
	return func(yield func(File, error) bool) {
		var s container.Scratch
		defer s.Close()
		for line, err := range m.lines(0, m.Summary.PackFrame, &s) {
			var f File
			if err == nil {
				err = json.Unmarshal(line, &f)
			}
			if err == nil {
				err = m.check(f)
			}
			if err != nil {
				yield(File{}, m.damaged(err))
				return
			}
			if !yield(f, nil) {
				return
			}
		}
	}
}

// check refuses rows that no writer of ours produces, so that readers can rely
// on extents that ascend, stay inside the file and name packs that exist.
func (m *Manifest) check(f File) error {
	at := int64(0)
	for _, e := range f.Extents {
		if e.Offset < at || e.Length <= 0 || e.Offset+e.Length > f.Size || e.Pack >= len(m.Packs) || e.Skip > container.FrameLimit {
			return fmt.Errorf("file %q: extent %+v is not plausible", f.Path, e)
		}
		at = e.Offset + e.Length
	}
	if f.Path == "" || f.Size < 0 || f.Kind != Regular && len(f.Extents) > 0 {
		return fmt.Errorf("file %q is not plausible", f.Path)
	}
	return nil
}

// lines yields the lines in frames [from, to). A line is valid until the next.
func (m *Manifest) lines(from, to int, s *container.Scratch) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		in := &frameReader{r: m.reader, s: s, next: from, end: to}
		scan := bufio.NewScanner(in)
		scan.Buffer(make([]byte, 0, 64<<10), lineLimit)
		for scan.Scan() {
			if line := bytes.TrimSpace(scan.Bytes()); len(line) > 0 && !yield(line, nil) {
				return
			}
		}
		if err := scan.Err(); err != nil {
			yield(nil, err)
		}
	}
}

type frameReader struct {
	r         *container.Reader
	s         *container.Scratch
	next, end int
	rest      []byte
}

func (f *frameReader) Read(p []byte) (int, error) {
	for len(f.rest) == 0 {
		if f.next >= f.end {
			return 0, io.EOF
		}
		var err error
		if f.rest, err = f.r.ReadFrame(f.next, f.s); err != nil {
			return 0, err
		}
		f.next++
	}
	n := copy(p, f.rest)
	f.rest = f.rest[n:]
	return n, nil
}

// Close closes the manifest's object.
func (m *Manifest) Close() error { return m.object.Close() }

// OpenPostgresManifest opens PostgreSQL's own manifest of a backup, which reads byte for
// byte as it was received.
func (r *Repository) OpenPostgresManifest(ctx context.Context, label Label) (io.ReadCloser, error) {
	c, o, err := r.OpenContainer(ctx, PostgresManifestName(label), container.Manifest)
	if err != nil {
		return nil, err
	}
	return &objectStream{Stream: c.Stream(), object: o}, nil
}

// An objectStream closes its object with it.
type objectStream struct {
	*container.Stream
	object storage.Object
}

func (s *objectStream) Close() error {
	return errors.Join(s.Stream.Close(), s.object.Close())
}

// ReadPostgresManifest writes PostgreSQL's own manifest of a backup to w, byte for byte.
func (r *Repository) ReadPostgresManifest(ctx context.Context, label Label, w io.Writer) error {
	in, err := r.OpenPostgresManifest(ctx, label)
	if err != nil {
		return err
	}
	_, err = io.Copy(w, in)
	return errors.Join(err, in.Close())
}
