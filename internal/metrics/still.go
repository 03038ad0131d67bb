package metrics

import (
	"slices"
	"time"
)

// compat are the families of pgmoneta 0.22.
func compat() []family {
	return slices.Concat(compatService(), compatServers(), compatStorage(), compatBackups(), compatProgress(), compatStill())
}

func compatStorage() []family {
	const name = "name"
	of := func(what, text string, dir func(v *Server) Directory) []family {
		used := "pgmoneta_" + what
		return []family{
			perServer(name, used, "Bytes used by "+text+", 0 without one.", func(v *Server) float64 { return float64(dir(v).Used) }),
			perServer(name, used+"_free_space", "Bytes free for "+text+".", func(v *Server) float64 { return float64(dir(v).Free) }),
			perServer(name, used+"_total_space", "Bytes of the file system of "+text+".", func(v *Server) float64 { return float64(dir(v).Total) }),
		}
	}
	list := slices.Concat(
		of("workspace", "the workspace", func(v *Server) Directory { return v.Workspace }),
		of("hot_standby", "the hot standby directories (not in this version)", func(v *Server) Directory { return v.HotStandby }),
		of("wal_shipping", "shipped WAL", func(v *Server) Directory { return Directory{v.Shipping.WAL, v.Shipping.Free, v.Shipping.Total} }),
	)
	return append(list, perServer(name, "pgmoneta_wal_shipping_used_space", "Bytes used by the directory WAL is shipped to.", func(v *Server) float64 { return float64(v.Shipping.Used) }))
}

func compatProgress() []family {
	progress := func(name, help string, value func(p *Progress) float64) family {
		return labelled(gaugeKind, name, help, []string{"name", "workflow", "phase"}, func(v *Server, emit emit) {
			emit(value(&v.Progress), v.Name, v.Progress.Workflow, v.Progress.Phase)
		})
	}
	return []family{
		progress("pgmoneta_progress_percentage", "How much of the running job is done, 0 to 100.", func(p *Progress) float64 {
			return min(100, 100*ratio(float64(p.Done), float64(p.Total)))
		}),
		progress("pgmoneta_progress_elapsed_time", "Seconds since the running job began.", func(p *Progress) float64 { return p.Elapsed.Truncate(time.Second).Seconds() }),
		progress("pgmoneta_progress_total", "Bytes the running job has to do, 0 while that is not known.", func(p *Progress) float64 { return float64(p.Total) }),
		progress("pgmoneta_progress_done", "Bytes the running job has done.", func(p *Progress) float64 { return float64(p.Done) }),
	}
}

// compatStill are the families whose value never changes here: what they are about is not done, or not as a step of its
// own. They are on the page because dashboards ask for them.
func compatStill() []family {
	const name = "name"
	list := []family{
		labelled(gaugeKind, "pgmoneta_extension_pgmoneta_ext", "1 if the extension pgmoneta_ext is used; this program does not need it, so always 0.",
			[]string{name, "version"}, func(v *Server, emit emit) { emit(0, v.Name, "not_installed") }),
		perServer(name, "pgmoneta_server_fips_mode", "1 if the server says that its cryptography is validated; it is not asked, so always 0.", func(*Server) float64 { return 0 }),
		perServer(name, "pgmoneta_server_extensions_detected", "Number of extensions found; none are looked for, so always 0.", func(*Server) float64 { return 0 }),
		labelled(gaugeKind, "pgmoneta_server_extension", "1 for each extension found; none are looked for, so always one with 0.",
			[]string{name, "extension", "version", "comment"}, func(v *Server, emit emit) { emit(0, v.Name, "none", "", "") }),
	}
	for _, step := range []struct{ name, text string }{
		{"manifest", "the manifest (it is made while files arrive)"},
		{"compression_zstd", "compression with zstd (files are compressed while they arrive)"},
		{"compression_gzip", "compression with gzip (files are compressed while they arrive)"},
		{"compression_bzip2", "compression with bzip2 (files are compressed while they arrive)"},
		{"compression_lz4", "compression with lz4 (files are compressed while they arrive)"},
		{"encryption", "encryption (files are encrypted while they arrive)"},
		{"linking", "linking (what is there already is not stored again)"},
		{"remote_ssh", "copying to SSH (not in this version)"},
		{"remote_s3", "copying to S3 (not in this version)"},
		{"remote_azure", "copying to Azure (not in this version)"},
	} {
		never := func(*Backup) float64 { return 0 }
		list = append(list,
			perBackup("pgmoneta_backup_"+step.name+"_elapsed_time", "Seconds of a step of its own for "+step.text+", always 0.", never),
			perBackup("pgmoneta_backup_"+step.name+"_mbs", "Megabytes (1e6) per second of a step of its own for "+step.text+", always 0.", never))
	}
	return list
}

// digits prints a time as the number that its local digits are, as labels of 0.22 do; 0 for the zero time.
func digits(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return labelNumber(&Backup{Label: t.Local().Format("20060102150405")})
}
