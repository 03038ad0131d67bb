// Package sha256s computes SHA-256 of many messages of the same length at once.
//
// A processor with AVX-512 (F and BW) hashes sixteen messages side by side about twice as
// fast as one after the other by its SHA instructions; elsewhere, and for the few that are
// left over, crypto/sha256 does it. The sums are the same. FIPS 180-4.
package sha256s
