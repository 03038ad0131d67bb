package foreign

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/container"
	"github.com/pgmoneta/pgmoneta-go/internal/durable"
	"github.com/pgmoneta/pgmoneta-go/internal/manifest"
	"github.com/pgmoneta/pgmoneta-go/internal/pg"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
	"github.com/pgmoneta/pgmoneta-go/internal/vault"
	"github.com/pgmoneta/pgmoneta-go/internal/walpage"
)

type walRange = manifest.WALRange

// A Repository is what C pgmoneta left in the directory of one server. It implements
// [repo.Foreign].
type Repository struct {
	server string
	dir    string // absolute
	fs     durable.FS
	root   *os.Root
	master func() (*vault.MasterKey, error)
	op     func(kind, name string) error // called before each change of the disk; an error takes its place. For tests

	mu   sync.Mutex
	dirs map[string]string // directories, with links followed
}

// Open opens what C pgmoneta left in the directory of a repository. There may be
// nothing of it. master is called when something sealed is read; it may be nil.
func Open(fsys durable.FS, r *repo.Repository, master func() (*vault.MasterKey, error)) (*Repository, error) {
	if master == nil {
		master = func() (*vault.MasterKey, error) { return nil, vault.ErrNoMasterKey }
	}
	dir, err := filepath.Abs(r.Dir())
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	return &Repository{server: r.Server(), dir: dir, fs: fsys, root: root, master: master,
		op: func(string, string) error { return nil }, dirs: map[string]string{}}, nil
}

// Close closes the directory.
func (r *Repository) Close() error { return r.root.Close() }

var _ repo.Foreign = (*Repository)(nil)

// Names of files of a backup.
const (
	infoName     = "backup.info"
	sumsName     = "backup.sha512"
	dataName     = "data"
	manifestName = "backup_manifest"
	labelName    = "backup_label"
	walName      = "pg_wal"
)

func backupDir(label repo.Label) string { return "backup/" + string(label) }

// labels returns the labels of C pgmoneta's backups, oldest first.
func (r *Repository) labels(ctx context.Context) ([]repo.Label, error) {
	return r.labelsOf(ctx, r.isTheirs)
}

// labelsOf returns the labels below backup/ of one kind, oldest first.
func (r *Repository) labelsOf(ctx context.Context, kind func(repo.Label) bool) ([]repo.Label, error) {
	dir, err := r.root.Open("backup")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, context.Cause(ctx)
	}
	if err != nil {
		return nil, err
	}
	entries, err := dir.ReadDir(-1)
	if err := errors.Join(err, dir.Close()); err != nil {
		return nil, err
	}
	var labels []repo.Label
	for _, e := range entries {
		l, err := repo.ParseLabel(e.Name())
		if err == nil && e.IsDir() && kind(l) {
			labels = append(labels, l)
		}
	}
	slices.Sort(labels)
	return labels, context.Cause(ctx)
}

// isTheirs tells a backup of C pgmoneta from one of ours, which may have been one of theirs.
func (r *Repository) isTheirs(l repo.Label) bool {
	return !r.isOurs(l) && r.hasTheirs(l)
}

func (r *Repository) isOurs(l repo.Label) bool {
	_, err := r.root.Lstat(repo.ManifestName(l))
	return err == nil
}

// hasTheirs reports whether anything is there that makes a backup of C pgmoneta one.
func (r *Repository) hasTheirs(l repo.Label) bool {
	for _, name := range []string{infoName, dataName} {
		if _, err := r.root.Lstat(backupDir(l) + "/" + name); err == nil {
			return true
		}
	}
	return false
}

// Backups implements [repo.Foreign].
func (r *Repository) Backups(ctx context.Context) ([]repo.Backup, error) {
	labels, err := r.labels(ctx)
	if err != nil {
		return nil, err
	}
	list := make([]repo.Backup, 0, len(labels))
	for _, l := range labels {
		b := r.backup(ctx, l)
		if errors.Is(b.Err, fs.ErrNotExist) && !r.isTheirs(l) {
			continue // deleted while we look
		}
		list = append(list, b)
	}
	return list, context.Cause(ctx)
}

