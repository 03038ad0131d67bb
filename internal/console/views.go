package console

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/mgmt"
)

// viewOf returns how the response to a command is shown.
func viewOf(c mgmt.Command) *view {
	switch c {
	case mgmt.Ping:
		return &view{title: func(d mgmt.Document) string { return "pgmoneta " + clean(d.Text("ServerVersion")) + " answers" }, hidden: []string{"ServerVersion"}}
	case mgmt.ListBackup:
		return listView()
	case mgmt.Status, mgmt.StatusDetails:
		return statusView(c == mgmt.StatusDetails)
	case mgmt.Info, mgmt.Backup, mgmt.Retain, mgmt.Expunge, mgmt.Annotate, mgmt.Undelete:
		return backupView()
	case mgmt.Delete:
		return deletionView()
	case mgmt.Restore:
		return restoreView()
	case mgmt.Jobs:
		return jobsView()
	case mgmt.Schedule:
		return scheduleView()
	case mgmt.Retention:
		return retentionView()
	case mgmt.Verify:
		return verifyView()
	case mgmt.WALCheck:
		return walCheckView()
	case mgmt.RepoCheck:
		return repoCheckView()
	case mgmt.RepoStats:
		return repoStatsView()
	case mgmt.Rehearse:
		return rehearsalView()
	case mgmt.Progress:
		return progressView()
	case mgmt.Reload, mgmt.ConfRollback:
		return reloadView()
	case mgmt.ConfCheck:
		return confCheckView()
	default:
		return &view{hidden: common()}
	}
}

// common are the members that every response has and nobody asked for.
func common() []string { return []string{"ServerVersion", "MajorVersion", "MinorVersion"} }

// The ways to show a member.

func text(name, member string) fact {
	return fact{name, func(d mgmt.Document) string { return textOf(d, member) }, []string{member}}
}

func size(name, member string) fact {
	return fact{name, func(d mgmt.Document) string { return sizeOf(d, member) }, []string{member}}
}

func moment(name, member string) fact {
	return fact{name, func(d mgmt.Document) string {
		if t := momentOf(d, member); t != "" {
			return t + " UTC"
		}
		return ""
	}, []string{member}}
}

func seconds(name, member string) fact {
	return fact{name, func(d mgmt.Document) string { return secondsOf(d, member) }, []string{member}}
}

func made(name string, of func(mgmt.Document) string, members ...string) fact {
	return fact{name, of, members}
}

func textOf(d mgmt.Document, member string) string {
	if v, ok := d[member]; ok {
		return show(v)
	}
	return ""
}

func sizeOf(d mgmt.Document, member string) string {
	switch v := d[member].(type) {
	case nil:
		return ""
	case string:
		return clean(v)
	default:
		return humanSize(bytesOf(v))
	}
}

// momentOf returns a moment of RFC 3339 in UTC, to the second.
func momentOf(d mgmt.Document, member string) string {
	t, err := time.Parse(time.RFC3339Nano, d.Text(member))
	if err != nil {
		return clean(d.Text(member))
	}
	return t.UTC().Format(time.DateTime)
}

func secondsOf(d mgmt.Document, member string) string {
	if d[member] == nil {
		return ""
	}
	return humanDuration(time.Duration(bytesOf(d[member]) * float64(time.Second)))
}

// taken returns the moment that a label names.
func taken(d mgmt.Document) string {
	t, err := time.Parse("20060102150405", d.Text("Backup"))
	if err != nil {
		return ""
	}
	return t.Format("2006-01-02 15:04")
}

func lsnOf(d mgmt.Document, point string) string {
	high, ok := d.Integer(point + "HiLSN")
	low, _ := d.Integer(point + "LoLSN")
	if !ok {
		return ""
	}
	return fmt.Sprintf("%X/%X", high, low)
}

// The columns of tables.

func cellOf(head, member string) cell {
	return cell{column{head: head}, func(d mgmt.Document) string { return textOf(d, member) }}
}

