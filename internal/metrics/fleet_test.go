package metrics

import (
	"bytes"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
)

// story is a small fleet with a past, at noon of 21 November 2026: "orders" is well;
// "ledger" is a standby that followed a failover, has holes, and its last jobs failed;
// "quiet" has its slot lost and no backup for a week; "new" was never reached.
func story() Snapshot {
	noon := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	ago := func(d time.Duration) time.Time { return noon.Add(-d) }
	// The set of 0.22 shows when a request was answered by the clock on the wall.
	wall := func(d time.Duration) time.Time {
		t := ago(d)
		return time.Date(t.Year(), t.Month(), t.Day(), t.Hour(), t.Minute(), t.Second(), 0, time.Local)
	}
	taken := func(d time.Duration, b Backup) Backup {
		b.Label = ago(d).Format("20060102150405")
		b.Major, b.Minor, b.StartTimeline, b.EndTimeline = 17, 11, max(b.StartTimeline, 1), max(b.EndTimeline, 1)
		return b
	}
	const day, gib = 24 * time.Hour, 1 << 30
	flushes := Distribution{[]Bucket{{250 * time.Microsecond, 9000}, {time.Millisecond, 700}, {10 * time.Millisecond, 12}, {0, 1}}, 5500 * time.Millisecond}
	return Snapshot{
		Version: "0.22.0", Now: noon, Reload: Reload{At: ago(3 * day)}, // and a later one was wrong
		Certificate: []Certificate{{"management", noon.Add(200 * day)}, {"metrics", noon.Add(9 * day)}},
		Log:         LogCounts{Info: 5120, Warn: 31, Error: 7, Fatal: 0}, Retention: Retention{Days: 7, Weeks: 4}, Compression: 18,
		Storage: Storage{Used: 300 * gib, Free: 90 * gib, Total: 400 * gib, Forecast: Forecast{true, 250000, 386547}},
		Requests: []StorageRequests{
			{"local", "open", 0, Distribution{[]Bucket{{time.Millisecond, 4000}, {0, 3}}, 2 * time.Second}},
			{"local", "commit", 2, Distribution{[]Bucket{{time.Millisecond, 10}, {0, 90}}, 9 * time.Second}},
		},
		Servers: []Server{
			{
				Name: "orders", Online: true, Primary: true, Valid: true, Checksums: true, Summarize: true, Timeline: 1, Workers: 4, Retention: Retention{Days: 7, Weeks: 4},
				WAL: WAL{
					Streaming: true, Slot: "orders", File: "00000001000000A200000007.partial", Written: 0xA2_07123450, Flushed: 0xA2_07123450, Stored: 0xA2_07000000, Server: 0xA2_07123450,
					LastReceived: ago(time.Second), ReceivedBytes: 40 * gib, Segments: 900, Bytes: 5 * gib, Flushes: flushes, SlotState: "reserved", SlotRetained: 20 << 20,
					Shipping: true,
				},
				Progress:  Progress{Workflow: "Backup", Phase: "Unknown"},
				Operation: Operations{Succeeded: 412, Failed: 1, LastSucceeded: wall(time.Minute), LastFailed: wall(5 * day)},
				Shipping:  Shipping{5 * gib, Directory{5 * gib, 50 * gib, 100 * gib}},
				Backups: []Backup{
					taken(11*time.Hour+3*day, Backup{Valid: true, Keep: true, Elapsed: 40 * time.Minute, Base: 38 * time.Minute, StoredBytes: 60 * gib, RestoreBytes: 200 * gib, StartLSN: 0xA0_01000028, CheckpointLSN: 0xA0_01000080, EndLSN: 0xA0_02000100}),
					taken(11*time.Hour, Backup{Valid: true, Incremental: true, Elapsed: 90 * time.Second, Base: time.Minute, StoredBytes: 2 * gib, RestoreBytes: 201 * gib, StartLSN: 0xA2_01000028, CheckpointLSN: 0xA2_01000080, EndLSN: 0xA2_01100100}),
				},
				BackupBytes: 62 * gib, TotalBytes: 72 * gib, UsedBytes: 68 * gib, Usage: &Usage{401 * gib, 62 * gib, 55 * gib, gib / 2},
				LastFull: ago(3*day + 10*time.Hour), LastIncremental: ago(11*time.Hour - 90*time.Second), BackupDue: noon.Add(13 * time.Hour),
				Rehearsal: &Rehearsal{At: ago(2 * day), Proven: true, Started: true, RTO: 21 * time.Minute, Restore: 18 * time.Minute, RestoreBytes: 200 * gib, Replay: 3 * time.Minute, ReplayBytes: 4 * gib},
				Verified:  &Verified{At: ago(9 * time.Hour), Files: 31000, Good: true},
				Recovery:  Recovery{Start: ago(3*day + 10*time.Hour), End: noon, Known: true},
				Jobs:      []Job{{"backup", false, 9, ago(11 * time.Hour), 90 * time.Second}, {"verify", false, 9, ago(9 * time.Hour), 12 * time.Minute}},
			},
			{
				Name: "ledger", Online: true, Valid: true, Timeline: 3, Workers: 2, Retention: Retention{Days: 30, Weeks: 8, Months: 12, Years: 3},
				Timelines: []Timeline{{2, 1, 0x5_00000000}, {3, 2, 0x7_10000000}},
				WAL: WAL{
					Streaming: true, Slot: "ledger", File: "000000030000000800000001.partial", Written: 0x8_01000060, Flushed: 0x8_01000000, Stored: 0x8_00000000, Server: 0x8_01400000,
					LagBytes: 0x400000, LagSeconds: 3.5, LastReceived: ago(250 * time.Millisecond), ReceivedBytes: 3 * gib, Restarts: 2, Reconnects: 5, Errors: 4,
					Segments: 120, Bytes: gib, Gaps: Gaps{2, 48 << 20, ago(5 * time.Hour)}, Flushes: flushes, StoreQueue: 6, SlotState: "extended", SlotRetained: 2 * gib,
				},
				Active: Active{Backup: true}, Running: []string{"backup"}, Progress: Progress{Workflow: "Backup", Phase: "Base backup", Done: 30 * gib, Total: 100 * gib, Elapsed: 7 * time.Minute},
				Operation: Operations{Succeeded: 20, Failed: 6, LastSucceeded: wall(time.Hour), LastFailed: wall(2 * time.Hour)},
				Workspace: Directory{3 * gib, 40 * gib, 50 * gib},
				Backups: []Backup{
					taken(6*day, Backup{Valid: true, Elapsed: time.Hour, Base: 50 * time.Minute, StoredBytes: 30 * gib, RestoreBytes: 100 * gib, StartLSN: 0x4_00000028, CheckpointLSN: 0x4_00000080, EndLSN: 0x4_02000100}),
					taken(2*day, Backup{}), // its manifest cannot be read
					taken(day, Backup{Valid: true, Incremental: true, Elapsed: time.Minute, Base: time.Minute, StoredBytes: gib, RestoreBytes: 100 * gib, StartLSN: 0x7_20000028, CheckpointLSN: 0x7_20000080, EndLSN: 0x7_20100100, StartTimeline: 3, EndTimeline: 3}),
				},
				BackupBytes: 31 * gib, TotalBytes: 32 * gib,
				LastFull: ago(6*day - time.Hour), LastIncremental: ago(day - time.Minute), BackupDue: ago(time.Hour),
				Rehearsal: &Rehearsal{At: ago(9 * day), Restore: time.Minute, RestoreBytes: gib},
				Verified:  &Verified{At: ago(day), Files: 9000, BadFiles: 3},
				Recovery:  Recovery{Start: ago(day), End: ago(5 * time.Hour), Lost: 0x8_01400000 - 0x7_FF000000, Known: true},
				Failures:  map[string]uint64{"wal": 2, "failed": 1, "worker": 1},
				Jobs: []Job{
					{"backup", false, 3, ago(day), time.Minute}, {"backup", true, 4, ago(2 * time.Hour), 3 * time.Second},
					{"rehearse", true, 1, ago(9 * day), time.Minute}, {"verify", false, 2, ago(day), 5 * time.Minute},
				},
			},
			{
				Name: "quiet", Primary: true, Valid: true, Checksums: true, Timeline: 1, Workers: 1, CatalogProblem: true,
				WAL: WAL{Slot: "quiet", Written: 0x3000060, Flushed: 0x3000060, Stored: 0x3000000, Server: 0x9000000, LastReceived: ago(8 * day), Segments: 3, Bytes: 3 << 20,
					Gaps: Gaps{1, 80 << 20, ago(7 * day)}, SlotState: "lost"},
				Backups:     []Backup{taken(8*day, Backup{Valid: true, Elapsed: 2 * time.Second, Base: time.Second, StoredBytes: 4 << 20, RestoreBytes: 30 << 20, StartLSN: 0x2000028, CheckpointLSN: 0x2000080, EndLSN: 0x2000100})},
				BackupBytes: 4 << 20, TotalBytes: 7 << 20, LastFull: ago(8 * day), Recovery: Recovery{Start: ago(8 * day), End: ago(7 * day), Lost: 0x9000000 - 0x3000060, Known: true},
			},
			{Name: "new \"one\"\\"},
		},
	}
}