// backup returns the row of a backup.
func (r *Repository) backup(ctx context.Context, l repo.Label) repo.Backup {
	i, err := r.info(ctx, l)
	return repo.Backup{Label: l, Summary: r.summary(ctx, l, &i), Err: err, Foreign: true, Keep: i.keep, Comments: i.comments}
}

// info reads the backup.info of a backup and says whether the backup is valid. What a damaged one lacks
// is taken from the data.
func (r *Repository) info(ctx context.Context, l repo.Label) (info, error) {
	name := backupDir(l) + "/" + infoName
	content, err := r.small(name, infoLimit)
	if errors.Is(err, fs.ErrNotExist) {
		return info{}, &IncompleteError{l, "it has no backup.info"}
	}
	if err != nil {
		return info{}, err
	}
	i, err := parseInfo(name, content)
	var odd *InfoError
	if errors.As(err, &odd) {
		err = r.complete(ctx, l, &i, err)
	}
	if err != nil {
		return i, err
	}
	if _, err := r.root.Lstat(backupDir(l) + "/" + sumsName); err != nil {
		return i, &IncompleteError{l, "it has no backup.sha512"}
	}
	if i.status != 1 {
		return i, &IncompleteError{l, "C pgmoneta marked it so"}
	}
	return i, nil
}

// complete takes from the data of a backup what its backup.info does not say. why is what is wrong
// with that, and is returned if the data does not say it either.
func (r *Repository) complete(ctx context.Context, l repo.Label, i *info, why error) error {
	if _, err := r.root.Lstat(backupDir(l) + "/" + sumsName); err != nil {
		return why // the last that is written: the backup was never finished
	}
	data := backupDir(l) + "/" + dataName + "/"
	label, err := r.small(data+labelName, labelLimit)
	if err != nil {
		return errors.Join(why, err)
	}
	m, err := r.readManifest(ctx, l, func(manifest.File) error { return nil })
	if err == nil {
		err = i.takenFrom(label, m.Ranges)
	}
	if err != nil {
		return errors.Join(why, err)
	}
	i.status, i.label = 1, string(l)
	r.suffixes(l, i)
	if i.major, err = r.majorVersion(ctx, l, i); err != nil {
		return errors.Join(why, err)
	}
	if i.incremental && i.parent == "" {
		i.parent = r.parentByPosition(label, l)
	}
	return nil
}

// suffixes finds out codec and encryption by a file that every backup has.
func (r *Repository) suffixes(l repo.Label, i *info) {
	for c := container.None; c <= container.Bzip2; c++ {
		for _, end := range []string{"", sealedSuffix} {
			if _, err := r.root.Lstat(backupDir(l) + "/data/PG_VERSION" + suffix(c) + end); err == nil {
				i.compression = int(c)
				if end == "" {
					i.encryption = 0
				}
			}
		}
	}
}

func (r *Repository) majorVersion(ctx context.Context, l repo.Label, i *info) (int, error) {
	s, err := r.find(backupDir(l)+"/data/PG_VERSION", i.codec(), i.encryption != 0, keySizes(i.encryption))
	if err != nil {
		return 0, err
	}
	in, err := r.open(ctx, s)
	if err != nil {
		return 0, err
	}
	text, err := readSmall(in, 64)
	if err := errors.Join(err, in.Close()); err != nil {
		return 0, err
	}
	v, err := pg.ParseVersion(string(text))
	return v.Major(), err
}

// parentByPosition returns the older backup at whose start the blocks of an incremental one begin.
func (r *Repository) parentByPosition(label []byte, l repo.Label) string {
	at, tli, _ := parentOf(label)
	labels, err := r.labels(context.Background())
	if err != nil {
		return ""
	}
	for _, older := range slices.Backward(labels) {
		if older >= l {
			continue
		}
		content, err := r.small(backupDir(older)+"/data/"+labelName, labelLimit)
		if err != nil {
			continue
		}
		if b, err := pg.ParseBackupLabel(content); err == nil && b.Start == at && b.Timeline == tli {
			return string(older)
		}
	}
	return ""
}

