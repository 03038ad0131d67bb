package pg

import (
	"strings"
	"testing"
)

func TestLSNRoundTrip(t *testing.T) {
	for _, s := range []string{"0/0", "1/A2000000", "FFFFFFFF/FFFFFFFF", "0/28"} {
		l, err := ParseLSN(s)
		if err != nil || l.String() != s {
			t.Errorf("ParseLSN(%q) = %s, %v", s, l, err)
		}
	}
	for _, s := range []string{"", "/", "1", "1/", "/1", "g/0", "1/123456789", "-1/0", "1/2/3", "+1/0"} {
		if l, err := ParseLSN(s); err == nil {
			t.Errorf("ParseLSN(%q) = %s, want an error", s, l)
		}
	}
}

func TestSegmentNameAtBoundaries(t *testing.T) {
	const mib = 1 << 20
	tests := []struct {
		name string
		tli  Timeline
		lsn  LSN
		size SegmentSize
		want string
	}{
		{"last byte of a segment", 1, 0x1FFFFFF, 16 * mib, "000000010000000000000001"},
		{"first byte of the next", 1, 0x2000000, 16 * mib, "000000010000000000000002"},
		{"first segment after 4 GiB", 1, 0x1_0000_0000, 16 * mib, "000000010000000100000000"},
		{"last segment before 4 GiB", 1, 0xFFFF_FFFF, 16 * mib, "0000000100000000000000FF"},
		{"1 GiB segments wrap after four", 7, 0x1_0000_0000, 1024 * mib, "000000070000000100000000"},
		{"1 MiB segments", 0x10, 0x1_FFF0_0000, mib, "000000100000000100000FFF"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := SegmentName(tt.tli, tt.lsn, tt.size)
			if got != tt.want {
				t.Errorf("SegmentName(%d, %s, %d) = %s, want %s", tt.tli, tt.lsn, tt.size, got, tt.want)
			}
			tli, start, err := ParseSegmentName(got, tt.size)
			if err != nil || tli != tt.tli || start != tt.size.Start(tt.lsn) {
				t.Errorf("ParseSegmentName(%s) = %d, %s, %v; want %d, %s", got, tli, start, err, tt.tli, tt.size.Start(tt.lsn))
			}
		})
	}
}

func TestParseSegmentNameRefusesNumbersTooLarge(t *testing.T) {
	for _, name := range []string{"000000010000000000000100", "00000000000000000000000A", "00000001000000000000000a", "short"} {
		if _, _, err := ParseSegmentName(name, 16<<20); err == nil {
			t.Errorf("ParseSegmentName(%s, 16 MiB) succeeded", name)
		}
	}
}

