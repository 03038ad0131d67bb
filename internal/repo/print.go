package repo

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"

	"github.com/pgmoneta/pgmoneta-go/internal/container"
)

// printObject holds the key of the prints in the packs' indexes.
const printObject = "print"

// Printer returns the printer of the repository, nil when it has none yet.
func (r *Repository) Printer(ctx context.Context) (*container.Printer, error) {
	b, err := r.ReadRecord(ctx, printObject, 4096)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if len(b) != container.PrintKeySize {
		return nil, &container.DamagedError{Object: printObject, Frame: -1, Err: fmt.Errorf("%d bytes, want %d", len(b), container.PrintKeySize)}
	}
	return container.NewPrinter([container.PrintKeySize]byte(b))
}

// ForgetPrinter removes the key of the prints. Prints that were made with it find nothing
// any more: the next backup makes another key and stores everything once more. The
// caller holds [Repository.Lock].
func (r *Repository) ForgetPrinter(ctx context.Context) error {
	return r.engine.Delete(ctx, printObject)
}

// NewPrinter returns the printer of the repository, whose key it makes when there is
// none. The caller holds [Repository.Lock].
func (r *Repository) NewPrinter(ctx context.Context) (*container.Printer, error) {
	p, err := r.Printer(ctx)
	if p != nil || err != nil {
		return p, err
	}
	var key [container.PrintKeySize]byte
	_, _ = rand.Read(key[:]) // never fails
	if err := r.PutRecord(ctx, OwnerJob, printObject, key[:]); err != nil {
		return nil, err
	}
	return container.NewPrinter(key)
}
