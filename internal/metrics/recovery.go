package metrics

import (
	"math"
	"strconv"
	"time"
)

// designedRecovery answers: if the server burned down now, what would be lost?
func designedRecovery() []family {
	const server = "server"
	return []family{
		timed("pgmoneta_rpo_seconds", "Age of the newest moment that could be restored if the server were gone now, +Inf if there is no backup.",
			func(s *Snapshot, v *Server, emit emit) {
				if v.Recovery.End.IsZero() {
					emit(math.Inf(1), v.Name)
					return
				}
				emit(max(0, s.Now.Sub(v.Recovery.End).Seconds()), v.Name)
			}),
		labelled(gaugeKind, "pgmoneta_rpo_bytes", "Bytes of WAL that would be lost if the server were gone now; absent while the end of its WAL is not known.",
			[]string{server}, func(v *Server, emit emit) {
				if v.Recovery.Known {
					emit(float64(v.Recovery.Lost), v.Name)
				}
			}),
		moment("pgmoneta_recovery_window_start_timestamp_seconds", "First moment of the unbroken time that can be restored; absent without a backup.", func(v *Server) time.Time { return v.Recovery.Start }),
		moment("pgmoneta_recovery_window_end_timestamp_seconds", "Last moment of the unbroken time that can be restored; absent without a backup.", func(v *Server) time.Time { return v.Recovery.End }),
		timed("pgmoneta_backup_age_seconds", "Time since the last successful backup ended, +Inf if there is none.",
			func(s *Snapshot, v *Server, emit emit) {
				last := v.LastFull
				if v.LastIncremental.After(last) {
					last = v.LastIncremental
				}
				if last.IsZero() {
					emit(math.Inf(1), v.Name)
					return
				}
				emit(max(0, s.Now.Sub(last).Seconds()), v.Name)
			}),
		moment("pgmoneta_backup_due_timestamp_seconds", "When the schedule has the first backup after the last good one, in the past when that is late; absent without a schedule of backups, or a good one.", func(v *Server) time.Time { return v.BackupDue }),
		verified("pgmoneta_verify_timestamp_seconds", "When the last verification of a backup ended; absent until there is one.", func(r *Verified) float64 { return unix(r.At) }),
		verified("pgmoneta_verify_good", "1 if the last verification of a backup found nothing wrong.", func(r *Verified) float64 { return number(r.Good) }),
		verified("pgmoneta_verify_files", "Files that the last verification of a backup read.", func(r *Verified) float64 { return float64(r.Files) }),
		verified("pgmoneta_verify_bad_files", "Files in which the last verification of a backup found something wrong.", func(r *Verified) float64 { return float64(r.BadFiles) }),
		{
			name: "pgmoneta_wal_flush_duration_seconds", help: "How long it took to make received WAL durable.",
			kind: histogramKind, labels: []string{server, "le"}, samples: flushes,
		},
		perServer(server, "pgmoneta_wal_store_queue_segments", "Segments received and not yet stored in the repository.", func(v *Server) float64 { return float64(v.WAL.StoreQueue) }),
	}
}

// timed is a gauge per server that depends on the time.
func timed(name, help string, samples func(s *Snapshot, v *Server, emit emit)) family {
	return family{name: name, help: help, kind: gaugeKind, labels: []string{"server"}, samples: func(s *Snapshot, emit emit) {
		for i := range s.Servers {
			samples(s, &s.Servers[i], emit)
		}
	}}
}

// moment is a gauge that is absent while the time is not known.
func moment(name, help string, at func(v *Server) time.Time) family {
	return labelled(gaugeKind, name, help, []string{"server"}, func(v *Server, emit emit) {
		if t := at(v); !t.IsZero() {
			emit(unix(t), v.Name)
		}
	})
}

// verified is a gauge that is absent where nothing was verified.
func verified(name, help string, value func(r *Verified) float64) family {
	return labelled(gaugeKind, name, help, []string{"server"}, func(v *Server, emit emit) {
		if v.Verified != nil {
			emit(value(v.Verified), v.Name)
		}
	})
}

func flushes(s *Snapshot, emit emit) {
	for i := range s.Servers {
		s.Servers[i].WAL.Flushes.emit(emit, s.Servers[i].Name)
	}
}

// count returns how many durations there are.
func (d *Distribution) count() (n uint64) {
	for _, b := range d.Buckets {
		n += b.Count
	}
	return n
}

// emit emits the samples of a histogram with labels before "le".
func (d *Distribution) emit(emit emit, labels ...string) {
	count := uint64(0)
	for _, b := range d.Buckets {
		count += b.Count
		bound := "+Inf"
		if b.Bound > 0 {
			bound = strconv.FormatFloat(b.Bound.Seconds(), 'g', -1, 64)
		}
		emit(float64(count), append(labels, bound)...)
	}
	if len(d.Buckets) > 0 {
		emit(d.Sum.Seconds(), append(labels, leSum)...)
		emit(float64(count), append(labels, leCount)...)
	}
}

// designedStorage are the requests to the storage engine.
func designedStorage() []family {
	labels := []string{"engine", "operation"}
	counter := func(name, help string, value func(q *StorageRequests) uint64) family {
		return family{name: name, help: help, kind: counterKind, labels: labels, samples: func(s *Snapshot, emit emit) {
			for i := range s.Requests {
				q := &s.Requests[i]
				emit(float64(value(q)), q.Engine, q.Operation)
			}
		}}
	}
	return []family{
		counter("pgmoneta_storage_requests_total", "Requests to the storage engine since the start, of all processes.", func(q *StorageRequests) uint64 { return q.Elapsed.count() }),
		counter("pgmoneta_storage_request_errors_total", "Requests to the storage engine that failed; not those for what does not exist, or exists already.", func(q *StorageRequests) uint64 { return q.Failed }),
		{
			name: "pgmoneta_storage_request_duration_seconds", help: "How long requests to the storage engine took.", kind: histogramKind, labels: append(labels, "le"),
			samples: func(s *Snapshot, emit emit) {
				for i := range s.Requests {
					s.Requests[i].Elapsed.emit(emit, s.Requests[i].Engine, s.Requests[i].Operation)
				}
			},
		},
	}
}