// fleetPage renders a set of families for the story.
func fleetPage(t *testing.T, list []family, open bool) string {
	t.Helper()
	s := story()
	var b bytes.Buffer
	if err := (&page{w: &b, open: open}).write(list, &s); err != nil {
		t.Fatal(err)
	}
	// What is running differs from build to build.
	return regexp.MustCompile(`(?m)^(pgmoneta_build_info)\{.*\}`).ReplaceAllString(b.String(), "$1{}")
}

// TestPageOfAFleet holds the page of a fleet with a past, for both sets and in both
// formats, as Prometheus gets it.
func TestPageOfAFleet(t *testing.T) {
	t.Parallel()
	golden(t, "fleet-022.txt", fleetPage(t, compat(), false))
	golden(t, "fleet.txt", fleetPage(t, designed(), false))
	golden(t, "fleet-openmetrics.txt", fleetPage(t, designed(), true))
	problems, err := promlint.New(strings.NewReader(fleetPage(t, designed(), false))).Lint()
	if err != nil || len(problems) > 0 {
		t.Errorf("promlint: %v, %v", problems, err)
	}
	if _, err := promlint.New(strings.NewReader(fleetPage(t, compat(), false))).Lint(); err != nil {
		t.Errorf("the set of 0.22 cannot be read: %v", err)
	}
}
