// Package mgmt speaks the management protocol between pgmoneta-cli and the daemon.
//
// # Terms
//
// A connection carries one request frame and one response frame, then it is closed. A frame is
// six bytes of header (compression code, encryption code, length of the body, big-endian) and a body. The body
// is a [Document]: one JSON object in a dialect that programs of pgmoneta 0.22 read and write.
//
// # Guarantees
//
// Whatever arrives, the server sends exactly one response, except to a peer that closed without sending a byte.
// A request that cannot be understood is answered with [CodeBadPayload], an unknown command with [CodeUnknownCommand].
// A slow, silent or malicious client costs one goroutine for a bounded time and delays nobody else; of many such clients
// those that came first are closed. A request that runs a job for hours delays none that is answered at once.
// A panic in a handler is answered and logged; it ends neither the process nor other requests.
// Everything decoded is bounded in size, nesting and number of values.
// Nothing written needs more than the dialect of section "JSON" below to be read.
//
// A client that goes away does not cancel its request: a backup that was started runs to its end, only
// its response is lost. The context handed to [Handler] ends with the server, not with the connection.
//
// # JSON
//
// Written: compact, members sorted by the bytes of their names, the empty string as null, every
// empty container as {}, floating numbers with six decimals, and of all escapes only \" \\ \n \t \r. Other control
// characters become a blank. Bytes that are not UTF-8 are passed through, because file names may hold them.
//
// Read: that, and any correct JSON, and the escape \' that older clients send. Of members with the same name the
// last one counts. Bytes after the object are ignored.
//
// The behaviour matches management.c, network.c and json.c of pgmoneta 0.22.
package mgmt
