package supervisor

import (
	"context"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/mgmt"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
)

// undelete brings a backup back from the trash.
func (h handler) undelete(ctx context.Context, req *mgmt.Request, v *server) (mgmt.Response, error) {
	b, err := v.repo.Undelete(ctx, req.Backup())
	if err != nil {
		return nil, err
	}
	v.catalogChanged()
	v.log.Info("backup brought back from the trash", "label", string(b.Label))
	if b.Err != nil {
		return mgmt.Response{"Backup": string(b.Label)}, nil
	}
	resp := mgmt.DescribeBackup(b.Summary)
	resp["Keep"], resp["Comments"] = v.note(ctx, b)
	return resp, nil
}

// inTrash lists what waits in the trash of a server.
func (h handler) inTrash(ctx context.Context, v *server) ([]mgmt.Document, error) {
	list, err := v.repo.InTrash(ctx)
	if err != nil {
		return nil, err
	}
	delay := time.Duration(0)
	c := h.config.Load()
	if sc, ok := c.Server(v.name); ok {
		delay = c.DeleteDelay(sc)
	}
	rows := []mgmt.Document{}
	for _, t := range list {
		rows = append(rows, trashRow(t, delay))
	}
	return rows, nil
}

func trashRow(t repo.Trashed, delay time.Duration) mgmt.Document {
	d := mgmt.Document{"Backup": string(t.Label), "BackupSize": t.Summary.Stored, "RestoreSize": t.Summary.Logical, "Deleted": "", "Until": ""}
	if !t.DeletedAt.IsZero() {
		d["Deleted"], d["Until"] = t.DeletedAt.UTC().Format(time.RFC3339), t.DeletedAt.Add(delay).UTC().Format(time.RFC3339)
	}
	return d
}