func wrapCell(head, member string) cell {
	return cell{column{head: head, wrap: true}, func(d mgmt.Document) string { return textOf(d, member) }}
}

func numberCell(head, member string) cell {
	return cell{column{head: head, right: true}, func(d mgmt.Document) string { return textOf(d, member) }}
}

func sizeCell(head, member string) cell {
	return cell{column{head: head, right: true}, func(d mgmt.Document) string { return sizeOf(d, member) }}
}

func momentCell(head, member string) cell {
	return cell{column{head: head}, func(d mgmt.Document) string { return momentOf(d, member) }}
}

func madeCell(head string, of func(mgmt.Document) string) cell { return cell{column{head: head}, of} }

func (c cell) asMinor() cell { c.minor = true; return c }

// Backups.

func postgresVersion(d mgmt.Document) string {
	major, ok := d.Integer("MajorVersion")
	minor, _ := d.Integer("MinorVersion")
	if !ok {
		return ""
	}
	return fmt.Sprintf("PostgreSQL %d.%d", major, minor)
}

func listView() *view {
	return &view{
		title: func(d mgmt.Document) string {
			head := "Backups of " + clean(d.Text("Server"))
			if v := postgresVersion(d); v != "" {
				head += ", " + v
			}
			return head
		},
		hidden: append(common(), "NumberOfBackups", "Server"),
		lists:  []list{backupList("No backups."), trashList()},
	}
}

// trashList shows deleted backups that can be brought back.
func trashList() list {
	return list{member: "Trash", title: "In the trash", cells: []cell{
		cellOf("Backup", "Backup"), madeCell("Taken (UTC)", taken), cellOf("Action", "Action"), sizeCell("Stored", "BackupSize"),
		momentCell("Deleted (UTC)", "Deleted").asMinor(), momentCell("Until (UTC)", "Until"),
	}}
}

// deletionView shows one deleted backup, or several.
func deletionView() *view {
	return &view{
		facts: []fact{
			text("Backup", "Backup"),
			made("Backups", func(d mgmt.Document) string { return textsOf(d, "Backups") }, "Backups", "NumberOfBackups"),
			text("Server", "Server"),
			moment("In the trash until", "Until"),
			made("Taken over from C pgmoneta", func(d mgmt.Document) string { return textsOf(d, "TakenOver") }, "TakenOver"),
		},
		hidden: common(),
	}
}

func backupList(empty string) list {
	return list{
		member: "Backups", empty: empty,
		cells: []cell{
			cellOf("Backup", "Backup"), madeCell("Taken (UTC)", taken), madeCell("Type", kindOf),
			sizeCell("Stored", "BackupSize"), sizeCell("Restored", "RestoreSize"), sizeCell("WAL since", "WAL"), madeCell("Valid", validOf),
		},
		notes: backupNotes,
	}
}

func kindOf(d mgmt.Document) string {
	if d["Incremental"] == nil {
		return ""
	}
	if d.Bool("Incremental") {
		return "incr"
	}
	return "full"
}

func validOf(d mgmt.Document) string {
	switch n, ok := d.Integer("Valid"); {
	case !ok:
		return ""
	case n == 1:
		return "yes"
	case n == 0:
		return "NO"
	default:
		return "unknown"
	}
}

func backupNotes(d mgmt.Document) []string {
	var notes []string
	if parent := d.Text("IncrementalParent"); parent != "" {
		notes = append(notes, "based on "+clean(parent))
	}
	if d.Bool("Keep") {
		notes = append(notes, "kept, whatever the retention says")
	}
	if n, _ := d.Integer("CorruptPages"); n > 0 {
		notes = append(notes, fmt.Sprintf("%d pages with wrong checksums", n))
	}
	if last := d.Object("Verification"); len(last) > 0 && !last.Bool("Good") {
		notes = append(notes, "DAMAGED, as a verification found at "+momentOf(last, "At")+" UTC")
	} else if len(last) > 0 {
		notes = append(notes, "verified "+momentOf(last, "At")+" UTC")
	}
	return append(notes, comments(d)...)
}

