package mgmt

import (
	"fmt"

	"github.com/pgmoneta/pgmoneta-go/internal/job"
)

// AnswerWALCheck is the answer to [WALCheck]. When something was found it is an
// [*Error] with [CodeWALCheckFound], whose Response has the same members.
func AnswerWALCheck(server string, r *job.WALReport) (Response, error) {
	resp := walReport(r)
	if r.Total == 0 {
		return resp, nil
	}
	noun := "findings, the first is"
	if r.Total == 1 {
		noun = "finding:"
	}
	return nil, &Error{Code: CodeWALCheckFound, Workflow: "wal check", Response: resp,
		Err: fmt.Errorf("the archived WAL of server %q is not whole: %d %s %s", server, r.Total, noun, r.Findings[0].Text)}
}

func walReport(r *job.WALReport) Response {
	mode := "quick"
	if r.Deep {
		mode = "deep"
	}
	ranges, findings := []Document{}, []Document{}
	for _, w := range r.Ranges {
		ranges = append(ranges, Document{"Timeline": uint32(w.Timeline), "From": w.From.String(), "To": w.To.String(), "Segments": w.Segments})
	}
	for _, f := range r.Findings {
		findings = append(findings, walFinding(f))
	}
	return Response{
		"Mode": mode, "SegmentSize": uint64(r.SegmentSize),
		"NumberOfSegments": r.Segments, "ReceivedSegments": r.Received, "PartialSegments": r.Partial, "NumberOfHistories": r.Histories,
		"StoredSize": r.Stored, "ReadSize": r.Read,
		"NumberOfHoles": r.Holes, "RecordedHoles": r.New, "FilledHoles": r.Filled,
		"NumberOfFindings": r.Total, "Ranges": ranges, "Findings": findings,
	}
}

func walFinding(f job.WALFinding) Document {
	d := Document{"Kind": f.Kind, "Timeline": uint32(f.Timeline), "From": "", "To": "", "Segment": f.Segment, "Message": f.Message, "Recorded": f.Recorded}
	if f.To != 0 {
		d["From"], d["To"] = f.From.String(), f.To.String()
	}
	return d
}
