package metrics

import (
	"fmt"
	"strconv"
)

// The families of pgmoneta 0.22. All are gauges there, counters too.

func compatService() []family {
	return []family{
		gauge("pgmoneta_state", "1 while the daemon runs.", func(*Snapshot) float64 { return 1 }),
		{
			name: "pgmoneta_version", help: "Version of the daemon, in the label.",
			kind: gaugeKind, labels: []string{"version"},
			samples: func(s *Snapshot, emit emit) { emit(1, s.Version) },
		},
		gauge("pgmoneta_fips", "1 if the cryptography of the daemon is validated (FIPS 140-3).", func(s *Snapshot) float64 { return number(s.FIPS) }),
		gauge("pgmoneta_logging_info", "Lines logged at level INFO.", func(s *Snapshot) float64 { return float64(s.Log.Info) }),
		gauge("pgmoneta_logging_warn", "Lines logged at level WARN.", func(s *Snapshot) float64 { return float64(s.Log.Warn) }),
		gauge("pgmoneta_logging_error", "Lines logged at level ERROR.", func(s *Snapshot) float64 { return float64(s.Log.Error) }),
		gauge("pgmoneta_logging_fatal", "Lines logged at level FATAL.", func(s *Snapshot) float64 { return float64(s.Log.Fatal) }),
		gauge("pgmoneta_retention_days", "Days backups are kept, 0 if unset.", func(s *Snapshot) float64 { return period(s.Retention.Days) }),
		gauge("pgmoneta_retention_weeks", "Weeks one backup each is kept, 0 if unset.", func(s *Snapshot) float64 { return period(s.Retention.Weeks) }),
		gauge("pgmoneta_retention_months", "Months one backup each is kept, 0 if unset.", func(s *Snapshot) float64 { return period(s.Retention.Months) }),
		gauge("pgmoneta_retention_years", "Years one backup each is kept, 0 if unset.", func(s *Snapshot) float64 { return period(s.Retention.Years) }),
		labelled(gaugeKind, "pgmoneta_retention_server", "Retention of a server by period, 0 if unset.",
			[]string{"name", "parameter"}, func(v *Server, emit emit) {
				emit(period(v.Retention.Days), v.Name, "days")
				emit(period(v.Retention.Weeks), v.Name, "weeks")
				emit(period(v.Retention.Months), v.Name, "months")
				emit(period(v.Retention.Years), v.Name, "years")
			}),
		gauge("pgmoneta_compression", "Code of the configured compression; modulo 16: 0 none, 1 gzip, 2 zstd, 3 lz4, 4 bzip2.",
			func(s *Snapshot) float64 { return float64(s.Compression) }),
		gauge("pgmoneta_used_space", "Bytes used by the base directory.", func(s *Snapshot) float64 { return float64(s.Storage.Used) }),
		gauge("pgmoneta_free_space", "Bytes free for the base directory.", func(s *Snapshot) float64 { return float64(s.Storage.Free) }),
		gauge("pgmoneta_total_space", "Bytes of the file system of the base directory.", func(s *Snapshot) float64 { return float64(s.Storage.Total) }),
	}
}

func period(n int) float64 { return float64(max(n, 0)) }

