// Package metrics answers scrapes of Prometheus on the metrics port.
//
// # Two sets of names
//
// The page carries the 100 families of pgmoneta 0.22 with their names, labels and units, so that dashboards go on
// working; those that are about what this program does not do have the value that says so. Beside them stands a second set in today's conventions: base units, counters that
// end in _total, the label "server" instead of "name", no value hidden in a label. No name is in both.
//
// Deliberate differences in the first set: comment lines are valid (0.22 left out a blank, and no help text ever reached
// Prometheus), label values are escaped, and server_timeline is a gauge. A server without backups still has
// one sample with label="0" in each family per backup, which the dashboards filter out.
//
// # Guarantees
//
// A scrape takes one [Snapshot] and builds every sample from it: numbers on one page belong together. Nothing is read
// from disk or network here. A label may hold any bytes, and a server that is there twice is shown once.
// Scrapes are bounded in number, and a page is written while it is made: it takes no more memory for a large fleet.
//
// # HTTP
//
// GET and HEAD of / and /index.html give an overview of the families, of /metrics the samples, in the format that is
// asked for, from a cache if there is one; of /healthz and /readyz how the daemon is. Other methods
// are answered with 400 and other paths with 403, as 0.22 does.
package metrics