func comments(d mgmt.Document) []string {
	var out []string
	for pair := range strings.SplitSeq(d.Text("Comments"), ",") {
		if key, value, ok := strings.Cut(pair, "|"); ok {
			out = append(out, clean(key)+": "+clean(value))
		}
	}
	return out
}

func backupView() *view {
	return &view{
		facts: []fact{
			text("Backup", "Backup"),
			text("Server", "Server"),
			made("Taken", func(d mgmt.Document) string { return withUTC(taken(d)) }),
			made("Took", func(d mgmt.Document) string { return secondsOf(d, "Elapsed") }, "Elapsed"),
			made("Type", func(d mgmt.Document) string { return typeOf(d) }, "Incremental", "IncrementalParent"),
			made("Valid", validOf, "Valid"),
			made("PostgreSQL", func(d mgmt.Document) string { return strings.TrimPrefix(postgresVersion(d), "PostgreSQL ") }),
			size("Stored", "BackupSize"),
			size("Restored", "RestoreSize"),
			size("Biggest file", "BiggestFileSize"),
			made("Compression", func(d mgmt.Document) string { return codecOf(d) }, "Compression"),
			made("Encryption", func(d mgmt.Document) string { return cipherOf(d) }, "Encryption"),
			text("Keep", "Keep"),
			made("Comments", func(d mgmt.Document) string { return strings.Join(comments(d), "\n") }, "Comments"),
			made("Starts at", func(d mgmt.Document) string { return pointOf(d, "Start") }, "StartHiLSN", "StartLoLSN", "StartTimeline"),
			made("Checkpoint", func(d mgmt.Document) string { return pointOf(d, "Checkpoint") }, "CheckpointHiLSN", "CheckpointLoLSN"),
			made("Ends at", func(d mgmt.Document) string { return pointOf(d, "End") }, "EndHiLSN", "EndLoLSN", "EndTimeline"),
			made("First WAL file", func(d mgmt.Document) string { return sizeOf(d, "WAL") }, "WAL"),
		},
		hidden: append(common(), "NumberOfTablespaces"),
		lists: []list{
			{member: "Tablespaces", cells: []cell{cellOf("Tablespace", "TablespaceName")}},
			{member: "Corrupt", title: "Pages with wrong checksums", cells: []cell{wrapCell("File", "FileName"), numberCell("Block", "Block")}},
		},
	}
}

func withUTC(t string) string {
	if t == "" {
		return ""
	}
	return t + " UTC"
}

func typeOf(d mgmt.Document) string {
	switch parent := clean(d.Text("IncrementalParent")); {
	case kindOf(d) == "":
		return ""
	case parent != "":
		return "incremental, based on " + parent
	case d.Bool("Incremental"):
		return "incremental"
	default:
		return "full"
	}
}

func codecOf(d mgmt.Document) string {
	n, ok := d.Integer("Compression")
	if !ok {
		return ""
	}
	return word(n&0xf, "none", "gzip", "zstd", "lz4", "bzip2")
}

func cipherOf(d mgmt.Document) string {
	n, ok := d.Integer("Encryption")
	if !ok {
		return ""
	}
	return encryptionWord(n)
}

func pointOf(d mgmt.Document, point string) string {
	lsn := lsnOf(d, point)
	if timeline, ok := d.Integer(point + "Timeline"); ok && lsn != "" {
		return fmt.Sprintf("%s, timeline %d", lsn, timeline)
	}
	return lsn
}

// Servers.

