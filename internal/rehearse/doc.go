// Package rehearse proves a backup the only way that proves it: it restores it
// into a scratch directory, starts PostgreSQL there, and asks it.
//
// # Terms
//
// The scratch directory holds the restored cluster and a link to the private directory,
// which holds the socket, the configuration and the log of the server that runs on the
// cluster. Both are removed at the end, whatever the end is, or by [Clear] if the process
// was killed.
//
// # Guarantees
//
// The server listens on a Unix socket in a directory that only our own account can
// enter, and on nothing else. It archives nothing, connects to nobody, and ends its
// recovery with a promotion, whatever the restored settings say. It does not outlive
// the process that rehearses; one that did, because that process was killed in an
// unlucky moment, is ended by the next rehearsal.
//
// A rehearsal counts as a proof when PostgreSQL accepted connections and every check
// passed. Without the programs of the right version the backup is restored and its
// frames are checked, and the result says that this proves less.
//
// # Not guaranteed
//
// The cluster's own postgresql.conf is not used, because it describes another
// machine. What recovery needs of it comes from pg_control; libraries that have to be
// preloaded are for the operator's file of additional settings.
package rehearse
