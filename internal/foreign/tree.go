package foreign

import (
	"bytes"
	"context"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"iter"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/container"
	"github.com/pgmoneta/pgmoneta-go/internal/manifest"
	"github.com/pgmoneta/pgmoneta-go/internal/pg"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
	"github.com/pgmoneta/pgmoneta-go/internal/vault"
)

// A tree is the data of one backup with what it needs of its parents.
type tree struct {
	repo    *Repository
	summary repo.Summary
	label   []byte    // backup_label to restore; nil for as it is stored
	chain   []*member // the backup itself, then its parents
	wal     []string
}

// A member is a backup of a chain.
type member struct {
	label  repo.Label
	major  int
	codec  container.Codec
	sealed bool
	sizes  []vault.KeySize

	// recorded is what the manifest of a parent says of the files that are put together.
	recorded map[string]recorded
}

// recorded is what a manifest says of a file.
type recorded struct {
	size int64
	sum  string // SHA-512, hexadecimal
}

func newMember(l repo.Label, i *info) *member {
	return &member{label: l, major: i.major, codec: i.codec(), sealed: i.encryption != 0, sizes: keySizes(i.encryption)}
}

// Open implements [repo.Foreign].
func (r *Repository) Open(ctx context.Context, l repo.Label) (repo.Tree, error) {
	i, err := r.info(ctx, l)
	if err != nil {
		return nil, err
	}
	t := &tree{repo: r, summary: r.summary(ctx, l, &i), chain: []*member{newMember(l, &i)}}
	if h, ok := r.firstPage(ctx, l, &i); ok {
		t.summary.System = strconv.FormatUint(h.System, 10)
		t.summary.SegmentSize = pg.SegmentSize(h.SegmentSize)
	}
	if t.summary.BackupLabel, err = t.readLabel(i.incremental); err != nil {
		return nil, err
	}
	if t.summary.Tablespaces, err = t.tablespaces(i.tablespaces); err != nil {
		return nil, err
	}
	if t.wal, err = r.walOf(l); err != nil {
		return nil, err
	}
	if i.incremental {
		err = t.parents(ctx, &i)
	}
	if err == nil {
		err = t.measure(ctx)
	}
	return t, err
}

func (t *tree) readLabel(incremental bool) (string, error) {
	b, err := t.repo.small(t.data(0)+labelName, labelLimit)
	if errors.Is(err, fs.ErrNotExist) {
		return "", &IncompleteError{t.summary.Label, "it has no backup_label"}
	}
	// What is not put together would be restored as blocks without their files.
	if _, _, blocks := parentOf(b); blocks && !incremental {
		return "", &InfoError{File: backupDir(t.summary.Label) + "/" + infoName, Key: "TYPE", Why: "it says full, but backup_label says incremental"}
	}
	if incremental && err == nil {
		t.label = wholeLabel(b)
	}
	return string(b), err
}

// data returns the data directory of a member, with a slash.
func (t *tree) data(n int) string { return backupDir(t.chain[n].label) + "/" + dataName + "/" }

// tablespaces lists the tablespaces by the links of the data directory, with the names of backup.info.
func (t *tree) tablespaces(named []repo.Tablespace) ([]repo.Tablespace, error) {
	const links = "pg_tblspc"
	dir, err := t.repo.root.Open(t.data(0) + links)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	entries, err := dir.ReadDir(-1)
	if err := errors.Join(err, dir.Close()); err != nil {
		return nil, err
	}
	var list []repo.Tablespace
	for _, e := range entries {
		oid, err := strconv.ParseUint(e.Name(), 10, 32)
		if err != nil || oid == 0 {
			continue
		}
		real, err := t.repo.directory(t.data(0)+links+"/"+e.Name(), new(int))
		if err != nil {
			return nil, err
		}
		ts := repo.Tablespace{OID: uint32(oid), Name: strings.TrimPrefix(path.Base(real), tablespacePrefix)}
		if at := slices.IndexFunc(named, func(n repo.Tablespace) bool { return n.OID == ts.OID }); at >= 0 {
			ts = named[at]
		}
		list = append(list, ts)
	}
	slices.SortFunc(list, func(a, b repo.Tablespace) int { return int(int64(a.OID) - int64(b.OID)) })
	return list, nil
}

// maxChain bounds the length of a chain.
const maxChain = 4096

// parents adds the parents of an incremental backup down to a full one.
func (t *tree) parents(ctx context.Context, i *info) error {
	child, wanted := i, map[string]bool{}
	_, err := t.repo.readManifest(ctx, t.summary.Label, func(f manifest.File) error {
		if dir, base := path.Split(f.Path); strings.HasPrefix(base, incrementalPrefix) {
			wanted[dir+base], wanted[dir+strings.TrimPrefix(base, incrementalPrefix)] = true, true
		}
		return nil
	})
	if err != nil {
		return err
	}
	for child.incremental {
		l, err := repo.ParseLabel(child.parent)
		if err == nil && (l >= t.chain[len(t.chain)-1].label || len(t.chain) == maxChain) {
			err = errors.New("a parent is older than its child")
		}
		var parent info
		if err == nil {
			parent, err = t.repo.info(ctx, l)
		}
		m := newMember(l, &parent)
		if err == nil {
			err = t.repo.record(ctx, m, wanted)
		}
		if err != nil {
			return &ChainError{t.summary.Label, repo.Label(child.parent), err}
		}
		t.chain, child = append(t.chain, m), &parent
	}
	return nil
}

