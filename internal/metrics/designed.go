package metrics

import (
	"crypto/fips140"
	"maps"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
)

// designed are the families named by today's conventions.
func designed() []family {
	return slices.Concat(designedService(), designedRecovery(), designedWAL(), designedBackups(), designedRehearsals(), designedJobs(), designedStorage())
}

func designedService() []family {
	return []family{
		{
			name: "pgmoneta_build_info", help: "What is running, in the labels.",
			kind: gaugeKind, labels: []string{"version", "revision", "goversion", "fips"},
			samples: func(s *Snapshot, emit emit) {
				emit(1, s.Version, revision(), runtime.Version(), strconv.FormatBool(fips140.Enabled()))
			},
		},
		perServer("server", "pgmoneta_server_up", "1 if the server is usable.", func(v *Server) float64 { return number(v.Online) }),
	}
}

// revision returns the commit the binary was built from, "" when the build does not say.
func revision() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return s.Value
		}
	}
	return ""
}

func designedWAL() []family {
	const server = "server"
	return []family{
		perServer(server, "pgmoneta_wal_receiver_up", "1 while WAL is being received.", func(v *Server) float64 { return number(v.WAL.Streaming) }),
		position("pgmoneta_wal_received_lsn_bytes", "End of the WAL received and written, as a byte position.", func(w *WAL) uint64 { return w.Written }),
		position("pgmoneta_wal_flushed_lsn_bytes", "End of the WAL on stable storage and reported to the server, as a byte position.", func(w *WAL) uint64 { return w.Flushed }),
		position("pgmoneta_wal_stored_lsn_bytes", "End of the WAL stored in the repository, as a byte position.", func(w *WAL) uint64 { return w.Stored }),
		position("pgmoneta_wal_server_lsn_bytes", "End of the WAL on the server, as a byte position.", func(w *WAL) uint64 { return w.Server }),
		lag("pgmoneta_wal_lag_bytes", "Bytes of WAL on the server that are not flushed here.", func(w *WAL) float64 { return float64(w.LagBytes) }),
		lag("pgmoneta_wal_lag_seconds", "Age of the oldest WAL on the server that is not flushed here.", func(w *WAL) float64 { return w.LagSeconds }),
		labelled(gaugeKind, "pgmoneta_wal_last_received_timestamp_seconds", "When WAL arrived last.", []string{server},
			func(v *Server, emit emit) {
				if !v.WAL.LastReceived.IsZero() {
					emit(unix(v.WAL.LastReceived), v.Name)
				}
			}),
		counterPerServer("pgmoneta_wal_received_bytes_total", "Bytes of WAL received.", func(v *Server) uint64 { return v.WAL.ReceivedBytes }),
		labelled(counterKind, "pgmoneta_wal_receiver_restarts_total", "Times receiving began again, by what had ended: worker or connection.",
			[]string{server, "reason"}, func(v *Server, emit emit) {
				emit(float64(v.WAL.Restarts), v.Name, "worker")
				emit(float64(v.WAL.Reconnects), v.Name, "connection")
			}),
		counterPerServer("pgmoneta_wal_receiver_errors_total", "Errors that ended receiving.", func(v *Server) uint64 { return v.WAL.Errors }),
		perServer(server, "pgmoneta_wal_segments", "Finished WAL segments in the repository.", func(v *Server) float64 { return float64(v.WAL.Segments) }),
		perServer(server, "pgmoneta_wal_size_bytes", "Bytes of stored WAL.", func(v *Server) float64 { return float64(v.WAL.Bytes) }),
		perServer(server, "pgmoneta_wal_gaps", "Recorded ranges of WAL that are missing or damaged.", func(v *Server) float64 { return float64(v.WAL.Gaps.Count) }),
		perServer(server, "pgmoneta_wal_gap_bytes", "Bytes of WAL in recorded ranges that are missing or damaged.", func(v *Server) float64 { return float64(v.WAL.Gaps.Bytes) }),
		labelled(gaugeKind, "pgmoneta_wal_gap_last_noticed_timestamp_seconds", "When the newest of the recorded ranges was noticed.", []string{server},
			func(v *Server, emit emit) {
				if !v.WAL.Gaps.Last.IsZero() {
					emit(unix(v.WAL.Gaps.Last), v.Name)
				}
			}),
		labelled(gaugeKind, "pgmoneta_wal_slot_active", "1 while the replication slot is in use by this daemon.",
			[]string{server, "slot"}, func(v *Server, emit emit) {
				if v.WAL.Slot != "" {
					emit(number(v.WAL.Streaming), v.Name, v.WAL.Slot)
				}
			}),
		labelled(gaugeKind, "pgmoneta_wal_slot_retained_bytes", "Bytes of WAL the server keeps for the replication slot.",
			[]string{server, "slot"}, func(v *Server, emit emit) {
				if v.WAL.SlotState != "" {
					emit(float64(v.WAL.SlotRetained), v.Name, v.WAL.Slot)
				}
			}),
		labelled(gaugeKind, "pgmoneta_wal_slot_state", "1 for the state the replication slot was in when the server was asked last, 0 for the others.",
			[]string{server, "slot", "state"}, slotStates),
		shipping("pgmoneta_wal_shipping_lag_segments", "Stored WAL segments that have not arrived in the directory to ship to.", func(w *WAL) float64 { return float64(w.ShipLagSegments) }),
		shipping("pgmoneta_wal_shipping_lag_bytes", "Bytes of WAL in the segments that have not arrived there.", func(w *WAL) float64 { return float64(w.ShipLagBytes) }),
		shipping("pgmoneta_wal_shipping_lag_seconds", "How long there has been something that has not arrived there.", func(w *WAL) float64 { return w.ShipLagSeconds }),
	}
}

