package walcheck

import "github.com/pgmoneta/pgmoneta-go/internal/job"

// Result returns the report as a job answers it, with as many findings and ranges
// as fit into a message.
func (r *Report) Result() *job.WALReport {
	result := &job.WALReport{
		Deep: r.Deep, SegmentSize: r.SegmentSize,
		Segments: r.Segments, Received: r.Received, Partial: r.Partial, Histories: r.Histories, Stored: r.Stored, Read: r.Read,
		Total: len(r.Findings), Holes: r.Holes, New: r.New, Filled: r.Filled,
	}
	for _, w := range r.Ranges[:min(len(r.Ranges), job.MaxFindings)] {
		result.Ranges = append(result.Ranges, job.WALRange(w))
	}
	for _, f := range r.Findings[:min(len(r.Findings), job.MaxFindings)] {
		result.Findings = append(result.Findings, job.WALFinding{
			Kind: string(f.Kind), Timeline: f.Timeline, From: f.From, To: f.To,
			Segment: f.Segment, Message: f.Message, Text: f.String(), Recorded: f.Recorded,
		})
	}
	return result
}