func statusView(details bool) *view {
	v := &view{
		facts: []fact{
			made("Space", func(d mgmt.Document) string {
				return fmt.Sprintf("%s of %s free, %s used", sizeOf(d, "FreeSpace"), sizeOf(d, "TotalSpace"), sizeOf(d, "UsedSpace"))
			}, "FreeSpace", "TotalSpace", "UsedSpace"),
			made("State of space", func(d mgmt.Document) string {
				if state := textOf(d, "SpaceState"); state != "ok" {
					return state
				}
				return ""
			}, "SpaceState"),
			made("Forecast", func(d mgmt.Document) string {
				if forecast := textOf(d, "SpaceForecast"); forecast != "" && d.Text("SpaceFullAt") != "" {
					return fmt.Sprintf("%s, %s a day", forecast, sizeOf(d, "SpaceGrowth"))
				}
				return textOf(d, "SpaceForecast")
			}, "SpaceForecast", "SpaceFullAt", "SpaceGrowth"),
		},
		hidden: append(common(), "NumberOfServers", "Workers", "PgmonetaFips"),
		lists: []list{{member: "Servers", empty: "No servers.", cells: []cell{
			cellOf("Server", "Server"), madeCell("WAL", receivingOf), madeCell("Role", roleOf), numberCell("Backups", "NumberOfBackups"),
			sizeCell("Size", "ServerSize"), madeCell("Retention", retentionOf), madeCell("Running", runningOf), cellOf("Checksums", "Checksums").asMinor(),
		}}},
	}
	if details {
		v.lists[0].cells, v.lists[0].each = nil, serverView()
	}
	return v
}

func receivingOf(d mgmt.Document) string {
	switch {
	case d.Text("Mode") == "offline":
		return "offline"
	case d.Bool("Online"):
		return "received"
	default:
		return "NOT RECEIVED"
	}
}

func roleOf(d mgmt.Document) string {
	if d.Bool("Primary") {
		return "primary"
	}
	return "standby"
}

func runningOf(d mgmt.Document) string {
	for _, job := range []string{"Backup", "Restore", "Delete", "Archive", "Retention"} {
		if d.Bool("Active" + job) {
			return strings.ToLower(job)
		}
	}
	return ""
}

// retentionOf returns the retention in its order in the configuration: days, weeks, months, years.
func retentionOf(d mgmt.Document) string {
	var parts []string
	for _, p := range []struct{ member, unit string }{{"RetentionDays", "d"}, {"RetentionWeeks", "w"}, {"RetentionMonths", "m"}, {"RetentionYears", "y"}} {
		if n, ok := d.Integer(p.member); ok && n > 0 {
			parts = append(parts, fmt.Sprintf("%d%s", n, p.unit))
		}
	}
	return strings.Join(parts, " ")
}

func serverView() *view {
	return &view{
		title: func(d mgmt.Document) string { return "Server " + clean(d.Text("Server")) },
		facts: []fact{
			made("  WAL", receivingOf, "Online", "WalStreaming", "Mode"),
			text("  Last error", "LastError"),
			moment("  Next attempt", "NextAttempt"),
			made("  Role", func(d mgmt.Document) string {
				if n, ok := d.Integer("Timeline"); ok {
					return fmt.Sprintf("%s, timeline %d", roleOf(d), n)
				}
				return roleOf(d)
			}, "Primary", "Timeline"),
			text("  Server is at", "ServerLSN"),
			text("  Flushed", "FlushedLSN"),
			text("  Stored", "StoredLSN"),
			made("  Shipped", func(d mgmt.Document) string { return nonzeroLSN(d, "ShippedLSN") }, "ShippedLSN"),
			text("  Receiving", "CurrentSegment"),
			made("  Slot", slotOf, "SlotState", "SlotRetained"),
			made("  Holes", holesOf, "Holes", "FirstHole"),
			size("  Size", "ServerSize"),
			made("  Backups take", usageOf, "Usage"),
			made("  Retention", retentionOf, "RetentionDays", "RetentionWeeks", "RetentionMonths", "RetentionYears"),
			made("  Running", runningOf, "ActiveBackup", "ActiveRestore", "ActiveDelete", "ActiveArchive", "ActiveRetention"),
			made("  Verified", verifiedOf, "LastVerification"),
			made("  Rehearsed", rehearsedOf, "LastRehearsal"),
			text("  Checksums", "Checksums"),
		},
		only:  true, // the rest is counters, for programs
		lists: []list{backupList("No backups.")},
	}
}

