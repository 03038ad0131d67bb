// Package version names the release this tree builds.
//
// The management protocol sends the same text as ServerVersion and ClientVersion,
// and older programs compare it, so it follows the pgmoneta release we are a drop-in for.
package version

// Version is the pgmoneta release whose protocol, files and command line we speak.
const Version = "0.22.0"
