// Package console is what the command-line programs share: reading arguments and printing responses.
//
// Arguments follow the rules of pgmoneta 0.22: options anywhere, their value as the next word, no bundling; --name=value
// is an addition. Responses are printed in three formats for programs, byte for byte as pgmoneta-cli 0.22 prints
// them, so that scripts go on reading them:
//
//   - raw: the document as JSON, indented, with the numbers the daemon sent
//   - json: the same after numbers were turned into words and sizes into text
//   - text: what json holds, one member per line, without quotes
//
// Three lines differ from 0.22 because it printed nonsense there: info and annotate show the name of the WAL file
// where a random size stood, encrypt is a word like all commands, and no apostrophe is ever escaped.
//
// At a terminal people get a table instead ([RenderTable]): no fixed layout, nothing for programs.
//
// Everything here is a pure function of its arguments. Members the program does not know are printed as they are.
package console
