package datadir

import "golang.org/x/sys/cpu"

//go:noescape
func mixAVX2(sums *[lanes]uint32, rows *byte, n int)

// mix is [mixPortable], eight sums at a time where the processor can.
func mix(sums *[lanes]uint32, rows []byte) {
	n := len(rows) / rowBytes
	if !cpu.X86.HasAVX2 || n == 0 {
		mixPortable(sums, rows)
		return
	}
	mixAVX2(sums, &rows[0], n)
}