// designedJobs are what the daemon does and how it is itself.
func designedJobs() []family {
	const server = "server"
	return []family{
		labelled(gaugeKind, "pgmoneta_jobs_running", "Jobs that run now; absent for kinds that do not.", []string{server, "job"}, func(v *Server, emit emit) {
			for _, kind := range v.Running {
				emit(1, v.Name, kind)
			}
		}),
		ended("pgmoneta_jobs_total", "Jobs that ended since the start.", counterKind, func(j *Job) float64 { return float64(j.Count) }),
		ended("pgmoneta_job_last_timestamp_seconds", "When the last job of the kind ended so.", gaugeKind, func(j *Job) float64 { return unix(j.Last) }),
		ended("pgmoneta_job_last_duration_seconds", "How long the last job of the kind that ended so took.", gaugeKind, func(j *Job) float64 { return j.Elapsed.Seconds() }),
		labelled(counterKind, "pgmoneta_requests_total", "Requests of clients about the server since the start.", []string{server, "outcome"}, func(v *Server, emit emit) {
			emit(float64(v.Operation.Succeeded), v.Name, outcome(false))
			emit(float64(v.Operation.Failed), v.Name, outcome(true))
		}),
		perServer(server, "pgmoneta_catalog_readable", "0 if the list of backups could not be read.", func(v *Server) float64 { return number(!v.CatalogProblem) }),
		gauge("pgmoneta_repository_used_bytes", "Bytes on disk below base_dir, measured from time to time.", func(s *Snapshot) float64 { return float64(s.Storage.Used) }),
		gauge("pgmoneta_repository_free_bytes", "Bytes free for base_dir.", func(s *Snapshot) float64 { return float64(s.Storage.Free) }),
		gauge("pgmoneta_repository_size_bytes", "Bytes of the file system of base_dir.", func(s *Snapshot) float64 { return float64(s.Storage.Total) }),
		{
			name: "pgmoneta_repository_full_seconds", kind: gaugeKind,
			help: "Time until nothing is free for base_dir if it goes on as in the last days, +Inf if its file system does not fill up; absent until six hours are known.",
			samples: func(s *Snapshot, emit emit) {
				if s.Storage.Forecast.Known {
					emit(s.Storage.Forecast.Full)
				}
			},
		},
		labelled(gaugeKind, "pgmoneta_server_used_bytes", "Bytes on disk of the repository of the server, measured from time to time.", []string{server}, func(v *Server, emit emit) {
			if v.UsedBytes > 0 {
				emit(float64(v.UsedBytes), v.Name)
			}
		}),
		used("pgmoneta_server_logical_bytes", "Bytes that all backups of the server would restore.", func(u *Usage) uint64 { return u.Logical }),
		used("pgmoneta_server_stored_bytes", "Bytes of packs and manifests of the server's backups.", func(u *Usage) uint64 { return u.Stored }),
		used("pgmoneta_server_shared_bytes", "Of the stored bytes, those that more than one backup uses.", func(u *Usage) uint64 { return u.Shared }),
		used("pgmoneta_server_dead_bytes", "Of the stored bytes, those that no backup uses.", func(u *Usage) uint64 { return u.Dead }),
		{
			name: "pgmoneta_log_messages_total", help: "Lines logged since the start or the last \"clear prometheus\", of all processes.", kind: counterKind, labels: []string{"level"},
			samples: func(s *Snapshot, emit emit) {
				emit(float64(s.Log.Info), "info")
				emit(float64(s.Log.Warn), "warn")
				emit(float64(s.Log.Error), "error")
				emit(float64(s.Log.Fatal), "fatal")
			},
		},
		gauge("pgmoneta_config_last_reload_success", "0 if the configuration was read again, was wrong, and the one before stayed.", func(s *Snapshot) float64 { return number(s.Reload.Good) }),
		gauge("pgmoneta_config_last_reload_success_timestamp_seconds", "When the configuration in force was read.", func(s *Snapshot) float64 { return unix(s.Reload.At) }),
		{
			name: "pgmoneta_certificate_not_after_timestamp_seconds", help: "When the certificate of a listener expires; absent for listeners without TLS.", kind: gaugeKind, labels: []string{"listener"},
			samples: func(s *Snapshot, emit emit) {
				for _, c := range s.Certificate {
					emit(unix(c.NotAfter), c.Listener)
				}
			},
		},
		gauge("pgmoneta_time_seconds", "The time by the clock of this machine, to compare with that of Prometheus.", func(s *Snapshot) float64 { return unix(s.Now) }),
	}
}

// used is a gauge that is absent while it is not known what the backups take.
func used(name, help string, value func(u *Usage) uint64) family {
	return labelled(gaugeKind, name, help, []string{"server"}, func(v *Server, emit emit) {
		if v.Usage != nil {
			emit(float64(value(v.Usage)), v.Name)
		}
	})
}

func ended(name, help string, k kind, value func(j *Job) float64) family {
	return labelled(k, name, help, []string{"server", "job", "outcome"}, func(v *Server, emit emit) {
		for i := range v.Jobs {
			emit(value(&v.Jobs[i]), v.Name, v.Jobs[i].Kind, outcome(v.Jobs[i].Failed))
		}
	})
}

func outcome(failed bool) string {
	if failed {
		return "failure"
	}
	return "success"
}
