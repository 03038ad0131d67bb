// Package metrics answers scrapes of Prometheus on the metrics port.
//
// # Two sets of names
//
// The page carries the families of pgmoneta 0.22 that this program has data for, with their names, labels and units, so
// that dashboards go on working. Beside them stands a second set in today's conventions: base units, counters that
// end in _total, the label "server" instead of "name", no value hidden in a label. No name is in both.
//
// Deliberate differences in the first set: comment lines are valid (0.22 left out a blank, and no help text ever reached
// Prometheus), label values are escaped, and server_timeline is a gauge. A server without backups still has
// one sample with label="0" in each family per backup, which the dashboards filter out.
//
// # Guarantees
//
// A scrape takes one [Snapshot] and builds every sample from it: numbers on one page belong together. Nothing is read
// from disk or network here. A name or label the snapshot got wrong costs its own sample, not the page.
// Scrapes are bounded in number and time.
//
// # HTTP
//
// GET and HEAD of / and /index.html give an overview of the families, of /metrics the samples. Other methods
// are answered with 400 and other paths with 403, as 0.22 does.
package metrics
