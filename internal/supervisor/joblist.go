package supervisor

import (
	"context"
	"fmt"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/mgmt"
)

// shownJobs is how many jobs are listed if not all are asked for.
const shownJobs = 20

// jobList answers "jobs": those that run and wait, and the last that ended.
func (h handler) jobList(_ context.Context, req *mgmt.Request) (mgmt.Response, error) {
	server := req.Server()
	if server != "" && h.server(server) == nil {
		return nil, &mgmt.Error{Code: mgmt.CodeJobsNoServer, Err: fmt.Errorf("server %q is not configured", server)}
	}
	rows := []mgmt.Document{}
	for _, r := range h.book.list() {
		if server == "" || r.Server == server {
			rows = append(rows, r.document())
		}
	}
	if !req.Args.Bool("All") {
		rows = rows[max(0, len(rows)-shownJobs):]
	}
	return mgmt.Response{"NumberOfJobs": len(rows), "Jobs": rows}, nil
}

func (r record) document() mgmt.Document {
	d := mgmt.Document{"Job": r.ID, "Server": r.Server, "Kind": string(r.Kind), "State": r.State, "Queued": r.Queued.Format(time.RFC3339)}
	if !r.Started.IsZero() {
		d["Started"] = r.Started.Format(time.RFC3339)
	}
	if !r.Ended.IsZero() {
		d["Ended"] = r.Ended.Format(time.RFC3339)
		if !r.Started.IsZero() {
			d["Elapsed"] = r.Ended.Sub(r.Started).Round(time.Millisecond).Seconds()
		}
	}
	if r.Backup != "" {
		d["Backup"] = r.Backup
	}
	if r.File != "" {
		d["File"] = r.File
	}
	if r.Error != "" {
		d["Error"] = r.Error
	}
	return d
}

// cancel stops the job that a request names, by number or ticket, or without either
// the one that runs. It reports whether there was one.
func (h handler) cancel(req *mgmt.Request, v *server) (bool, error) {
	id, given := req.Args.Integer("Job")
	if other, ok := req.Args["Job"]; ok && !given && req.Args.Text("Ticket") == "" {
		return false, &mgmt.Error{Code: mgmt.CodeProgressOther, Workflow: "cancel", Err: fmt.Errorf("job %v: want its number (pgmoneta-cli jobs)", other)}
	}
	if ticket := req.Args.Text("Ticket"); ticket != "" {
		id, given = h.book.find(v.name, ticket), false
	} else if !given {
		id = h.holder(v)
	}
	running, known := h.book.unqueue(v.name, id)
	if !known && !given {
		return false, nil // it has ended, or there was none
	}
	if !known {
		whose := fmt.Sprintf("of server %q", v.name)
		if v == h.files {
			whose = "about a file"
		}
		return false, &mgmt.Error{Code: mgmt.CodeProgressOther, Workflow: "cancel", Err: fmt.Errorf("job %d %s neither waits nor runs (pgmoneta-cli jobs)", id, whose)}
	}
	if running {
		h.cancelJob(v, id)
	}
	return true, nil
}
