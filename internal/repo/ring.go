package repo

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/pgmoneta/pgmoneta-go/internal/container"
	"github.com/pgmoneta/pgmoneta-go/internal/storage"
	"github.com/pgmoneta/pgmoneta-go/internal/vault"
)

// Keys tell how objects of a repository are sealed.
type Keys struct {
	Cipher container.Cipher // of new objects
	// Master returns the master key. It is asked only when a key of the repository
	// must be opened or made. nil means that there is none.
	Master func() (*vault.MasterKey, error)
}

// A ring holds the keys of a repository that were opened so far.
type ring struct {
	Keys

	mu         sync.Mutex
	repository string // id, "" before it is known
	keys       map[uint32]container.Key
	write      uint32 // number of the key for new objects, 0 before there is one
	listed     bool
	newest     uint32 // largest number that exists, 0 for none
	plain      bool   // an opened key says that plain objects may stand beside sealed ones
}

// UseKeys sets how objects are sealed. It is called before anything else; without
// it new objects are plain and sealed ones cannot be read.
func (r *Repository) UseKeys(k Keys) { r.ring.Keys = k }

// Cipher returns that of new objects.
func (r *Repository) Cipher() container.Cipher { return r.ring.Cipher }

// NewContainer begins a container of the given name on w: sealed when the
// repository is, and never plain when it should be sealed. [Repository.Bind] was called before.
func (r *Repository) NewContainer(w io.Writer, name string, kind container.Kind, codec container.Codec) (*container.Writer, error) {
	h := container.Header{Kind: kind, Codec: codec, Cipher: r.ring.Cipher}
	r.ring.mu.Lock()
	key, ok := r.ring.keys[r.ring.write]
	newest, plain := r.ring.newest, r.ring.plain
	r.ring.mu.Unlock()
	switch {
	case h.Cipher != container.Plain && !ok:
		return nil, fmt.Errorf("server %q: %s: no key of the repository is open to encrypt it with", r.server, name)
	case h.Cipher != container.Plain:
		return container.NewSealedWriter(w, h, name, key)
	case newest != 0 && !plain:
		return nil, fmt.Errorf("server %q: %s: %w", r.server, name, errSealedOnly)
	}
	return container.NewWriter(w, h)
}

var errSealedOnly = errors.New("the repository takes encrypted objects only")

// OpenContainer opens the container of the given name. Close the object when the
// reader is not needed any more. A plain container among objects that are all sealed
// is refused as damaged, with [ErrPlain].
func (r *Repository) OpenContainer(ctx context.Context, name string, kind container.Kind) (*container.Reader, storage.Object, error) {
	o, err := r.engine.Open(ctx, name)
	if err != nil {
		return nil, nil, err
	}
	c, err := container.Open(name, o, o.Size(), kind, r.keys(ctx))
	if err == nil && c.Header().Cipher == container.Plain {
		err = r.admitPlain(ctx, name)
	}
	if err != nil {
		_ = o.Close()
		return nil, nil, err
	}
	return c, o, nil
}

// PutRecord stores a small object: as it is, or in a container where it is sealed or goes into what is restored.
func (r *Repository) PutRecord(ctx context.Context, owner, name string, content []byte) error {
	if err := r.prepareKeys(ctx, owner); err != nil {
		return err
	}
	codec := container.None
	if r.ring.Cipher == container.Plain {
		if !hashedRecord(name) {
			return storage.Put(ctx, r.engine, owner, name, content)
		}
		codec = container.Zstd // whose tool reads it
	}
	var b bytes.Buffer
	w, err := r.NewContainer(&b, name, container.Record, codec)
	if err != nil {
		return err
	}
	s, err := w.Stream(3)
	if err != nil {
		return err
	}
	if _, err := s.Write(content); err != nil {
		return err
	}
	if err := s.Finish(); err != nil {
		return err
	}
	return storage.Put(ctx, r.engine, owner, name, b.Bytes())
}

// hashedRecord reports whether a record has a hash also where it is not sealed: a timeline history, which is restored as it is,
// and of which another digit would make another timeline. One without, as C pgmoneta left it, is read too.
func hashedRecord(name string) bool { return strings.HasPrefix(name, "wal/") }

