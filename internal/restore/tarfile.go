package restore

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/pgmoneta/pgmoneta-go/internal/container"
	"github.com/pgmoneta/pgmoneta-go/internal/durable"
	"github.com/pgmoneta/pgmoneta-go/internal/sealed"
	"github.com/pgmoneta/pgmoneta-go/internal/vault"
)

// ArchiveOptions tell how the tar of a plan is stored.
type ArchiveOptions struct {
	Codec  container.Codec
	Level  int
	Cipher container.Cipher // Plain: as it is
	Master func() (*vault.MasterKey, error)
	// Unlocked says that the caller of [WriteArchive] does not hold [repo.Repository.Lock],
	// because it must not write to the repository.
	Unlocked bool
	FS       durable.FS // through which [WriteArchive] writes; nil for that of the machine
	Run      RunOptions
}

// ArchiveCipher returns how the archive of a plan is sealed: as the configuration says, or
// else as the backup is, and not at all when it is to be plain.
func ArchiveCipher(p *Plan, configured container.Cipher, plain bool) (container.Cipher, error) {
	switch {
	case plain:
		return container.Plain, nil
	case configured != container.Plain:
		return configured, nil
	}
	return container.ParseCipher(p.Backup.Cipher)
}

// ArchiveName returns the name of the file that a plan is archived to, which is that of C pgmoneta.
func ArchiveName(p *Plan, o ArchiveOptions) string {
	name := "archive-" + p.Server + "-" + string(p.Backup.Label) + ".tar" + tarSuffix(o.Codec)
	if o.Cipher != container.Plain {
		name += sealed.Suffix
	}
	return name
}

func tarSuffix(c container.Codec) string {
	return map[container.Codec]string{container.Gzip: ".gz", container.Zstd: ".zstd", container.LZ4: ".lz4", container.Bzip2: ".bz2"}[c]
}

const archiveBuffer = 1 << 20

// StreamArchive writes the tar of a plan to out, compressed and then sealed. It is whole
// when nil is returned.
func StreamArchive(ctx context.Context, p *Plan, out io.Writer, o ArchiveOptions) error {
	if o.Cipher == container.Plain {
		buffered := bufio.NewWriterSize(out, archiveBuffer)
		if err := WriteTar(ctx, p, buffered, o.Codec, o.Level, o.Run); err != nil {
			return err
		}
		return buffered.Flush()
	}
	master, err := o.Master()
	if err != nil {
		return fmt.Errorf("encrypt the archive: %w", err)
	}
	w, err := sealed.NewWriter(out, master, o.Cipher)
	if err != nil {
		return err
	}
	if err := WriteTar(ctx, p, w, o.Codec, o.Level, o.Run); err != nil {
		return err
	}
	return w.Close()
}

// WriteArchive writes the tar of a plan into a directory and returns its path. The file
// has its name when it is complete and durable, and not before; one of that name stays.
// What an interrupted archive left goes, when the lock of the repository tells that nobody
// writes it any more; else it is refused to write beside it.
func WriteArchive(ctx context.Context, p *Plan, directory string, o ArchiveOptions) (path string, err error) {
	if o.FS == nil {
		o.FS = durable.OS{}
	}
	name := ArchiveName(p, o)
	path = filepath.Join(directory, name)
	if _, err := os.Lstat(path); err == nil {
		return "", fmt.Errorf("archive: %w", &fs.PathError{Op: "create", Path: path, Err: fs.ErrExist})
	}
	temp := filepath.Join(directory, "."+name+".part")
	if !o.Unlocked {
		_ = o.FS.Remove(temp)
	}
	f, err := o.FS.Create(temp)
	if o.Unlocked && errors.Is(err, fs.ErrExist) {
		return "", fmt.Errorf("archive: %w: another command is at work on it, or one was interrupted: then remove this", err)
	}
	if err != nil {
		return "", fmt.Errorf("archive: %w", err)
	}
	err = StreamArchive(ctx, p, f, o)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		_ = o.FS.Remove(temp)
		return "", err
	}
	return path, durable.Publish(o.FS, temp, path)
}
