// Package onefile encrypts, decrypts, compresses and decompresses single files in place:
// the result has the file's name with a suffix, or without it, and replaces the file.
//
// # Guarantees
//
// The result has its name when it is complete and durable, and not before; only then the
// source goes, and not if it has changed meanwhile. A file of that name is never replaced.
// What was interrupted leaves the source whole, and beside it a file ending in ".tmp" or
// the whole result. Only regular files are replaced, and no symbolic links: what they lead
// to would stay.
//
// What [Decrypt] makes was authenticated to its last byte. It reads what [Encrypt] makes,
// which is the format of package sealed, and what C pgmoneta 0.22 encrypted with the same
// master key. [Decompress] reads the standard formats and the framing that C pgmoneta
// gives to .lz4.
package onefile

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/pgmoneta/pgmoneta-go/internal/container"
	"github.com/pgmoneta/pgmoneta-go/internal/durable"
	"github.com/pgmoneta/pgmoneta-go/internal/foreign"
	"github.com/pgmoneta/pgmoneta-go/internal/sealed"
	"github.com/pgmoneta/pgmoneta-go/internal/vault"
)

// A SuffixError refuses a file because of its name.
type SuffixError struct {
	Path string
	Why  string
}

func (e *SuffixError) Error() string { return e.Path + ": " + e.Why }

// codecSuffixes are those that are known, the one that is given first.
func codecSuffixes() map[container.Codec][]string {
	return map[container.Codec][]string{
		container.Gzip: {".gz"}, container.Zstd: {".zstd", ".zst"}, container.LZ4: {".lz4"}, container.Bzip2: {".bz2"},
	}
}

func cutCodec(path string) (plain string, codec container.Codec) {
	for codec, suffixes := range codecSuffixes() {
		for _, suffix := range suffixes {
			if plain, ok := strings.CutSuffix(path, suffix); ok && plain != "" && !strings.HasSuffix(plain, "/") {
				return plain, codec
			}
		}
	}
	return path, container.None
}

// Compress compresses a file and returns the path of the result.
func Compress(ctx context.Context, path string, codec container.Codec, level int) (string, error) {
	if _, known := cutCodec(path); known != container.None {
		return "", &SuffixError{path, "its name says that it is compressed already"}
	}
	suffixes := codecSuffixes()[codec]
	if len(suffixes) == 0 {
		return "", fmt.Errorf("%s: %s is no compression", path, codec)
	}
	dest := path + suffixes[0]
	return dest, convert(ctx, durable.OS{}, path, dest, func(in *source, out io.Writer) error {
		w, err := container.Compress(codec, level, out)
		if err != nil {
			return err
		}
		_, err = io.Copy(w, in)
		return errors.Join(err, w.Close())
	})
}

// Decompress decompresses a file and returns the path of the result. Its suffix tells how.
func Decompress(ctx context.Context, path string) (string, error) {
	dest, codec := cutCodec(path)
	if codec == container.None {
		return "", &SuffixError{path, "its name ends in none of .gz, .zstd, .zst, .lz4 and .bz2"}
	}
	return dest, convert(ctx, durable.OS{}, path, dest, func(in *source, out io.Writer) error {
		r, err := decompressor(codec, in)
		if err != nil {
			return err
		}
		_, err = io.Copy(out, r)
		return errors.Join(err, r.Close())
	})
}

// lz4Magic begins a frame of the standard format. As the length of a block of C
// pgmoneta's it would be far too large.
const lz4Magic = 0x184D2204

func decompressor(codec container.Codec, in *source) (io.ReadCloser, error) {
	if in.size == 0 && codec != container.LZ4 {
		return nil, errors.New("it is empty, which no file of this format is")
	}
	buffered := bufio.NewReader(in)
	if head, _ := buffered.Peek(4); codec == container.LZ4 && len(head) == 4 && binary.LittleEndian.Uint32(head) == lz4Magic {
		return container.Decompress(codec, buffered)
	}
	return foreign.Decompress(codec, buffered)
}

// Encrypt encrypts a file and returns the path of the result.
func Encrypt(ctx context.Context, path string, cipher container.Cipher, master *vault.MasterKey) (string, error) {
	if strings.HasSuffix(path, sealed.Suffix) {
		return "", &SuffixError{path, "its name says that it is encrypted already"}
	}
	dest := path + sealed.Suffix
	return dest, convert(ctx, durable.OS{}, path, dest, func(in *source, out io.Writer) error {
		if err := in.opens(master); err != nil {
			return err
		}
		w, err := sealed.NewWriter(out, master, cipher)
		if err != nil {
			return err
		}
		if _, err := io.Copy(w, in); err != nil {
			return err
		}
		return w.Close()
	})
}

// opens returns an error when the file is the very key that it is to be sealed with: nobody
// could read either again.
func (s *source) opens(master *vault.MasterKey) error {
	const most = 4096 // bytes of a master key
	content, err := io.ReadAll(io.NewSectionReader(s, 0, min(s.size, most)))
	if err != nil {
		return err
	}
	key, err := vault.ParseMasterKey(content)
	if err != nil {
		return nil // it is none
	}
	own, err := key.Fingerprint()
	if err != nil {
		return err
	}
	for _, valid := range master.Valid() {
		seals, err := valid.Fingerprint()
		if err != nil {
			return err
		}
		if seals == own {
			return errors.New("it is the master key itself, without which nobody could decrypt it: keep a copy of it elsewhere")
		}
	}
	return nil
}