// small reads a small plain file, which is no link.
func (r *Repository) small(name string, limit int64) ([]byte, error) {
	info, err := r.root.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, &FileError{name, errNotRegular}
	}
	f, err := r.root.Open(name)
	if err != nil {
		return nil, err
	}
	b, err := readSmall(f, limit)
	if err != nil {
		err = &FileError{name, err}
	}
	return b, errors.Join(err, f.Close())
}

// readManifest reads PostgreSQL's manifest of a backup.
func (r *Repository) readManifest(ctx context.Context, l repo.Label, each func(manifest.File) error) (*manifest.Reader, error) {
	f, err := r.openPlain(backupDir(l) + "/data/" + manifestName)
	if err != nil {
		return nil, err
	}
	name := f.Name()
	defer func() { _ = f.Close() }()
	m := manifest.NewReader(&interruptible{ctx, f})
	for row, err := range m.Files() {
		if err != nil {
			return nil, &FileError{name, err}
		}
		if err := each(row); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// openPlain opens a file that is stored as it is.
func (r *Repository) openPlain(name string) (*os.File, error) {
	name, info, err := r.locate(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, &FileError{name, errNotRegular}
	}
	return r.root.Open(name)
}

// summary describes a backup as our own are described. Labels of C pgmoneta are local
// time; a backup ends at the latest when the whole command did.
func (r *Repository) summary(ctx context.Context, l repo.Label, i *info) repo.Summary {
	t := l.Time()
	started := time.Date(t.Year(), t.Month(), t.Day(), t.Hour(), t.Minute(), t.Second(), 0, time.Local)
	took := max(i.elapsed, i.base)
	s := repo.Summary{
		Server: r.server, Label: l, Type: repo.Full, PostgreSQL: pg.Version(i.major*10000 + i.minor),
		Start: i.start, Checkpoint: i.checkpoint, End: i.end, StartTLI: i.startTLI, EndTLI: i.endTLI,
		Codec: i.codec().String(), Cipher: [...]string{"none", "aes-256-gcm", "aes-192-gcm", "aes-128-gcm"}[i.encryption],
		StartedAt: started.UTC(), StoppedAt: started.Add(took).UTC(), EndedAt: started.Add(took).UTC(),
		Tablespaces: i.tablespaces, Logical: i.restore, Biggest: i.biggest, Stored: i.size,
	}
	if i.incremental {
		s.Type, s.Base, s.Overlaid = repo.Incremental, repo.Label(i.parent), true
	}
	s.SegmentSize = r.segmentSize(ctx, l, i)
	return s
}

// segmentSize finds out the size of WAL segments, which no backup.info says: from the name of
// the first segment and the position in it, or from that segment itself.
func (r *Repository) segmentSize(ctx context.Context, l repo.Label, i *info) pg.SegmentSize {
	var fit []pg.SegmentSize
	for size := pg.MinSegmentSize; size <= pg.MaxSegmentSize; size *= 2 {
		if i.startTLI > 0 && pg.SegmentName(i.startTLI, i.start, size) == i.wal {
			fit = append(fit, size)
		}
	}
	if len(fit) == 1 {
		return fit[0]
	}
	if h, ok := r.firstPage(ctx, l, i); ok {
		return pg.SegmentSize(h.SegmentSize)
	}
	return defaultSegment
}

// defaultSegment is what initdb chooses.
const defaultSegment pg.SegmentSize = 16 << 20

// firstPage reads the header of the first segment that lies in a backup.
func (r *Repository) firstPage(ctx context.Context, l repo.Label, i *info) (walpage.Header, bool) {
	names, err := r.walOf(l)
	if err != nil || len(names) == 0 {
		return walpage.Header{}, false
	}
	s, err := r.find(backupDir(l)+"/data/pg_wal/"+names[0], i.codec(), i.encryption != 0, keySizes(i.encryption))
	if err != nil {
		return walpage.Header{}, false
	}
	in, err := r.open(ctx, s)
	if err != nil {
		return walpage.Header{}, false
	}
	defer func() { _ = in.Close() }()
	page := make([]byte, walpage.LongSize)
	if _, err := io.ReadFull(in, page); err != nil {
		return walpage.Header{}, false
	}
	h, err := walpage.Parse(page)
	return h, err == nil && h.Long() && pg.SegmentSize(h.SegmentSize).Valid()
}
