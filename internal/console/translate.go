package console

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/pgmoneta/pgmoneta-go/internal/mgmt"
)

// translate returns a copy of a response with words in place of numbers. What the daemon's refusal holds is
// not touched apart from the header.
func translate(doc mgmt.Document) mgmt.Document {
	doc = doc.Clone()
	header := doc.Object("Header")
	number, ok := header.Integer("Command")
	translateHeader(header)
	resp := doc.Object("Response")
	if !ok || resp == nil || !doc.Outcome().Status {
		return doc
	}

	switch mgmt.Command(number) {
	case mgmt.Restore:
		translateBackup(resp)
		translatePresent(resp, "ReadSize", "WriteSize", "NeededSpace", "FreeSpace", "Speed")
	case mgmt.Backup, mgmt.Retain, mgmt.Expunge, mgmt.Info, mgmt.Annotate, mgmt.Undelete:
		translateBackup(resp)
	case mgmt.ListBackup:
		translateEach(resp, "Backups", translateBackup)
		translateEach(resp, "Trash", func(b mgmt.Document) { translateSizes(b, "BackupSize", "RestoreSize") })
	case mgmt.Status, mgmt.StatusDetails, mgmt.S3Ls:
		translateSizes(resp, "TotalSpace", "FreeSpace", "UsedSpace")
		translatePresent(resp, "SpaceGrowth")
		translateEach(resp, "Servers", translateServer)
	case mgmt.WALCheck:
		translateSizes(resp, "SegmentSize", "StoredSize", "ReadSize")
	case mgmt.RepoCheck:
		translateSizes(resp, "ReadSize")
	case mgmt.RepoStats:
		translateSizes(resp, "LogicalSize", "StoredSize", "SharedSize", "DeadSize")
		translateEach(resp, "Backups", func(b mgmt.Document) { translateSizes(b, "LogicalSize", "AddedSize", "AloneSize") })
	case mgmt.Retention:
		translateEach(resp, "Servers", func(s mgmt.Document) { translateSizes(s, "FreedSize", "FreedBackupSize", "FreedWALSize") })
	case mgmt.Rehearse:
		translateSizes(resp, "RestoreSize", "ReplaySize")
	case mgmt.ConfGet:
		translateSettings(resp)
	}
	return doc
}

func translateHeader(header mgmt.Document) {
	replace(header, "Command", func(n int64) string {
		if cmd := mgmt.Command(n); cmd.Known() {
			return cmd.String()
		}
		return ""
	})
	replace(header, "Output", func(n int64) string { return word(n, "text", "json") })
	replace(header, "Compression", func(n int64) string { return word(n, "none", "gzip", "zstd", "lz4", "bzip2") })
	replace(header, "Encryption", encryptionWord)
}

// replace puts a word in place of the number of a member, unless there is no number or no word for it.
func replace(doc mgmt.Document, key string, toWord func(int64) string) {
	n, ok := doc.Integer(key)
	if !ok {
		return
	}
	if w := toWord(n); w != "" {
		doc[key] = w
	}
}

func word(n int64, words ...string) string {
	if n < 0 || n >= int64(len(words)) {
		return ""
	}
	return words[n]
}

func encryptionWord(n int64) string {
	return word(n, "none", "aes-256-gcm", "aes-192-gcm", "aes-128-gcm")
}

func translateEach(doc mgmt.Document, key string, f func(mgmt.Document)) {
	for _, v := range doc.List(key) {
		if element, ok := v.(mgmt.Document); ok {
			f(element)
		}
	}
}

// translateBackup also adds what is missing: scripts that read the text of 0.22 find the same lines.
func translateBackup(b mgmt.Document) {
	translateSizes(b, "BackupSize", "RestoreSize", "BiggestFileSize", "WAL", "Delta")
	replace(b, "Valid", func(n int64) string {
		if n != 0 && n != 1 {
			return "unknown"
		}
		return word(n, "no", "yes")
	})

	setDefault(b, "Compression", int64(0))
	// The upper bits tell which side compresses.
	replace(b, "Compression", func(n int64) string { return word(n&0xf, "none", "gzip", "zstd", "lz4", "bzip2") })
	setDefault(b, "Encryption", int64(0))
	replace(b, "Encryption", encryptionWord)

	for _, point := range []string{"Start", "End", "Checkpoint"} {
		for _, half := range []string{"HiLSN", "LoLSN"} {
			replace(b, point+half, func(n int64) string { return fmt.Sprintf("%X", n) })
		}
	}
}

func setDefault(doc mgmt.Document, key string, v any) {
	if doc[key] == nil {
		doc[key] = v
	}
}

func translateServer(s mgmt.Document) {
	translateSizes(s, "WorkspaceFreeSpace", "HotStandbySize", "ServerSize")
	for _, period := range []string{"Days", "Weeks", "Months", "Years"} {
		replace(s, "Retention"+period, func(n int64) string {
			if n >= 0 {
				return ""
			}
			return "Unspecified"
		})
	}
	translateEach(s, "Backups", translateBackup)
	if usage := s.Object("Usage"); usage != nil {
		translatePresent(usage, "UsedSize", "LogicalSize", "StoredSize", "SharedSize", "DeadSize", "FreeSpace")
	}
}

// translateSizes turns bytes into text. A member that is text already, such as the WAL file of info, stays.
func translateSizes(doc mgmt.Document, keys ...string) {
	for _, key := range keys {
		if _, ok := doc[key].(string); ok {
			continue
		}
		doc[key] = Size(bytesOf(doc[key]))
	}
}

// translatePresent is translateSizes for members that not every daemon sends.
func translatePresent(doc mgmt.Document, keys ...string) {
	for _, key := range keys {
		if doc[key] != nil {
			translateSizes(doc, key)
		}
	}
}

func bytesOf(v any) float64 {
	switch v := v.(type) {
	case int64:
		return float64(v)
	case float64:
		return v
	case json.Number:
		f, _ := v.Float64()
		return f
	default:
		return 0
	}
}

// Size prints a number of bytes in the largest unit that leaves at least one, with two decimals.
func Size(bytes float64) string {
	units := []string{"B", "kB", "MB", "GB", "TB", "PB"}
	i := 0
	for bytes >= 1024 && i < len(units)-1 {
		bytes /= 1024
		i++
	}
	return fmt.Sprintf("%.2f%s", bytes, units[i])
}

// translateSettings shows the word of those settings that 0.22 shows as a word.
func translateSettings(resp mgmt.Document) {
	const worded = "compression encryption storage_engine create_slot hugepage log_type log_level log_mode"
	for _, key := range strings.Fields(worded) {
		if setting := resp.Object(key); setting["string_value"] != nil {
			resp[key] = setting["string_value"]
		}
	}
}