// usageOf tells what the backups would take by themselves, and what they do take.
func usageOf(d mgmt.Document) string {
	u := d.Object("Usage")
	if u["StoredSize"] == nil {
		return ""
	}
	return fmt.Sprintf("%s for %s of data; shared %s, dead %s", sizeOf(u, "StoredSize"), sizeOf(u, "LogicalSize"), sizeOf(u, "SharedSize"), sizeOf(u, "DeadSize"))
}

func verifiedOf(d mgmt.Document) string {
	last := d.Object("LastVerification")
	switch {
	case len(last) == 0:
		return ""
	case last.Bool("Good"):
		return fmt.Sprintf("%s UTC: backup %s is good", momentOf(last, "At"), textOf(last, "Backup"))
	}
	return fmt.Sprintf("%s UTC: backup %s is DAMAGED: %s", momentOf(last, "At"), textOf(last, "Backup"), textOf(last, "Problem"))
}

func nonzeroLSN(d mgmt.Document, member string) string {
	if lsn := textOf(d, member); lsn != "0/0" {
		return lsn
	}
	return ""
}

func slotOf(d mgmt.Document) string {
	state := textOf(d, "SlotState")
	if state == "" {
		return ""
	}
	return fmt.Sprintf("%s, keeps %s of WAL", state, sizeOf(d, "SlotRetained"))
}

func holesOf(d mgmt.Document) string {
	if n, _ := d.Integer("Holes"); n > 0 {
		return fmt.Sprintf("%d, the first: %s", n, textOf(d, "FirstHole"))
	}
	return ""
}

func rehearsedOf(d mgmt.Document) string {
	last := d.Object("LastRehearsal")
	if len(last) == 0 {
		return ""
	}
	outcome := "NOT proven: " + textOf(last, "Failure")
	if last.Bool("Proven") {
		outcome = "proven, RTO " + secondsOf(last, "RTO")
	}
	return fmt.Sprintf("%s UTC, backup %s: %s", momentOf(last, "At"), textOf(last, "Backup"), outcome)
}

// Jobs.

func jobsView() *view {
	return &view{hidden: append(common(), "NumberOfJobs", "Server"), lists: []list{{
		member: "Jobs", empty: "No jobs.",
		cells: []cell{
			numberCell("Job", "Job"), madeCell("Server", func(d mgmt.Document) string { return cmp.Or(textOf(d, "Server"), "-") }),
			cellOf("Kind", "Kind"), cellOf("State", "State"), momentCell("Queued (UTC)", "Queued"),
			madeCell("Took", func(d mgmt.Document) string { return secondsOf(d, "Elapsed") }), cellOf("Backup", "Backup"),
		},
		notes: func(d mgmt.Document) []string { return append(lines(textOf(d, "File")), lines(textOf(d, "Error"))...) },
	}}}
}

func lines(text string) []string {
	if text == "" {
		return nil
	}
	return []string{text}
}

func scheduleView() *view {
	return &view{hidden: append(common(), "NumberOfJobs", "Server"), lists: []list{{
		member: "Jobs", empty: "Nothing is scheduled.",
		cells: []cell{
			cellOf("Server", "Server"), cellOf("Job", "Job"), wrapCell("Schedule", "Schedule"), momentCell("Next (UTC)", "Next"), momentCell("Last (UTC)", "Last"),
			madeCell("Took", func(d mgmt.Document) string {
				if d.Text("Last") == "" {
					return ""
				}
				return secondsOf(d, "Elapsed")
			}).asMinor(),
		},
		notes: func(d mgmt.Document) []string {
			if outcome := textOf(d, "Outcome"); outcome != "done" {
				return lines(outcome)
			}
			return nil
		},
	}}}
}