func compatServers() []family {
	const name = "name"
	return []family{
		perServer(name, "pgmoneta_server_timeline", "Timeline of the server.", func(v *Server) float64 { return float64(v.Timeline) }),
		perServer(name, "pgmoneta_server_workers", "Workers for jobs of the server.", func(v *Server) float64 { return float64(v.Workers) }),
		perServer(name, "pgmoneta_server_online", "1 if the server is usable.", func(v *Server) float64 { return number(v.Online) }),
		perServer(name, "pgmoneta_server_primary", "1 if the server is a primary.", func(v *Server) float64 { return number(v.Primary) }),
		perServer(name, "pgmoneta_server_valid", "1 if the server meets the requirements.", func(v *Server) float64 { return number(v.Valid) }),
		perServer(name, "pgmoneta_server_checksums", "1 if data checksums are on.", func(v *Server) float64 { return number(v.Checksums) }),
		labelled(gaugeKind, "pgmoneta_server_parent_tli", "Parent of each timeline in the history of the server, 0 for timeline 1.",
			[]string{name, "tli"}, func(v *Server, emit emit) {
				emit(0, v.Name, "1")
				for _, t := range v.Timelines {
					emit(float64(t.Parent), v.Name, strconv.FormatUint(uint64(t.ID), 10))
				}
			}),
		labelled(gaugeKind, "pgmoneta_server_timeline_switchpos", "1; the label is the LSN at which the timeline left its parent.",
			[]string{name, "tli", "walpos"}, func(v *Server, emit emit) {
				emit(1, v.Name, "1", "0/0")
				for _, t := range v.Timelines {
					emit(1, v.Name, strconv.FormatUint(uint64(t.ID), 10), lsn(t.Switch))
				}
			}),
		perServer(name, "pgmoneta_server_operation_count", "Requests of clients about the server that succeeded, since the start.", func(v *Server) float64 { return float64(v.Operation.Succeeded) }),
		perServer(name, "pgmoneta_server_failed_operation_count", "Requests of clients about the server that failed, since the start.", func(v *Server) float64 { return float64(v.Operation.Failed) }),
		perServer(name, "pgmoneta_server_last_operation_time", "Local time of the last request that succeeded, as the number YYYYMMDDhhmmss, 0 for never.", func(v *Server) float64 { return digits(v.Operation.LastSucceeded) }),
		perServer(name, "pgmoneta_server_last_failed_operation_time", "Local time of the last request that failed, as the number YYYYMMDDhhmmss, 0 for never.", func(v *Server) float64 { return digits(v.Operation.LastFailed) }),
		perServer(name, "pgmoneta_server_summarize_wal", "1 if the server summarizes its WAL.", func(v *Server) float64 { return number(v.Summarize) }),
		perServer(name, "pgmoneta_wal_streaming", "1 while WAL is being received.", func(v *Server) float64 { return number(v.WAL.Streaming) }),
		labelled(gaugeKind, "pgmoneta_current_wal_file", "1 while streaming; the label is the file being written.",
			[]string{name, "file"}, func(v *Server, emit emit) { emit(number(v.WAL.Streaming), v.Name, v.WAL.File) }),
		labelled(gaugeKind, "pgmoneta_current_wal_lsn", "1 while streaming; the label is the last LSN received.",
			[]string{name, "lsn"}, func(v *Server, emit emit) { emit(number(v.WAL.Streaming), v.Name, lsn(v.WAL.Written)) }),
		perServer(name, "pgmoneta_wal_total_size", "Bytes of stored WAL.", func(v *Server) float64 { return float64(v.WAL.Bytes) }),
		perServer(name, "pgmoneta_backup_total_size", "Bytes of stored backups.", func(v *Server) float64 { return float64(v.BackupBytes) }),
		perServer(name, "pgmoneta_total_size", "Bytes stored of the server.", func(v *Server) float64 { return float64(v.TotalBytes) }),
		perServer(name, "pgmoneta_active_backup", "1 while a backup runs.", func(v *Server) float64 { return number(v.Active.Backup) }),
		perServer(name, "pgmoneta_active_restore", "1 while a restore runs.", func(v *Server) float64 { return number(v.Active.Restore) }),
		perServer(name, "pgmoneta_active_archive", "1 while an archive is made.", func(v *Server) float64 { return number(v.Active.Archive) }),
		perServer(name, "pgmoneta_active_delete", "1 while a backup is deleted.", func(v *Server) float64 { return number(v.Active.Delete) }),
		perServer(name, "pgmoneta_active_retention", "1 while the retention is applied.", func(v *Server) float64 { return number(v.Active.Retention) }),
	}
}

// lsn prints a position as PostgreSQL does.
func lsn(v uint64) string { return fmt.Sprintf("%X/%X", v>>32, uint32(v)) }