// ReadRecord returns the content of a small object, of at most limit bytes.
func (r *Repository) ReadRecord(ctx context.Context, name string, limit int64) ([]byte, error) {
	const overhead = 4096 // of a container, more than enough
	b, err := storage.ReadAll(ctx, r.engine, name, limit+overhead)
	if err != nil {
		return nil, err
	}
	if !container.Begins(b) {
		return b, r.admitPlain(ctx, name)
	}
	c, err := container.Open(name, bytes.NewReader(b), int64(len(b)), container.Record, r.keys(ctx))
	if err != nil {
		return nil, err
	}
	if c.Header().Cipher == container.Plain {
		if !hashedRecord(name) {
			return nil, &container.DamagedError{Object: name, Frame: -1, Err: errors.New("a record in a plain container")}
		}
		if err := r.admitPlain(ctx, name); err != nil {
			return nil, err
		}
	}
	stream := c.Stream()
	defer func() { _ = stream.Close() }()
	return io.ReadAll(stream)
}

// keys returns the keys for [container.Open].
func (r *Repository) keys(ctx context.Context) container.Keys {
	return func(number uint32) (container.Key, error) {
		r.ring.mu.Lock()
		key, ok := r.ring.keys[number]
		r.ring.mu.Unlock()
		if ok {
			return key, nil
		}
		names, err := r.listKeys(ctx)
		if err != nil {
			return container.Key{}, err
		}
		return r.openKey(ctx, number, names[number])
	}
}

// listKeys returns the names of the key objects by number.
func (r *Repository) listKeys(ctx context.Context) (map[uint32][]string, error) {
	objects, err := r.engine.List(ctx, keyPrefix)
	if err != nil {
		return nil, err
	}
	names := map[uint32][]string{}
	newest := uint32(0)
	for _, o := range objects {
		if number, _, ok := parseWrapName(o.Name); ok {
			names[number] = append(names[number], o.Name)
			newest = max(newest, number)
		}
	}
	r.ring.mu.Lock()
	defer r.ring.mu.Unlock()
	r.ring.listed, r.ring.newest = true, max(newest, r.ring.newest)
	return names, nil
}

// openKey opens the key of a number from any of its wraps.
func (r *Repository) openKey(ctx context.Context, number uint32, names []string) (container.Key, error) {
	key, wraps, err := r.openWraps(ctx, number, names)
	if err != nil {
		return container.Key{}, err
	}
	r.ring.mu.Lock()
	defer r.ring.mu.Unlock()
	if r.ring.keys == nil {
		r.ring.keys = map[uint32]container.Key{}
	}
	r.ring.keys[number] = key
	for _, w := range wraps {
		r.ring.plain = r.ring.plain || w.Plain
	}
	return key, nil
}

// openWraps opens every wrap of a number that the master key opens. One is
// enough; when there is none, the error says why.
func (r *Repository) openWraps(ctx context.Context, number uint32, names []string) (container.Key, []*wrap, error) {
	if len(names) == 0 {
		return container.Key{}, nil, &MissingKeyError{Dir: r.dir, Number: number}
	}
	id, err := r.id(ctx)
	if err != nil {
		return container.Key{}, nil, err
	}
	master, err := r.master()
	if err != nil {
		return container.Key{}, nil, err
	}
	var (
		key    container.Key
		opened []*wrap
		errs   []error
	)
	for _, name := range names {
		w, k, err := r.openWrap(ctx, name, id, master)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		key, opened = k, append(opened, w)
	}
	if len(opened) == 0 {
		return container.Key{}, nil, errors.Join(errs...)
	}
	return key, opened, nil
}

func (r *Repository) openWrap(ctx context.Context, name, id string, master *vault.MasterKey) (*wrap, container.Key, error) {
	content, err := storage.ReadAll(ctx, r.engine, name, keyLimit)
	if errors.Is(err, fs.ErrNotExist) { // removed while we look
		number, _, _ := parseWrapName(name)
		return nil, container.Key{}, &MissingKeyError{Dir: r.dir, Number: number}
	}
	if err != nil {
		return nil, container.Key{}, err
	}
	w, err := parseWrap(name, content)
	if err != nil {
		return nil, container.Key{}, err
	}
	wrong := &WrongMasterError{Object: name, Want: w.Master}
	for _, m := range master.Valid() {
		have, err := m.Fingerprint()
		if err != nil {
			return nil, container.Key{}, err
		}
		if have == w.Master {
			key, err := w.open(id, m)
			return w, key, err
		}
		if wrong.Have == "" {
			wrong.Have = have
		}
	}
	return nil, container.Key{}, wrong
}

