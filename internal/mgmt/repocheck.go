package mgmt

import (
	"fmt"

	"github.com/pgmoneta/pgmoneta-go/internal/job"
)

// AnswerRepoCheck is the answer to [RepoCheck]. When something was found it is an
// [*Error] with [CodeRepoCheckFound], whose Response has the same members.
func AnswerRepoCheck(server string, r *job.RepoReport) (Response, error) {
	mode := "fast"
	if r.Full {
		mode = "full"
	}
	findings := []Document{}
	for _, f := range r.Findings {
		backups := []string{}
		for _, l := range f.Backups {
			backups = append(backups, string(l))
		}
		findings = append(findings, Document{"Object": f.Object, "Backups": backups, "Files": f.Files, "Message": f.Message})
	}
	resp := Response{"Mode": mode, "NumberOfBackups": len(r.Usage.Backups), "NumberOfPacks": r.Usage.Packs, "NumberOfFrames": r.Usage.Frames,
		"ReadSize": r.Read, "NumberOfFindings": r.Total, "Findings": findings}
	if r.Total == 0 {
		return resp, nil
	}
	noun := "findings, the first is"
	if r.Total == 1 {
		noun = "finding:"
	}
	return nil, &Error{Code: CodeRepoCheckFound, Workflow: "repo check", Response: resp,
		Err: fmt.Errorf("the repository of server %q is not whole: %d %s %s, which %d backups need: %s", server, r.Total, noun, r.Findings[0].Object, len(r.Findings[0].Backups), r.Findings[0].Message)}
}

// AnswerRepoStats is the answer to [RepoStats]. What is damaged is not counted, but told.
func AnswerRepoStats(r *job.RepoReport) Response {
	u, backups := r.Usage, []Document{}
	for _, b := range u.Backups {
		backups = append(backups, Document{"Backup": string(b.Summary.Label), "Incremental": b.Summary.Base != "", "IncrementalParent": string(b.Summary.Base),
			"LogicalSize": b.Summary.Logical, "AddedSize": b.Summary.Stored, "AloneSize": b.Alone})
	}
	return Response{"NumberOfBackups": len(u.Backups), "NumberOfPacks": u.Packs, "NumberOfFrames": u.Frames, "LogicalSize": u.Logical,
		"StoredSize": u.Stored, "SharedSize": u.Shared, "DeadSize": u.Dead, "NumberOfFindings": r.Total, "Backups": backups}
}
