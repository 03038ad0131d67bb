package metrics

import "testing"

// TestDocuments compares the documents with the table they are made from.
func TestDocuments(t *testing.T) {
	t.Parallel()
	golden(t, "../../../doc/METRICS.md", listMarkdown())
	golden(t, "../../../doc/metrics.json", listJSON())
}