// slotStates shows every state, so that a change is a change of two series and none goes stale.
func slotStates(v *Server, emit emit) {
	if v.WAL.SlotState == "" {
		return
	}
	states := []string{"reserved", "extended", "unreserved", "lost", "missing"}
	if !slices.Contains(states, v.WAL.SlotState) {
		states = append(states, v.WAL.SlotState) // of a server newer than this program
	}
	for _, state := range states {
		emit(number(state == v.WAL.SlotState), v.Name, v.WAL.Slot, state)
	}
}

// shipping is a gauge that is absent where no copies are wanted.
func shipping(name, help string, value func(w *WAL) float64) family {
	return labelled(gaugeKind, name, help, []string{"server"}, func(v *Server, emit emit) {
		if v.WAL.Shipping {
			emit(value(&v.WAL), v.Name)
		}
	})
}

// position is a gauge that is absent while the position is unknown: a zero would look like a jump backwards.
func position(name, help string, value func(w *WAL) uint64) family {
	return labelled(gaugeKind, name, help, []string{"server"}, func(v *Server, emit emit) {
		if p := value(&v.WAL); p != 0 {
			emit(float64(p), v.Name)
		}
	})
}

// lag is a gauge that is absent while the end of WAL on the server is unknown: no lag must mean no lag.
func lag(name, help string, value func(w *WAL) float64) family {
	return labelled(gaugeKind, name, help, []string{"server"}, func(v *Server, emit emit) {
		if v.WAL.Server != 0 {
			emit(value(&v.WAL), v.Name)
		}
	})
}

func designedBackups() []family {
	return []family{
		labelled(gaugeKind, "pgmoneta_backups", "Number of backups by type and state; each counts once, kept means valid and kept.",
			[]string{"server", "type", "state"}, backupCounts),
		labelled(gaugeKind, "pgmoneta_backup_last_success_timestamp_seconds", "When the last successful backup of the type ended.",
			[]string{"server", "type"}, func(v *Server, emit emit) {
				if !v.LastFull.IsZero() {
					emit(unix(v.LastFull), v.Name, "full")
				}
				if !v.LastIncremental.IsZero() {
					emit(unix(v.LastIncremental), v.Name, "incremental")
				}
			}),
		labelled(counterKind, "pgmoneta_backup_failures_total", "Backups that failed.", []string{"server", "reason"}, backupFailures),
	}
}

func designedRehearsals() []family {
	return []family{
		rehearsal("pgmoneta_rehearsal_timestamp_seconds", "When the last rehearsed restore began.", func(r *Rehearsal) (float64, bool) { return unix(r.At), true }),
		rehearsal("pgmoneta_rehearsal_proven", "1 if the last rehearsed restore proved its backup.", func(r *Rehearsal) (float64, bool) { return number(r.Proven), true }),
		rehearsal("pgmoneta_rehearsal_rto_seconds", "Time from the beginning of the last rehearsed restore until PostgreSQL accepted connections.",
			func(r *Rehearsal) (float64, bool) { return r.RTO.Seconds(), r.Started }),
		rehearsal("pgmoneta_rehearsal_restore_seconds", "Time the last rehearsed restore took to write files.",
			func(r *Rehearsal) (float64, bool) { return r.Restore.Seconds(), r.RestoreBytes > 0 }),
		rehearsal("pgmoneta_rehearsal_restore_bytes", "Bytes the last rehearsed restore wrote.",
			func(r *Rehearsal) (float64, bool) { return float64(r.RestoreBytes), r.RestoreBytes > 0 }),
		rehearsal("pgmoneta_rehearsal_replay_seconds", "Time PostgreSQL took to replay WAL in the last rehearsed restore.",
			func(r *Rehearsal) (float64, bool) { return r.Replay.Seconds(), r.Started }),
		rehearsal("pgmoneta_rehearsal_replay_bytes", "Bytes of WAL PostgreSQL replayed in the last rehearsed restore.",
			func(r *Rehearsal) (float64, bool) { return float64(r.ReplayBytes), r.Started }),
	}
}

// rehearsal is a gauge that is absent where nothing was rehearsed, or not so far.
func rehearsal(name, help string, value func(r *Rehearsal) (float64, bool)) family {
	return labelled(gaugeKind, name, help, []string{"server"}, func(v *Server, emit emit) {
		if v.Rehearsal == nil {
			return
		}
		if x, ok := value(v.Rehearsal); ok {
			emit(x, v.Name)
		}
	})
}

func backupCounts(v *Server, emit emit) {
	counts := map[[2]string]int{}
	for i := range v.Backups {
		counts[[2]string{v.Backups[i].kind(), v.Backups[i].state()}]++
	}
	for _, kind := range []string{"full", "incremental"} {
		for _, state := range []string{"valid", "invalid", "kept"} {
			emit(float64(counts[[2]string{kind, state}]), v.Name, kind, state)
		}
	}
}

func (b *Backup) kind() string {
	if b.Incremental {
		return "incremental"
	}
	return "full"
}

func (b *Backup) state() string {
	switch {
	case !b.Valid:
		return "invalid"
	case b.Keep:
		return "kept"
	default:
		return "valid"
	}
}

// backupFailures starts at zero before the first failure, so that increase() sees that one too.
func backupFailures(v *Server, emit emit) {
	if len(v.Failures) == 0 {
		emit(0, v.Name, "other")
		return
	}
	for _, reason := range slices.Sorted(maps.Keys(v.Failures)) {
		emit(float64(v.Failures[reason]), v.Name, reason)
	}
}