func retentionView() *view {
	return &view{title: dryRunOf, hidden: append(common(), "DryRun", "NumberOfServers"), lists: []list{{member: "Servers", empty: "No servers.", each: &view{
		title: func(d mgmt.Document) string { return "Server " + clean(d.Text("Server")) },
		facts: []fact{
			made("Deleted", func(d mgmt.Document) string {
				return fmt.Sprintf("%s of %s backups", textOf(d, "DeletedBackups"), textOf(d, "NumberOfBackups"))
			}, "DeletedBackups", "NumberOfBackups", "Server"),
			made("Gone from the trash", func(d mgmt.Document) string { return unlessZero(textOf(d, "PurgedBackups")) }, "PurgedBackups"),
			text("Deleted segments", "DeletedSegments"),
			made("Freed", func(d mgmt.Document) string {
				return fmt.Sprintf("%s of backups, %s of WAL", sizeOf(d, "FreedBackupSize"), sizeOf(d, "FreedWALSize"))
			}, "FreedSize", "FreedBackupSize", "FreedWALSize"),
			moment("Restorable from", "WindowAfter"),
			moment("Before that", "WindowBefore"),
			made("Refused", func(d mgmt.Document) string { return textsOf(d, "Refused") }, "Refused"),
			made("WAL stays for", func(d mgmt.Document) string { return textOf(d, "WALKept") }, "WALKept"),
		},
		lists: []list{{member: "Backups", cells: []cell{cellOf("Backup", "Backup"), madeCell("Taken (UTC)", taken), cellOf("Action", "Action"), wrapCell("Why", "Reason")}}, trashList()},
	}}}}
}

func unlessZero(n string) string {
	if n == "0" {
		return ""
	}
	return n
}

// textsOf returns an array of texts, one on a line.
func textsOf(d mgmt.Document, member string) string {
	var out []string
	for _, v := range d.List(member) {
		out = append(out, show(v))
	}
	return strings.Join(out, "\n")
}

// Checks.

func verifyView() *view {
	files := func(member, title string) list {
		return list{in: "Files", member: member, title: title, cells: []cell{wrapCell("File", "FileName"), cellOf("Hash", "HashAlgorithm"), wrapCell("Expected", "Original")}}
	}
	return &view{
		facts: []fact{
			text("Backup", "Backup"), text("Server", "Server"),
			made("Damaged files", func(d mgmt.Document) string { return fmt.Sprint(len(d.Object("Files").List("Failed"))) }, "Files"),
		},
		hidden: common(),
		lists:  []list{files("Failed", "Damaged"), files("All", "Sound")},
	}
}

func walCheckView() *view {
	return &view{
		facts: []fact{
			text("Server", "Server"), text("Mode", "Mode"), text("Findings", "NumberOfFindings"),
			made("Segments", func(d mgmt.Document) string {
				return fmt.Sprintf("%s of %s, %s of them partial", textOf(d, "NumberOfSegments"), sizeOf(d, "SegmentSize"), textOf(d, "PartialSegments"))
			}, "NumberOfSegments", "SegmentSize", "PartialSegments"),
			size("Stored", "StoredSize"), size("Read", "ReadSize"), text("Holes", "NumberOfHoles"), text("Newly recorded holes", "RecordedHoles"), text("Filled holes", "FilledHoles"),
			text("Histories", "NumberOfHistories"),
		},
		hidden: common(),
		lists: []list{
			{member: "Ranges", title: "What is there", cells: []cell{numberCell("Timeline", "Timeline"), cellOf("From", "From"), cellOf("To", "To"), numberCell("Segments", "Segments")}},
			{member: "Findings", title: "Findings", cells: []cell{cellOf("Kind", "Kind"), numberCell("Timeline", "Timeline"), cellOf("From", "From"), cellOf("To", "To"), wrapCell("What", "Message")}},
		},
	}
}

func repoCheckView() *view {
	return &view{
		facts: []fact{text("Server", "Server"), text("Mode", "Mode"), text("Findings", "NumberOfFindings"), text("Backups", "NumberOfBackups"),
			text("Packs", "NumberOfPacks"), text("Frames", "NumberOfFrames"), size("Read", "ReadSize")},
		hidden: common(),
		lists: []list{{member: "Findings", title: "Findings", each: &view{
			facts: []fact{text("Object", "Object"), text("What", "Message"),
				made("Needed by", func(d mgmt.Document) string { return textsOf(d, "Backups") }, "Backups"), made("Files", func(d mgmt.Document) string { return textsOf(d, "Files") }, "Files")},
		}}},
	}
}

