// Package container is the file format of everything this program stores:
// packs of file data, manifests and WAL segments.
//
// # Layout
//
//	header    64 bytes
//	frame 0   one complete codec frame of at most 1 MiB of plain bytes
//	frame 1
//	...
//	index     one entry per frame: plain length, stored length, SHA-256 of the plain bytes
//	trailer   number of frames, position and checksum of the index
//
// Header and index are wrapped as skippable frames of the zstd and LZ4 formats,
// so for those codecs "zstd -d" and "lz4 -d" of an object give the plain bytes.
// All integers are little endian. [Header], [Writer] and the constants in
// layout.go state every offset; doc/REPOSITORY.md shows them as tables.
//
// Frames are independent: they are encoded in parallel, read at random, and
// each is checked by its own hash.
//
// # Guarantees
//
// A [Reader] returns plain bytes only after their length and SHA-256 agreed with
// the index, and refuses a container whose header, index or trailer is
// damaged or whose end is missing. Memory is bounded by the frame size and
// the index, whatever the file claims. Errors are [*DamagedError] and name the object.
//
// # Sealing
//
// With a [Cipher] each frame, after its codec, and the index are AES-GCM messages
// under a key that belongs to this one object: derived from a repository [Key],
// a random salt, the repository's id and the object's name. Bytes that were
// changed, frames that were exchanged, an object that was cut off or put under
// another name or into another repository are found and reported as [ErrForged] in a
// [*DamagedError]; a key that cannot be had is a [*KeyError]. Header and trailer
// stay legible: they tell kind, codec, lengths and the number of the key.
//
// # Not guaranteed
//
// Hashes find damage, not malice: who can write the file can write the hash.
// Authenticity needs a cipher. A sealed object that was stored under a name once
// is still good when it is put back there after another took its place.
package container
