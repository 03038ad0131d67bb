package mgmt

import (
	"errors"
	"fmt"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/repo"
)

// AnswerRehearsal is the answer to [Rehearse]. A rehearsal that proves nothing is an
// [*Error] with [CodeRehearseUnproven], whose Response has the same members.
func AnswerRehearsal(server string, label repo.Label, h *repo.Rehearsal) (Response, error) {
	resp := RehearsalDocument(h)
	resp["Backup"] = string(label)
	if h.Proven() {
		return Response(resp), nil
	}
	return nil, &Error{Code: CodeRehearseUnproven, Workflow: "rehearse", Response: resp,
		Err: fmt.Errorf("backup %s of server %q is not proven: %w", label, server, errors.New(h.Failure))}
}

// RehearsalDocument describes a rehearsal. Times are seconds, sizes bytes.
func RehearsalDocument(h *repo.Rehearsal) Document {
	checks, failed := []Document{}, 0
	for _, c := range h.Checks {
		if c.Problem != "" {
			failed++
		}
		checks = append(checks, Document{"Database": c.Database, "Check": c.Name, "Passed": c.Problem == "", "Problem": c.Problem, "Note": c.Note, "Elapsed": c.Elapsed.Seconds()})
	}
	doc := Document{
		"At": h.At.UTC().Format(time.RFC3339), "Target": h.Target, "Proven": h.Proven(), "Started": h.Started, "Failure": h.Failure,
		"ServerVersion": h.Server, "RestoreSize": h.RestoreBytes, "RestoreTime": h.Restore.Seconds(), "RTO": h.RTO.Seconds(),
		"ReplayFrom": "", "ReplayTo": "", "ReplayTime": h.Replay.Seconds(), "ReplaySize": int64(0), "LastCommit": "",
		"NumberOfChecks": len(h.Checks), "FailedChecks": failed, "Checks": checks,
	}
	if h.ReplayTo > 0 {
		doc["ReplayFrom"], doc["ReplayTo"], doc["ReplaySize"] = h.ReplayFrom.String(), h.ReplayTo.String(), int64(h.ReplayTo-h.ReplayFrom)
	}
	if !h.LastCommit.IsZero() {
		doc["LastCommit"] = h.LastCommit.UTC().Format(time.RFC3339Nano)
	}
	return doc
}

// VerificationDocument describes what a verification came to.
func VerificationDocument(v *repo.Verification) Document {
	return Document{"At": v.At.UTC().Format(time.RFC3339), "Good": v.Good(), "Files": v.Files, "BadFiles": v.BadFiles, "Problems": v.Problems, "Problem": v.Problem}
}