func repoStatsView() *view {
	return &view{
		facts: []fact{text("Server", "Server"), size("Would restore", "LogicalSize"), size("Stored", "StoredSize"), size("Shared", "SharedSize"), size("Dead", "DeadSize"),
			text("Packs", "NumberOfPacks"), text("Frames", "NumberOfFrames"), text("Findings", "NumberOfFindings")},
		hidden: append(common(), "NumberOfBackups"),
		lists: []list{{member: "Backups", empty: "No backups.", cells: []cell{cellOf("Backup", "Backup"), madeCell("Taken (UTC)", taken), madeCell("Type", kindOf),
			sizeCell("Restored", "LogicalSize"), sizeCell("Added", "AddedSize"), sizeCell("Alone", "AloneSize")}}},
	}
}

func rehearsalView() *view {
	return &view{
		facts: []fact{
			text("Backup", "Backup"), text("Server", "Server"), text("Target", "Target"), moment("At", "At"), text("Proven", "Proven"), text("Failure", "Failure"),
			text("PostgreSQL started", "Started"), seconds("RTO", "RTO"), moment("Last commit", "LastCommit"),
			made("Restored", func(d mgmt.Document) string {
				return fmt.Sprintf("%s in %s", sizeOf(d, "RestoreSize"), secondsOf(d, "RestoreTime"))
			}, "RestoreSize", "RestoreTime"),
			made("Replayed", func(d mgmt.Document) string {
				return fmt.Sprintf("%s in %s", sizeOf(d, "ReplaySize"), secondsOf(d, "ReplayTime"))
			}, "ReplaySize", "ReplayTime"),
			made("Replayed from", func(d mgmt.Document) string { return joined(" to ", textOf(d, "ReplayFrom"), textOf(d, "ReplayTo")) }, "ReplayFrom", "ReplayTo"),
			made("Checks", func(d mgmt.Document) string {
				return fmt.Sprintf("%s, %s failed", textOf(d, "NumberOfChecks"), textOf(d, "FailedChecks"))
			}, "NumberOfChecks", "FailedChecks"),
		},
		hidden: common(),
		lists: []list{{member: "Checks", cells: []cell{cellOf("Database", "Database"), wrapCell("Check", "Check"), cellOf("Passed", "Passed"),
			madeCell("Took", func(d mgmt.Document) string { return secondsOf(d, "Elapsed") })},
			notes: func(d mgmt.Document) []string {
				return append(lines(textOf(d, "Problem")), lines(textOf(d, "Note"))...)
			}}},
	}
}

func joined(between, a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + between + b
}

func restoreView() *view {
	return &view{
		title: dryRunOf,
		facts: []fact{
			text("Backup", "Backup"), text("Server", "Server"), text("Directory", "Directory"), text("Target", "Target"), text("Timeline", "Timeline"),
			text("Reachable", "Reachable"),
			made("Problems", func(d mgmt.Document) string { return textsOf(d, "Problems") }, "Problems"),
			size("Writes", "WriteSize"), size("Reads", "ReadSize"),
			made("Space", func(d mgmt.Document) string {
				if d["NeededSpace"] == nil {
					return ""
				}
				return fmt.Sprintf("%s needed, %s free", sizeOf(d, "NeededSpace"), sizeOf(d, "FreeSpace"))
			}, "NeededSpace", "FreeSpace"),
			made("Estimated time", estimateOf, "EstimatedSeconds", "Speed", "SpeedFrom"),
			made("WAL", func(d mgmt.Document) string { return joined(" to ", textOf(d, "WALStart"), textOf(d, "WALEnd")) }, "WALStart", "WALEnd"),
			made("WAL comes from", func(d mgmt.Document) string {
				return joined(": ", textOf(d, "WALSupply"), textOf(d, "WALSupplyReason"))
			}, "WALSupply", "WALSupplyReason"),
			text("WAL segments", "WALSegments"), text("Copied", "WALCopied"), text("WAL directory", "WALDirectory"), text("Signal", "Signal"),
			made("Settings", func(d mgmt.Document) string { return textsOf(d, "Settings") }, "Settings"),
			text("Delta", "DeltaRestore"),
		},
		hidden: append(common(), "DryRun", "Comments", "BackupSize", "RestoreSize", "BiggestFileSize", "Compression", "Encryption", "Incremental", "IncrementalParent"),
		lists: []list{
			{member: "Nearest", title: "Nearest positions that can be reached", cells: []cell{cellOf("Backup", "Backup"), wrapCell("Position", "Position")}},
			{member: "Holes", title: "Holes", cells: []cell{numberCell("Timeline", "Timeline"), cellOf("From", "From"), cellOf("To", "To")}},
			{member: "Tablespaces", title: "Tablespaces", cells: []cell{cellOf("Name", "TablespaceName"), numberCell("OID", "OID"), wrapCell("Directory", "Directory")}},
		},
	}
}

