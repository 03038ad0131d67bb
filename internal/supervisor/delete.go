package supervisor

import (
	"context"
	"errors"

	"github.com/pgmoneta/pgmoneta-go/internal/job"
	"github.com/pgmoneta/pgmoneta-go/internal/mgmt"
)

// deleteBackups deletes the backup that the member Backup names, or those of the list
// Backups: all or none of them.
func (h handler) deleteBackups(ctx context.Context, req *mgmt.Request, v *server) (mgmt.Response, error) {
	named := req.Args.List("Backups")
	if len(named) == 0 {
		return h.delete(ctx, req, v)
	}
	spec := job.Spec{Force: req.Args.Bool("Force")}
	for _, id := range named {
		text, ok := id.(string)
		if !ok || text == "" || req.Backup() != "" {
			return nil, errors.New("a list of labels in Backups is wanted, and no Backup beside it")
		}
		spec.Backups = append(spec.Backups, text)
	}
	result, err := h.job(v, job.Delete, spec)
	if err != nil {
		return nil, err
	}
	gone := []string{}
	for _, l := range result.Backups {
		gone = append(gone, string(l))
	}
	return mgmt.Response{"NumberOfBackups": len(gone), "Backups": gone}, nil
}
