// Package schema holds what pgmoneta-cli prints with --format json, as a JSON Schema (draft 2020-12), for programs that
// read it. Its text is doc/schema/pgmoneta-cli.schema.json; "pgmoneta-cli schema" prints it.
//
// Members may be added in later versions. None is removed, and none changes its type.
package schema

import _ "embed"

//go:embed pgmoneta-cli.schema.json
var answers string

// Answers returns the schema.
func Answers() string { return answers }