// record keeps what the manifest of a member says of the wanted files.
func (r *Repository) record(ctx context.Context, m *member, wanted map[string]bool) error {
	m.recorded = map[string]recorded{}
	_, err := r.readManifest(ctx, m.label, func(f manifest.File) error {
		if wanted[f.Path] {
			m.recorded[f.Path] = recorded{f.Size, sumOf(f)}
		}
		return nil
	})
	return err
}

// sumOf returns the SHA-512 of an entry, or "" when it has another one.
func sumOf(f manifest.File) string {
	if f.Algorithm == "SHA512" {
		return f.Checksum
	}
	return ""
}

// measure counts what the files have in plain bytes. Those that are put together
// are counted by backup.info.
func (t *tree) measure(ctx context.Context) error {
	var sum, biggest, files int64
	_, err := t.repo.readManifest(ctx, t.summary.Label, func(f manifest.File) error {
		sum, biggest, files = sum+f.Size, max(biggest, f.Size), files+1
		if sum < 0 {
			return &FileError{t.data(0) + manifestName, fmt.Errorf("%w: its files have more bytes than there are", ErrDamaged)}
		}
		return nil
	})
	if t.summary.Overlaid {
		sum, biggest = max(sum, t.summary.Logical), max(biggest, t.summary.Biggest)
	}
	t.summary.Logical, t.summary.Biggest, t.summary.Files = sum, biggest, files
	return err
}

// Summary implements [repo.Tree].
func (t *tree) Summary() repo.Summary { return t.summary }

// Close implements [repo.Tree].
func (t *tree) Close() error { return nil }

// WAL implements [repo.Tree].
func (t *tree) WAL() []string { return t.wal }

// OpenManifest implements [repo.Tree].
func (t *tree) OpenManifest(context.Context) (io.ReadCloser, error) {
	return t.repo.openPlain(t.data(0) + manifestName)
}

// Files implements [repo.Tree]: the directories as they are, the files by PostgreSQL's manifest,
// which lists all of them but WAL.
func (t *tree) Files() iter.Seq2[repo.File, error] {
	return func(yield func(repo.File, error) bool) {
		err := t.directories("", func(f repo.File) error { return yielded(yield(f, nil)) })
		if err == nil {
			_, err = t.repo.readManifest(context.Background(), t.summary.Label, func(m manifest.File) error {
				f, err := t.file(m)
				if err != nil {
					return err
				}
				return yielded(yield(f, nil))
			})
		}
		if err != nil && !errors.Is(err, errStopped) {
			yield(repo.File{}, err)
		}
	}
}

var errStopped = errors.New("stopped")

func yielded(goOn bool) error {
	if goOn {
		return nil
	}
	return errStopped
}

// directories walks the directories below one of the data directory, "" or with a slash.
func (t *tree) directories(below string, each func(repo.File) error) error {
	real, err := t.repo.directory(strings.TrimSuffix(t.data(0)+below, "/"), new(int))
	if err != nil {
		return err
	}
	dir, err := t.repo.root.Open(real)
	if err != nil {
		return err
	}
	entries, err := dir.ReadDir(-1)
	if err := errors.Join(err, dir.Close()); err != nil {
		return err
	}
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	for _, e := range entries {
		name := below + e.Name()
		link := below == "pg_tblspc/" && e.Type()&fs.ModeSymlink != 0
		if !link && !e.IsDir() {
			continue
		}
		row := repo.File{Path: name, Kind: repo.Directory, Mode: 0o700}
		if link {
			row.Kind = repo.Symlink
		}
		if err := each(row); err != nil {
			return err
		}
		if err := t.directories(name+"/", each); err != nil {
			return err
		}
	}
	return nil
}

// file turns an entry of the manifest into a row.
func (t *tree) file(m manifest.File) (repo.File, error) {
	if !fs.ValidPath(m.Path) || strings.ContainsRune(m.Path, 0) {
		return repo.File{}, &FileError{t.data(0) + manifestName, fmt.Errorf("%w: it lists a file named %q", ErrDamaged, m.Path)}
	}
	f := repo.File{Path: m.Path, Kind: repo.Regular, Mode: 0o600, Size: m.Size, Sum: sumOf(m)}
	var err error
	if f.ModTime, err = time.Parse(manifest.TimeLayout, m.Modified); err != nil {
		f.ModTime = t.summary.StartedAt
	}
	if !t.summary.Overlaid {
		return f, nil
	}
	if f.Path == labelName {
		f.Size = int64(len(t.label))
	}
	if dir, base := path.Split(f.Path); strings.HasPrefix(base, incrementalPrefix) {
		f.Path = dir + strings.TrimPrefix(base, incrementalPrefix)
		f.Sent = m.Size
		f.Size, err = t.combinedSize(m.Path)
	}
	return f, err
}

