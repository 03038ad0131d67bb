package foreign

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"github.com/pgmoneta/pgmoneta-go/internal/repo"
)

// CheckStored implements [repo.Tree]: it compares the files with backup.sha512, whose
// lines are those of sha512sum.
func (t *tree) CheckStored(ctx context.Context, found func(name string, err error)) error {
	list := backupDir(t.summary.Label) + "/" + sumsName
	err := t.repo.recordedSums(ctx, t.summary.Label, func(name, sum string) error {
		err := t.repo.compare(ctx, name, sum)
		if err != nil && ctx.Err() == nil {
			found(name, err)
		}
		return context.Cause(ctx)
	})
	var cut *sumsError
	if errors.As(err, &cut) {
		found(list, err)
		return nil
	}
	return err
}

// A sumsError reports a line of backup.sha512 that is none.
type sumsError struct{ line int }

func (e *sumsError) Error() string {
	return fmt.Sprintf("%v: line %d is not one of sha512sum: what follows is not checked", ErrDamaged, e.line)
}

func (e *sumsError) Unwrap() error { return ErrDamaged }

// recordedSums calls each with the stored files that backup.sha512 lists, and their SHA-512. What is
// no line of it is a [*sumsError], after those before it.
func (r *Repository) recordedSums(ctx context.Context, l repo.Label, each func(name, sum string) error) error {
	f, err := r.openPlain(backupDir(l) + "/" + sumsName)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	in := bufio.NewReaderSize(&interruptible{ctx, f}, 64<<10)
	for n := 1; ; n++ {
		line, err := in.ReadSlice('\n')
		if errors.Is(err, io.EOF) && len(line) == 0 {
			return nil
		}
		sum, name, ok := parseSum(line)
		switch {
		case err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, bufio.ErrBufferFull):
			return err
		case err != nil || !ok:
			return &sumsError{n}
		}
		if err := each(backupDir(l)+"/"+name, sum); err != nil {
			return err
		}
	}
}

// parseSum reads a line of backup.sha512: a SHA-512 and a path relative to the backup's directory. That
// of backup.info may lack the slash.
func parseSum(line []byte) (sum, name string, ok bool) {
	text, whole := bytes.CutSuffix(line, []byte("\n"))
	sum, name, pair := strings.Cut(string(text), " *.")
	name = strings.TrimPrefix(name, "/")
	raw, err := hex.DecodeString(sum)
	return sum, name, whole && pair && err == nil && len(raw) == sha512.Size && fs.ValidPath(name)
}

// compare compares a stored file with its hash.
func (r *Repository) compare(ctx context.Context, name, want string) error {
	f, err := r.openPlain(name)
	if err != nil {
		return err
	}
	h := sha512.New()
	_, err = io.Copy(h, &interruptible{ctx, f})
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if hex.EncodeToString(h.Sum(nil)) != want {
		return fmt.Errorf("%w: its SHA-512 is not the one in %s", ErrDamaged, sumsName)
	}
	return nil
}