// Decrypt decrypts a file and returns the path of the result.
func Decrypt(ctx context.Context, path string, master *vault.MasterKey) (string, error) {
	dest, ok := strings.CutSuffix(path, sealed.Suffix)
	if !ok || dest == "" || strings.HasSuffix(dest, "/") {
		return "", &SuffixError{path, "its name does not end in " + sealed.Suffix}
	}
	return dest, convert(ctx, durable.OS{}, path, dest, func(in *source, out io.Writer) error {
		return in.decrypt(ctx, master, out)
	})
}

// DecryptTo writes the plain bytes of a file to out; the file stays. Nothing is written
// that was not authenticated, for which a file of C pgmoneta would have to be read twice:
// it is refused.
func DecryptTo(ctx context.Context, path string, master *vault.MasterKey, out io.Writer) error {
	in, err := open(ctx, path, 0)
	if err != nil {
		return err
	}
	defer func() { _ = in.file.Close() }()
	if ours, err := in.ours(); err != nil || !ours {
		if err == nil {
			err = fmt.Errorf("%s is no file that this program encrypted: decrypt it to a file", path)
		}
		return err
	}
	return in.decrypt(ctx, master, out)
}

// A source is the file that is read.
type source struct {
	ctx  context.Context // io.Reader has none
	path string
	file *os.File
	info fs.FileInfo
	size int64
}

// open opens a regular file. Nothing else is waited for, as for the writer of a pipe.
func open(ctx context.Context, path string, flags int) (*source, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|flags, 0)
	if errors.Is(err, syscall.ELOOP) {
		err = fmt.Errorf("%w: name the file itself and no link to it", err)
	}
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", path)
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return &source{ctx, path, f, info, info.Size()}, nil
}

// Read implements [io.Reader].
func (s *source) Read(p []byte) (int, error) {
	if s.ctx.Err() != nil {
		return 0, context.Cause(s.ctx)
	}
	return s.file.Read(p)
}

// ReadAt implements [io.ReaderAt].
func (s *source) ReadAt(p []byte, at int64) (int, error) {
	if s.ctx.Err() != nil {
		return 0, context.Cause(s.ctx)
	}
	return s.file.ReadAt(p, at)
}

// Seek implements [io.Seeker].
func (s *source) Seek(offset int64, whence int) (int64, error) { return s.file.Seek(offset, whence) }

// ours reports whether the file has the format of package sealed.
func (s *source) ours() (bool, error) {
	head := make([]byte, 64)
	n, err := s.file.ReadAt(head, 0)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return sealed.Is(head[:n]), err
}

// decrypt writes the plain bytes to out.
func (s *source) decrypt(ctx context.Context, master *vault.MasterKey, out io.Writer) error {
	ours, err := s.ours()
	if err != nil {
		return err
	}
	if !ours {
		r, err := foreign.Unseal(ctx, s, s.size, master)
		if err == nil {
			_, err = io.Copy(out, r)
		}
		return err
	}
	r, err := sealed.Open(s.path, s, s.size, master)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, r)
	return errors.Join(err, r.Close())
}

// same reports whether the name still leads to the file that was read, and that to what it was.
func (s *source) same() bool {
	now, err := os.Lstat(s.path)
	return err == nil && os.SameFile(now, s.info) && now.Size() == s.size && now.ModTime().Equal(s.info.ModTime())
}

const tempSuffix = ".tmp"

// convert makes dest of the file at path, and removes that.
func convert(ctx context.Context, fsys durable.FS, path, dest string, do func(in *source, out io.Writer) error) error {
	in, err := open(ctx, path, syscall.O_NOFOLLOW)
	if err != nil {
		return err
	}
	defer func() { _ = in.file.Close() }()
	if _, err := os.Lstat(dest); err == nil {
		return &fs.PathError{Op: "create", Path: dest, Err: fs.ErrExist}
	}
	temp := dest + tempSuffix
	out, err := fsys.Create(temp)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%w: another command is at work on the file, or one was interrupted: then remove this", err)
	}
	if err != nil {
		return err
	}
	err = fill(in, out, do)
	if err == nil && !in.same() {
		err = errors.New("it has changed meanwhile, and nothing was done")
	}
	if err != nil {
		_ = fsys.Remove(temp)
		return fmt.Errorf("%s: %w", path, err)
	}
	if err := durable.Publish(fsys, temp, dest); err != nil {
		return err
	}
	if err := fsys.Remove(path); err != nil {
		return err
	}
	return fsys.SyncDir(filepath.Dir(path))
}

// fill writes the result, which gets the mode of the source, and where root is at work its owner.
func fill(in *source, out durable.File, do func(in *source, out io.Writer) error) error {
	buffered := bufio.NewWriterSize(out, 1<<20)
	err := do(in, buffered)
	if err == nil {
		err = buffered.Flush()
	}
	if err == nil {
		err = os.Chmod(out.Name(), in.info.Mode().Perm())
	}
	if st, ok := in.info.Sys().(*syscall.Stat_t); ok && err == nil && os.Geteuid() == 0 {
		err = os.Lchown(out.Name(), int(st.Uid), int(st.Gid))
	}
	if err == nil {
		err = out.Sync()
	}
	return errors.Join(err, out.Close())
}
