package supervisor

import (
	"context"
	"errors"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/job"
	"github.com/pgmoneta/pgmoneta-go/internal/mgmt"
)

// deleteBackups deletes the backup that the member Backup names, or those of the list
// Backups: all or none of them.
func (h handler) deleteBackups(_ context.Context, req *mgmt.Request, v *server) (mgmt.Response, error) {
	spec := job.Spec{Backup: req.Backup(), Force: req.Args.Bool("Force")}
	for _, id := range req.Args.List("Backups") {
		text, ok := id.(string)
		if !ok || text == "" || spec.Backup != "" {
			return nil, errors.New("a list of labels in Backups is wanted, and no Backup beside it")
		}
		spec.Backups = append(spec.Backups, text)
	}
	result, err := h.job(v, job.Delete, spec)
	if err != nil {
		return nil, err
	}
	resp := mgmt.Response{}
	if len(spec.Backups) == 0 {
		resp["Backup"] = string(result.Backup.Label)
	} else {
		gone := []string{}
		for _, l := range result.Backups {
			gone = append(gone, string(l))
		}
		resp["NumberOfBackups"], resp["Backups"] = len(gone), gone
	}
	if !result.Until.IsZero() {
		resp["Until"] = result.Until.UTC().Format(time.RFC3339)
	}
	return resp, nil
}
