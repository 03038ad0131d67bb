package expire

import (
	"context"
	"fmt"
	"strings"

	"github.com/pgmoneta/pgmoneta-go/internal/repo"
	"github.com/pgmoneta/pgmoneta-go/internal/retention"
)

// A GuardError refuses to delete backups by hand that a promise of the retention rests on.
type GuardError struct {
	Server string
	Labels []repo.Label
	Why    string // which promise
}

func (e *GuardError) Error() string {
	labels := make([]string, len(e.Labels))
	for i, l := range e.Labels {
		labels[i] = string(l)
	}
	return fmt.Sprintf("server %q: nothing is deleted: without backup %s, %s: delete with --force", e.Server, strings.Join(labels, ", "), e.Why)
}

// Guard returns a [*GuardError] when the policy does not allow to delete backups by hand.
func Guard(ctx context.Context, o Options, gone ...repo.Label) error {
	c, err := o.finder().catalogue(ctx)
	if err != nil {
		return err
	}
	if why := retention.Guard(c, o.Policy, o.Now(), gone); why != "" {
		return &GuardError{o.Repo.Server(), gone, why}
	}
	return nil
}
