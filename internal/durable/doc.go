// Package durable is the one place through which this program makes anything
// survive a power cut, and the locks that keep two processes from doing it at once.
//
// # Terms
//
// Content is durable once Sync or Datasync of its [File] has returned nil. A
// name (created, renamed or removed) is durable once SyncDir of its directory
// has returned nil. An [FS] is the set of those operations; [OS] is the real
// one, [Fault] forgets on demand whatever was not made durable.
//
// # Guarantees
//
// No operation but Replace replaces an existing file: Create and Rename refuse a
// name that exists. [WriteFile] leaves either the complete file under its final
// name, or nothing under it; [ReplaceFile] either the new file or the old one. A
// [Lock] dies with the process that holds it.
//
// # Not guaranteed
//
// After an error from Sync the file's content is unknown, also after a later
// Sync that succeeds: the kernel reports a lost page once. Callers drop the file
// and produce it again. Reading needs none of this and uses package os.
package durable
