package mgmt

import (
	"fmt"
	"path/filepath"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/config"
	"github.com/pgmoneta/pgmoneta-go/internal/job"
	"github.com/pgmoneta/pgmoneta-go/internal/pg"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
)

// RestoreSpec reads the request [Restore]. All members but Directory may be missing;
// those that 0.22 does not know are DryRun, Exact, Delta, WAL, WALDirectory,
// Tablespaces, TablespacesInPlace, Owner, Workers and MaxRate.
func RestoreSpec(req *Request) (job.RestoreSpec, error) {
	a := req.Args
	s := job.RestoreSpec{Position: a.Text("Position"), Directory: a.Text("Directory"), Exact: a.Bool("Exact"), Delta: a.Bool("Delta"), DryRun: a.Bool("DryRun"),
		WAL: a.Text("WAL"), WALDirectory: a.Text("WALDirectory"), TablespacesInPlace: a.Bool("TablespacesInPlace"), Owner: a.Text("Owner")}
	for _, v := range a.List("Tablespaces") {
		text, ok := v.(string)
		if !ok {
			return s, badRestore(fmt.Errorf("tablespace %v: want name, OID or path=directory", v))
		}
		s.Tablespaces = append(s.Tablespaces, text)
	}
	workers, _ := a.Integer("Workers")
	s.MaxRate, _ = a.Integer("MaxRate")
	const most = 1024
	if workers < 0 || workers > most || s.MaxRate < 0 {
		return s, badRestore(fmt.Errorf("%d workers and %d bytes per second: want 0 to %d, and 0 or more", workers, s.MaxRate, most))
	}
	s.Workers = int(workers)
	if !filepath.IsAbs(s.Directory) {
		return s, badRestore(fmt.Errorf("directory %q: an absolute path is needed, because the daemon runs elsewhere", s.Directory))
	}
	return s, nil
}

func badRestore(err error) error {
	return &Error{Code: CodeRestoreNoBackup, Workflow: "restore", Err: err}
}

// AnswerRestore is the answer to [Restore]. dry tells that nothing was done.
func AnswerRestore(r *job.RestoreReport, dry bool) Response {
	resp := Response{"Backup": nil, "Comments": ""}
	if r.Backup != nil {
		resp = DescribeBackup(*r.Backup)
		resp["Comments"] = ""
		delete(resp, "Valid")
	}
	tablespaces, holes, nearest := []Document{}, []Document{}, []Document{}
	for _, ts := range r.Tablespaces {
		tablespaces = append(tablespaces, Document{"TablespaceName": ts.Name, "OID": ts.OID, "Directory": ts.Directory})
	}
	for _, h := range r.Holes {
		holes = append(holes, Document{"Timeline": uint32(h.Timeline), "From": h.From.String(), "To": h.To.String()})
	}
	for _, p := range r.Nearest {
		nearest = append(nearest, Document{"Backup": string(p.Backup), "Position": p.Position})
	}
	resp["DryRun"], resp["Reachable"], resp["Problems"], resp["Nearest"] = dry, len(r.Problems) == 0, texts(r.Problems), nearest
	resp["Target"], resp["Timeline"], resp["Signal"], resp["Settings"] = r.Target, uint32(r.Timeline), r.Signal, texts(r.Settings)
	resp["Directory"], resp["WALDirectory"], resp["Tablespaces"], resp["DeltaRestore"] = r.Directory, r.WALDirectory, tablespaces, r.Delta
	resp["WALStart"], resp["WALEnd"], resp["WALSegments"], resp["WALCopied"] = position(r.WALStart), position(r.WALEnd), r.Segments, r.Copied
	resp["WALSupply"], resp["WALSupplyReason"], resp["Holes"] = r.Supply, r.SupplyWhy, holes
	resp["ReadSize"], resp["WriteSize"], resp["NeededSpace"], resp["FreeSpace"] = r.Read, r.Write, r.Need, r.Free
	resp["EstimatedSeconds"], resp["Speed"], resp["SpeedFrom"] = int64(r.Estimate.Round(time.Second)/time.Second), r.Speed, r.SpeedFrom
	return resp
}

func texts(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}

// position prints an LSN, nothing for an unknown one.
func position(lsn pg.LSN) string {
	if lsn == 0 {
		return ""
	}
	return lsn.String()
}

// DescribeBackup returns the members that the answers to backup, list, info and restore share.
func DescribeBackup(s repo.Summary) Response {
	resp := Response{
		"Backup": string(s.Label), "BackupSize": s.Stored, "RestoreSize": s.Logical, "BiggestFileSize": s.Biggest,
		"Compression": compressionCode(s.Codec), "Encryption": encryptionCode(s.Cipher), "Valid": 1,
		"Incremental": s.Type == repo.Incremental, "IncrementalParent": string(s.Base),
		"MajorVersion": s.PostgreSQL.Major(), "MinorVersion": s.PostgreSQL.Minor(),
	}
	if s.CorruptPages > 0 {
		resp["CorruptPages"] = s.CorruptPages
	}
	return resp
}

func compressionCode(codec string) int {
	codes := map[string]int{"gzip": 17, "zstd": 18, "lz4": 19, "bzip2": 20}
	return codes[codec]
}

func encryptionCode(cipher string) int {
	codes := map[string]config.Encryption{config.AES256.String(): config.AES256, config.AES192.String(): config.AES192, config.AES128.String(): config.AES128}
	return int(codes[cipher])
}
