package worker

import (
	"context"

	"github.com/pgmoneta/pgmoneta-go/internal/job"
	"github.com/pgmoneta/pgmoneta-go/internal/walcheck"
)

// loggedFindings bounds the lines that one check writes to the log.
const loggedFindings = 20

// checkWAL checks the archived WAL and keeps the record of its holes up to date.
// It changes no backup and waits for nobody, so that it needs no lock.
func (w *worker) checkWAL(ctx context.Context) (job.Result, error) {
	report, err := walcheck.Check(ctx, w.repo, walcheck.Options{
		Deep: !w.Job.Quick, Record: true, Workers: w.Workers, Progress: w.progress(),
	})
	if err != nil {
		return job.Result{}, err
	}
	for i, f := range report.Findings {
		if i == loggedFindings {
			w.log.Error("more is wrong with archived WAL", "findings", len(report.Findings)-i)
			break
		}
		w.log.Error("archived WAL is not whole", "kind", string(f.Kind), "timeline", uint32(f.Timeline), "lsn", f.From.String(), "to", f.To.String(),
			"segment", f.Segment, "err", f.Message)
	}
	w.log.Info("checked archived WAL", "deep", report.Deep, "segments", report.Segments, "bytes", report.Read,
		"findings", len(report.Findings), "holes", report.Holes, "new", report.New, "filled", report.Filled)
	return job.Result{WAL: report.Result()}, nil
}