func (r *Repository) master() (*vault.MasterKey, error) {
	if r.ring.Master == nil {
		return nil, &NoMasterError{container.ErrNoKeys}
	}
	m, err := r.ring.Master()
	if err != nil {
		return nil, &NoMasterError{err}
	}
	return m, nil
}

// id returns the repository's id.
func (r *Repository) id(ctx context.Context) (string, error) {
	r.ring.mu.Lock()
	id := r.ring.repository
	r.ring.mu.Unlock()
	if id != "" {
		return id, nil
	}
	f, err := r.Format(ctx)
	if errors.Is(err, fs.ErrNotExist) {
		// Not to be taken for the object that the key is for.
		return "", fmt.Errorf("server %q: the repository has no identity, %s is missing", r.server, filepath.Join(r.dir, "format"))
	}
	if err != nil {
		return "", err
	}
	r.ring.mu.Lock()
	defer r.ring.mu.Unlock()
	r.ring.repository = f.Repository
	return f.Repository, nil
}

// admitPlain refuses a plain object where none may be. A repository without keys
// takes any; one with keys takes what its keys say, which needs the master key:
// otherwise whoever can write a file could replace a sealed object by one of his own.
func (r *Repository) admitPlain(ctx context.Context, name string) error {
	plain, err := r.plainAllowed(ctx)
	switch {
	case err != nil:
		return fmt.Errorf("%s is not encrypted, and whether it may be cannot be told: %w", name, err)
	case !plain:
		return &container.DamagedError{Object: name, Frame: -1, Err: ErrPlain}
	}
	return nil
}

func (r *Repository) plainAllowed(ctx context.Context) (bool, error) {
	r.ring.mu.Lock()
	known := r.ring.listed && r.ring.newest == 0 || r.ring.plain
	r.ring.mu.Unlock()
	if known {
		return true, nil
	}
	names, err := r.listKeys(ctx)
	if err != nil {
		return false, err
	}
	for _, number := range slices.Sorted(maps.Keys(names)) {
		if _, err := r.openKey(ctx, number, names[number]); err != nil {
			return false, err
		}
	}
	r.ring.mu.Lock()
	defer r.ring.mu.Unlock()
	return len(names) == 0 || r.ring.plain, nil
}

// prepareKeys makes sure that new objects can be written as they should be. With
// a cipher it opens the newest key, or makes the first. Without one, in a
// repository that had encrypted objects only, it notes in a key that plain ones
// follow. owner is the stage owner of the calling process.
func (r *Repository) prepareKeys(ctx context.Context, owner string) error {
	names, err := r.listKeys(ctx)
	if err != nil {
		return err
	}
	newest := uint32(0)
	for number := range names {
		newest = max(newest, number)
	}
	switch {
	case r.ring.Cipher == container.Plain:
		return r.preparePlain(ctx, owner, names, newest)
	case newest == 0:
		return r.firstKey(ctx, owner)
	}
	return r.prepareSealed(ctx, newest, names[newest])
}

func (r *Repository) prepareSealed(ctx context.Context, newest uint32, names []string) error {
	r.ring.mu.Lock()
	_, have := r.ring.keys[newest]
	former := r.ring.write
	r.ring.mu.Unlock()
	var err error
	if !have {
		_, err = r.openKey(ctx, newest, names)
	}
	if err == nil {
		r.ring.mu.Lock()
		defer r.ring.mu.Unlock()
		r.ring.write = newest
		return nil
	}
	// The master key was changed since this process got it, and then a key was
	// added. The former key is as good; the next process has the new one.
	if former != 0 && errors.As(err, new(*WrongMasterError)) {
		return nil
	}
	return fmt.Errorf("server %q: encryption is %s and cannot be done: %w", r.server, r.ring.Cipher, err)
}

