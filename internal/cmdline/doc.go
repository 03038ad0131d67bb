// Package cmdline describes the command line of a program once, for all who tell people about it.
//
// A [Program] is a table of commands and options. Made from it are
//
//   - the text of --help ([Program.Help])
//   - completion in bash, zsh and fish ([Program.Complete]): a short script for each shell ([Script]) asks the
//     program itself what may come next, so that no script grows old
//   - the manual page ([Program.Manual]), in the macros of man(7)
//
// How arguments are read is not its business: programs that take over the habits of C pgmoneta differ in that. Tests
// of theirs hold the tables to what they accept.
//
// Everything here is a pure function of the table.
package cmdline