func compatBackups() []family {
	const name = "name"
	return []family{
		perServer(name, "pgmoneta_backup_oldest", "Label of the oldest valid backup, 0 if none.", func(v *Server) float64 { return labelNumber(v.oldest()) }),
		perServer(name, "pgmoneta_backup_newest", "Label of the newest valid backup, 0 if none.", func(v *Server) float64 { return labelNumber(v.newest()) }),
		perServer(name, "pgmoneta_backup_valid", "Number of valid backups.", func(v *Server) float64 { return float64(v.count(true)) }),
		perServer(name, "pgmoneta_backup_invalid", "Number of invalid backups.", func(v *Server) float64 { return float64(v.count(false)) }),
		perServer(name, "pgmoneta_backup_newest_size", "Stored bytes of the newest valid backup.", func(v *Server) float64 { return float64(v.newest().StoredBytes) }),
		perServer(name, "pgmoneta_restore_newest_size", "Restored bytes of the newest valid backup.", func(v *Server) float64 { return float64(v.newest().RestoreBytes) }),

		perBackup("pgmoneta_backup", "1 if the backup is valid.", func(b *Backup) float64 { return number(b.Valid) }),
		{
			name: "pgmoneta_backup_version", help: "PostgreSQL version of the backup, in the labels.",
			kind: gaugeKind, labels: []string{name, "label", "major", "minor"}, samples: backupVersions,
		},
		perBackup("pgmoneta_backup_total_elapsed_time", "Seconds the backup took.", func(b *Backup) float64 { return b.Elapsed.Seconds() }),
		perBackup("pgmoneta_backup_basebackup_elapsed_time", "Seconds the server took to send the backup, and we to store it at the same time.", func(b *Backup) float64 { return b.Base.Seconds() }),
		perBackup("pgmoneta_backup_start_timeline", "Timeline at the start of the backup.", func(b *Backup) float64 { return float64(b.StartTimeline) }),
		perBackup("pgmoneta_backup_end_timeline", "Timeline at the end of the backup.", func(b *Backup) float64 { return float64(b.EndTimeline) }),
		backupPosition("pgmoneta_backup_start_walpos", "Start LSN of the backup, in the label.", func(b *Backup) uint64 { return b.StartLSN }),
		backupPosition("pgmoneta_backup_checkpoint_walpos", "Checkpoint LSN of the backup, in the label.", func(b *Backup) uint64 { return b.CheckpointLSN }),
		backupPosition("pgmoneta_backup_end_walpos", "End LSN of the backup, in the label.", func(b *Backup) uint64 { return b.EndLSN }),
		{
			name: "pgmoneta_restore_size", help: "Restored bytes of a valid backup.",
			kind: gaugeKind, labels: []string{name, "label"},
			samples: restoreSizes(func(b, _ *Backup) float64 { return float64(b.RestoreBytes) }),
		},
		{
			name: "pgmoneta_restore_size_increment", help: "Difference in restored bytes to the valid backup before.",
			kind: gaugeKind, labels: []string{name, "label"},
			samples: restoreSizes(func(b, before *Backup) float64 { return float64(b.RestoreBytes) - float64(before.RestoreBytes) }),
		},
		perBackup("pgmoneta_backup_size", "Stored bytes of the backup.", func(b *Backup) float64 { return float64(b.StoredBytes) }),
		perBackup("pgmoneta_backup_compression_ratio", "Stored bytes divided by restored bytes.", func(b *Backup) float64 {
			return ratio(float64(b.StoredBytes), float64(b.RestoreBytes))
		}),
		perBackup("pgmoneta_backup_throughput", "Stored megabytes (1e6) per second of the backup.", func(b *Backup) float64 {
			return ratio(float64(b.StoredBytes)/1e6, b.Elapsed.Seconds())
		}),
		perBackup("pgmoneta_backup_basebackup_mbs", "Stored megabytes (1e6) per second while the server sent the backup.", func(b *Backup) float64 {
			return ratio(float64(b.StoredBytes)/1e6, b.Base.Seconds())
		}),
		perBackup("pgmoneta_backup_retain", "1 if the backup is kept whatever the retention says.", func(b *Backup) float64 { return number(b.Keep) }),
	}
}

func ratio(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}

// noBackup stands for the backups of a server that has none.
func noBackup() *Backup { return &Backup{Label: "0"} }

// each calls f for every backup, for the placeholder when there is none.
func (v *Server) each(f func(b *Backup)) {
	if len(v.Backups) == 0 {
		f(noBackup())
	}
	for i := range v.Backups {
		f(&v.Backups[i])
	}
}

func perBackup(name, help string, value func(b *Backup) float64) family {
	return labelled(gaugeKind, name, help, []string{"name", "label"}, func(v *Server, emit emit) {
		v.each(func(b *Backup) { emit(value(b), v.Name, b.Label) })
	})
}

func backupPosition(name, help string, position func(b *Backup) uint64) family {
	return labelled(gaugeKind, name, help, []string{"name", "label", "walpos"}, func(v *Server, emit emit) {
		v.each(func(b *Backup) { emit(number(b.Label != "0"), v.Name, b.Label, lsn(position(b))) })
	})
}

func backupVersions(s *Snapshot, emit emit) {
	for i := range s.Servers {
		v := &s.Servers[i]
		v.each(func(b *Backup) {
			emit(number(b.Label != "0"), v.Name, b.Label, strconv.Itoa(b.Major), strconv.Itoa(b.Minor))
		})
	}
}

// restoreSizes passes over invalid backups; a server that has only such prints nothing.
func restoreSizes(value func(b, before *Backup) float64) func(s *Snapshot, emit emit) {
	return func(s *Snapshot, emit emit) {
		for i := range s.Servers {
			v := &s.Servers[i]
			before := &Backup{}
			v.each(func(b *Backup) {
				if !b.Valid && b.Label != "0" {
					return
				}
				emit(value(b, before), v.Name, b.Label)
				before = b
			})
		}
	}
}

func (v *Server) count(valid bool) (n int) {
	for i := range v.Backups {
		if v.Backups[i].Valid == valid {
			n++
		}
	}
	return n
}

// oldest returns the first valid backup, the placeholder if there is none.
func (v *Server) oldest() *Backup {
	for i := range v.Backups {
		if v.Backups[i].Valid {
			return &v.Backups[i]
		}
	}
	return noBackup()
}

// newest returns the last valid backup, the placeholder if there is none.
func (v *Server) newest() *Backup {
	for i := len(v.Backups) - 1; i >= 0; i-- {
		if v.Backups[i].Valid {
			return &v.Backups[i]
		}
	}
	return noBackup()
}

// labelNumber reads a label as the number it looks like; below 2^53 a float64 holds it exactly.
func labelNumber(b *Backup) float64 {
	n, err := strconv.ParseUint(b.Label, 10, 53)
	if err != nil {
		return 0
	}
	return float64(n)
}