// firstKey makes the first key of the repository.
func (r *Repository) firstKey(ctx context.Context, owner string) error {
	master, err := r.master()
	if err != nil {
		return fmt.Errorf("server %q: encryption is %s and cannot be done: %w", r.server, r.ring.Cipher, err)
	}
	id, err := r.id(ctx)
	if err != nil {
		return err
	}
	plain, err := r.hasObjects(ctx)
	if err != nil {
		return err
	}
	if err := r.newKey(ctx, owner, id, 1, plain, master); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	names, err := r.listKeys(ctx) // another process may have been first
	if err != nil {
		return err
	}
	return r.prepareSealed(ctx, 1, names[1])
}

// newKey makes a random key and stores it wrapped.
func (r *Repository) newKey(ctx context.Context, owner, id string, number uint32, plain bool, master *vault.MasterKey) error {
	var secret [container.KeySize]byte
	defer clear(secret[:])
	if _, err := rand.Read(secret[:]); err != nil {
		return err
	}
	key, err := container.NewKey(id, number, secret)
	if err != nil {
		return err
	}
	w := &wrap{Wrap: 1, Plain: plain}
	if err := w.seal(key, master); err != nil {
		return err
	}
	return w.put(ctx, r.engine, owner)
}

// hasObjects reports whether there is anything that a key could have sealed.
func (r *Repository) hasObjects(ctx context.Context) (bool, error) {
	complete, partial, err := r.Received()
	if err != nil || len(complete)+len(partial) > 0 {
		return true, err
	}
	for _, prefix := range []string{"backup", "pack", "wal", holePrefix} {
		objects, err := r.engine.List(ctx, prefix)
		if err != nil {
			return false, err
		}
		ours := func(o storage.Info) bool { return !foreign(o.Name) }
		if slices.ContainsFunc(objects, ours) {
			return true, nil
		}
	}
	return false, nil
}

// foreign reports whether an object was made by C pgmoneta: WAL that lies flat, and
// whatever is below a backup but the two manifests.
func foreign(name string) bool {
	parts := strings.Split(name, "/")
	switch parts[0] {
	case "wal":
		return len(parts) == 2 && !strings.HasSuffix(name, ".history")
	case "backup":
		return len(parts) != 3 || parts[2] != "manifest" && parts[2] != "backup_manifest"
	}
	return false
}

// preparePlain lets plain objects follow sealed ones.
func (r *Repository) preparePlain(ctx context.Context, owner string, names map[uint32][]string, newest uint32) error {
	if newest == 0 {
		return nil
	}
	plain, err := r.plainAllowed(ctx)
	if err == nil && !plain {
		err = r.notePlain(ctx, owner, newest, names[newest])
		if errors.Is(err, fs.ErrExist) { // another process was first, perhaps for the same reason
			if plain, _ = r.plainAllowed(ctx); plain {
				err = nil
			}
		}
	}
	if err != nil {
		return fmt.Errorf("server %q: the repository holds encrypted objects only, and that plain ones follow must be noted in its key: %w", r.server, err)
	}
	r.ring.mu.Lock()
	defer r.ring.mu.Unlock()
	r.ring.plain = true
	return nil
}

func (r *Repository) notePlain(ctx context.Context, owner string, number uint32, names []string) error {
	master, err := r.master()
	if err != nil {
		return err
	}
	_, err = r.addWrap(ctx, owner, number, names, true, master)
	return err
}

// addWrap wraps a key once more and returns the name of the new object.
func (r *Repository) addWrap(ctx context.Context, owner string, number uint32, names []string, plain bool, master *vault.MasterKey) (string, error) {
	key, _, err := r.openWraps(ctx, number, names)
	if err != nil {
		return "", err
	}
	w := &wrap{Number: number, Plain: plain}
	for _, name := range names {
		_, n, _ := parseWrapName(name)
		w.Wrap = max(w.Wrap, n)
	}
	w.Wrap++
	if err := w.seal(key, master); err != nil {
		return "", err
	}
	return w.object(), w.put(ctx, r.engine, owner)
}
