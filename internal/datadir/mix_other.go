//go:build !amd64

package datadir

func mix(sums *[lanes]uint32, rows []byte) { mixPortable(sums, rows) }