// dryRunOf tells that nothing was done.
func dryRunOf(d mgmt.Document) string {
	if d.Bool("DryRun") {
		return "Nothing was changed. This is what would be done:"
	}
	return ""
}

func estimateOf(d mgmt.Document) string {
	n, _ := d.Integer("EstimatedSeconds")
	if n <= 0 {
		return ""
	}
	return fmt.Sprintf("%s at %s/s (%s)", humanDuration(time.Duration(n)*time.Second), sizeOf(d, "Speed"), textOf(d, "SpeedFrom"))
}

func progressView() *view {
	return &view{
		title: func(d mgmt.Document) string {
			cancelled, asked := d["Cancelled"].(bool)
			n, _ := d.Integer("ProgressState")
			switch {
			case asked && !cancelled:
				return "No job is running: nothing was cancelled."
			case asked && n == 0:
				return "The job was cancelled."
			case asked:
				return joined(", ", "Cancelled: "+textOf(d, "Kind"), textOf(d, "Phase"))
			case n == 0:
				return "No job is running."
			}
			return joined(", ", textOf(d, "Kind"), textOf(d, "Phase"))
		},
		facts: []fact{
			made("Done", func(d mgmt.Document) string {
				if n, _ := d.Integer("Total"); n == 0 {
					return ""
				}
				return fmt.Sprintf("%s of %s, %s %%", sizeOf(d, "Done"), sizeOf(d, "Total"), textOf(d, "Percentage"))
			}),
			made("Elapsed", func(d mgmt.Document) string {
				if n, _ := d.Integer("ProgressState"); n == 0 {
					return ""
				}
				return secondsOf(d, "Elapsed")
			}),
			made("Remaining", func(d mgmt.Document) string {
				if n, _ := d.Object("Remaining").Integer("value"); n > 0 {
					return humanDuration(time.Duration(n) * time.Second)
				}
				return ""
			}),
		},
		only: true,
	}
}

func reloadView() *view {
	return &view{
		facts:  []fact{text("Needs a restart", "Restart")},
		hidden: append(common(), "Server"),
		lists: []list{{member: "Changes", title: "Changes", cells: []cell{cellOf("Section", "Section"), cellOf("Key", "Key"),
			wrapCell("Old", "Old"), wrapCell("New", "New"), cellOf("Effect", "Effect")}}},
	}
}

// confCheckView leaves out the problems: they are the reason of the refusal, and told there.
func confCheckView() *view {
	return &view{
		facts:  []fact{text("Configuration", "Configuration"), text("Problems", "NumberOfProblems"), text("Servers", "NumberOfServers")},
		hidden: append(common(), "Server", "Problems"),
		lists:  []list{{member: "Warnings", title: "Warnings", cells: []cell{numberCell("Line", "Line"), cellOf("Section", "Section"), cellOf("Key", "Key"), wrapCell("What", "Message")}}},
	}
}