// combinedSize returns how large an incremental file of the newest member will be.
func (t *tree) combinedSize(name string) (int64, error) {
	in, err := t.openMember(context.Background(), 0, name)
	if err != nil {
		return 0, err
	}
	list, err := parseBlockList(in)
	if err != nil {
		err = &FileError{t.data(0) + name, err}
	}
	return int64(list.blocks()) * blockSize, errors.Join(err, in.Close())
}

// openMember opens the plain bytes of a file of a member.
func (t *tree) openMember(ctx context.Context, n int, name string) (io.ReadCloser, error) {
	m := t.chain[n]
	expected, sealed := m.codec, m.sealed
	if name == labelName {
		expected, sealed = container.None, false
	}
	s, err := t.repo.find(t.data(n)+name, expected, sealed, m.sizes)
	if err != nil {
		return nil, err
	}
	return t.repo.open(ctx, s)
}

// OpenFile implements [repo.Tree].
func (t *tree) OpenFile(ctx context.Context, f repo.File) (io.ReadCloser, error) {
	if f.Sent > 0 {
		return t.combined(ctx, f)
	}
	want := recorded{f.Size, f.Sum}
	if f.Path == labelName && t.label != nil {
		want.size = int64(len(t.summary.BackupLabel))
	}
	in, err := t.checked(ctx, 0, f.Path, want)
	if err != nil || f.Path != labelName || t.label == nil {
		return in, err
	}
	_, err = io.Copy(io.Discard, in)
	if err := errors.Join(err, in.Close()); err != nil {
		return nil, err
	}
	return io.NopCloser(bytes.NewReader(t.label)), nil
}

// combined opens a file that is put together.
func (t *tree) combined(ctx context.Context, f repo.File) (io.ReadCloser, error) {
	dir, base := path.Split(f.Path)
	name := dir + incrementalPrefix + base
	var layers []*layer
	c := &combiner{}
	for n, m := range t.chain {
		l, err := t.layer(ctx, n, m, name, f)
		if l != nil {
			layers = append(layers, l)
			c.layers = layers
		}
		if err != nil {
			return nil, errors.Join(err, c.Close())
		}
		if l.whole {
			break
		}
	}
	if !layers[len(layers)-1].whole {
		return nil, errors.Join(&FileError{t.data(len(t.chain)-1) + f.Path, fs.ErrNotExist}, c.Close())
	}
	return newCombiner(layers), nil
}

// layer opens the file of a member: the incremental one, or in a parent the whole one if there is that.
func (t *tree) layer(ctx context.Context, n int, m *member, name string, f repo.File) (*layer, error) {
	want, ok := recorded{f.Sent, f.Sum}, true
	whole := false
	if n > 0 {
		if want, ok = m.recorded[f.Path]; ok {
			name, whole = f.Path, true
		} else if want, ok = m.recorded[name]; !ok {
			return nil, &FileError{t.data(n) + f.Path, errors.New("neither the file nor its changed blocks are in the backup, but a newer one needs them")}
		}
	}
	in, err := t.checked(ctx, n, name, want)
	if err != nil {
		return nil, err
	}
	l, err := newLayer(in, whole, want.size, m.major)
	if err != nil {
		err = &FileError{t.data(n) + name, err}
	}
	return l, err
}

// checked opens a file whose bytes must be as recorded.
func (t *tree) checked(ctx context.Context, n int, name string, want recorded) (io.ReadCloser, error) {
	in, err := t.openMember(ctx, n, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &FileError{t.data(n) + name, errors.Join(fs.ErrNotExist, errors.New("it is missing"))}
	}
	if err != nil {
		return nil, err
	}
	return &checkedReader{in: in, name: t.data(n) + name, want: want, hash: sha512.New()}, nil
}

// A checkedReader ends with io.EOF only when size and hash are as recorded.
type checkedReader struct {
	in   io.ReadCloser
	name string
	want recorded
	hash hash.Hash
	size int64
}

func (c *checkedReader) Read(p []byte) (int, error) {
	n, err := c.in.Read(p)
	c.hash.Write(p[:n])
	c.size += int64(n)
	if c.size > c.want.size {
		return 0, &FileError{c.name, fmt.Errorf("%w: more than the %d bytes that were recorded", ErrDamaged, c.want.size)}
	}
	if !errors.Is(err, io.EOF) {
		return n, err
	}
	if c.size != c.want.size {
		return n, &FileError{c.name, fmt.Errorf("%w: %d bytes instead of %d", ErrDamaged, c.size, c.want.size)}
	}
	if c.want.sum != "" && hex.EncodeToString(c.hash.Sum(nil)) != c.want.sum {
		return n, &FileError{c.name, fmt.Errorf("%w: its SHA-512 is not the one that PostgreSQL recorded", ErrDamaged)}
	}
	return n, err
}

func (c *checkedReader) Close() error { return c.in.Close() }
