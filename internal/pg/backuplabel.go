package pg

import (
	"fmt"
	"strconv"
	"strings"
)

// A BackupLabel holds what the file backup_label says about where recovery of a
// base backup begins.
//
// See PostgreSQL documentation, "Making a Base Backup Using the Low Level API".
type BackupLabel struct {
	Start       LSN // redo point: first position recovery reads
	StartFile   string
	Checkpoint  LSN
	FromStandby bool
	Timeline    Timeline
	Label       string
}

// ParseBackupLabel reads the content of a backup_label file. Start and
// checkpoint location are required; lines it does not know are ignored.
func ParseBackupLabel(content []byte) (BackupLabel, error) {
	var b BackupLabel
	for _, line := range strings.Split(string(content), "\n") {
		key, value, ok := strings.Cut(line, ": ")
		if !ok {
			continue
		}
		var err error
		switch key {
		case "START WAL LOCATION":
			lsn, file, _ := strings.Cut(value, " (file ")
			b.StartFile = strings.TrimSuffix(file, ")")
			b.Start, err = ParseLSN(lsn)
		case "CHECKPOINT LOCATION":
			b.Checkpoint, err = ParseLSN(value)
		case "BACKUP FROM":
			b.FromStandby = value == "standby"
		case "LABEL":
			b.Label = value
		case "START TIMELINE":
			var n uint64
			n, err = strconv.ParseUint(value, 10, 32)
			b.Timeline = Timeline(n)
		}
		if err != nil {
			return BackupLabel{}, fmt.Errorf("backup_label: %s: %w", key, err)
		}
	}
	if b.Start == 0 || b.Checkpoint == 0 {
		return BackupLabel{}, fmt.Errorf("backup_label: start or checkpoint location is missing")
	}
	return b, nil
}