func TestParseSegmentSize(t *testing.T) {
	for text, want := range map[string]SegmentSize{"16MB": 16 << 20, "1GB": 1 << 30, "1MB": 1 << 20, "16777216B": 16 << 20} {
		if got, err := ParseSegmentSize(text); err != nil || got != want {
			t.Errorf("ParseSegmentSize(%q) = %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "MB", "3MB", "2GB", "16 MB", "16QB"} {
		if got, err := ParseSegmentSize(text); err == nil {
			t.Errorf("ParseSegmentSize(%q) = %d, want an error", text, got)
		}
	}
}

const threeTimelines = "1\t0/3000148\tno recovery target specified\n\n2\t0/5000000\tbefore 2026-11-21 12:00:00+00\n"

func TestHistoryFollowsBranches(t *testing.T) {
	h, err := ParseHistory(3, []byte(threeTimelines+"\x00"))
	if err != nil {
		t.Fatal(err)
	}
	if next, begin, ok := h.Next(1); !ok || next != 2 || begin != 0x3000148 {
		t.Errorf("Next(1) = %d, %s, %v", next, begin, ok)
	}
	if next, begin, ok := h.Next(2); !ok || next != 3 || begin != 0x5000000 {
		t.Errorf("Next(2) = %d, %s, %v", next, begin, ok)
	}
	if _, _, ok := h.Next(3); ok {
		t.Error("Next(3) found a timeline after the last")
	}
	for lsn, want := range map[LSN]Timeline{0x28: 1, 0x3000147: 1, 0x3000148: 2, 0x4FFFFFF: 2, 0x5000000: 3} {
		if got := h.At(lsn); got != want {
			t.Errorf("At(%s) = %d, want %d", lsn, got, want)
		}
	}
	// The switch lies inside segment 3, whose copy on timeline 2 repeats what came before it.
	if got := h.SegmentTimeline(0x3000000, 16<<20); got != 2 {
		t.Errorf("SegmentTimeline(0/3000000) = %d, want 2", got)
	}
	if got := h.SegmentTimeline(0x2000000, 16<<20); got != 1 {
		t.Errorf("SegmentTimeline(0/2000000) = %d, want 1", got)
	}
	// A switch exactly at a boundary leaves the segment before it to the old timeline.
	if got := h.SegmentTimeline(0x4000000, 16<<20); got != 2 {
		t.Errorf("SegmentTimeline(0/4000000) = %d, want 2", got)
	}
}

func TestParseHistoryRefusesDisorder(t *testing.T) {
	for _, text := range []string{"2\t0/1\tx\n1\t0/2\tx\n", "1\t0/2\n2\t0/1\n", "5\t0/1\tx\n", "1\n", "x\t0/1\n", "1\tzz\n", "0\t0/1\n"} {
		if h, err := ParseHistory(3, []byte(text)); err == nil {
			t.Errorf("ParseHistory(3, %q) = %+v, want an error", text, h)
		}
	}
}

func TestParseHistoryNameAcceptsBothCases(t *testing.T) {
	for name, want := range map[string]Timeline{"0000000A.history": 10, "0000000a.history": 10, "00000010.history": 16} {
		if got, ok := ParseHistoryName(name); !ok || got != want {
			t.Errorf("ParseHistoryName(%q) = %d, %v; want %d", name, got, ok, want)
		}
	}
	if HistoryName(10) != "0000000A.history" {
		t.Errorf("HistoryName(10) = %s", HistoryName(10))
	}
}

func TestParseVersion(t *testing.T) {
	for s, want := range map[string]Version{"17.11 (Debian 17.11-1)": 170011, "18beta2": 180000, "19devel": 190000, "14.23": 140023} {
		if got, err := ParseVersion(s); err != nil || got != want {
			t.Errorf("ParseVersion(%q) = %d, %v; want %d", s, got, err, want)
		}
	}
	if _, err := ParseVersion("devel"); err == nil {
		t.Error("ParseVersion(devel) succeeded")
	}
}

func TestParseBackupLabel(t *testing.T) {
	text := "START WAL LOCATION: 0/6000028 (file 000000010000000000000006)\nCHECKPOINT LOCATION: 0/6000060\n" +
		"BACKUP METHOD: streamed\nBACKUP FROM: primary\nSTART TIME: 2026-11-21 12:00:00 UTC\nLABEL: a: b\nSTART TIMELINE: 1\n"
	b, err := ParseBackupLabel([]byte(text))
	want := BackupLabel{Start: 0x6000028, StartFile: "000000010000000000000006", Checkpoint: 0x6000060, Timeline: 1, Label: "a: b"}
	if err != nil || b != want {
		t.Errorf("ParseBackupLabel = %+v, %v; want %+v", b, err, want)
	}
	if _, err := ParseBackupLabel([]byte("LABEL: x\n")); err == nil {
		t.Error("a label without a start location was accepted")
	}
}

func FuzzParseHistory(f *testing.F) {
	f.Add(uint32(3), threeTimelines)
	f.Add(uint32(2), "1\t0/0\t\x00")
	f.Fuzz(func(t *testing.T, tli uint32, text string) {
		h, err := ParseHistory(Timeline(tli), []byte(text))
		if err != nil {
			return
		}
		for _, s := range h.Ancestors {
			if !h.Contains(s.Timeline) || strings.Contains(s.Reason, "\n") {
				t.Errorf("inconsistent history %+v", h)
			}
		}
	})
}

func FuzzParseBackupLabel(f *testing.F) {
	f.Add("START WAL LOCATION: 0/6000028 (file 000000010000000000000006)\nCHECKPOINT LOCATION: 0/6000060\n")
	f.Fuzz(func(_ *testing.T, text string) { _, _ = ParseBackupLabel([]byte(text)) })
}
