package supervisor

import (
	"context"
	"errors"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/job"
	"github.com/pgmoneta/pgmoneta-go/internal/mgmt"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
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
		resp["NumberOfBackups"], resp["Backups"] = len(result.Backups), labelTexts(result.Backups)
	}
	if len(result.TakenOver) > 0 {
		resp["TakenOver"] = labelTexts(result.TakenOver)
	}
	if !result.Until.IsZero() {
		resp["Until"] = result.Until.UTC().Format(time.RFC3339)
	}
	return resp, nil
}

func labelTexts(labels []repo.Label) []string {
	texts := []string{}
	for _, l := range labels {
		texts = append(texts, string(l))
	}
	return texts
}
