package mgmt

import (
	"strconv"

	"github.com/pgmoneta/pgmoneta-go/internal/container"
)

// A Command is the number of a request, as in Header.Command.
type Command int

// The commands of the protocol. 100 to 104 belong to pgmoneta-admin's output and never travel.
const (
	Backup        Command = 1
	ListBackup    Command = 2
	Restore       Command = 3
	Archive       Command = 4
	Delete        Command = 5
	Shutdown      Command = 6
	Status        Command = 7
	StatusDetails Command = 8
	Ping          Command = 9
	Reset         Command = 10 // clear prometheus
	Reload        Command = 11
	Retain        Command = 12
	Expunge       Command = 13
	Decrypt       Command = 14
	Encrypt       Command = 15
	Decompress    Command = 16
	Compress      Command = 17
	Info          Command = 18
	Verify        Command = 19
	Annotate      Command = 20
	ConfLs        Command = 21
	ConfGet       Command = 22
	ConfSet       Command = 23
	Mode          Command = 24
	Progress      Command = 25
	S3Ls          Command = 200
	S3Restore     Command = 201

	// Those that pgmoneta 0.22 does not know begin at 300.
	WALCheck  Command = 300
	RepoCheck Command = 301
	RepoStats Command = 302
	Rehearse  Command = 303
	Jobs      Command = 304

	ConfCheck    Command = 305 // never travels: the client does it itself
	ConfRollback Command = 306

	Retention Command = 310
	Schedule  Command = 311
	Undelete  Command = 312
)

// String returns the word printed for the command, its number when it is unknown.
func (c Command) String() string {
	if word := c.word(); word != "" {
		return word
	}
	return strconv.Itoa(int(c))
}

// Known reports whether the protocol defines the command.
func (c Command) Known() bool { return c.word() != "" }

func (c Command) word() string {
	switch c {
	case Backup:
		return "backup"
	case ListBackup:
		return "list-backup"
	case Restore:
		return "restore"
	case Archive:
		return "archive"
	case Delete:
		return "delete"
	case Shutdown:
		return "shutdown"
	case Status:
		return "status"
	case StatusDetails:
		return "status-details"
	case Ping:
		return "ping"
	case Reset:
		return "reset"
	case Reload:
		return "reload"
	case Retain:
		return "retain"
	case Expunge:
		return "expunge"
	case Decrypt:
		return "decrypt"
	case Encrypt:
		return "encrypt"
	case Decompress:
		return "decompress"
	case Compress:
		return "compress"
	case Info:
		return "info"
	case Verify:
		return "verify"
	case Annotate:
		return "annotate"
	case ConfLs:
		return "conf ls"
	case ConfGet:
		return "conf get"
	case ConfSet:
		return "conf set"
	case Mode:
		return "mode"
	case Progress:
		return "progress"
	case S3Ls:
		return "s3 ls"
	case S3Restore:
		return "s3 restore"
	case WALCheck:
		return "wal-check"
	case RepoCheck:
		return "repo-check"
	case RepoStats:
		return "repo-stats"
	case Rehearse:
		return "rehearse"
	case Jobs:
		return "jobs"
	case ConfCheck:
		return "conf check"
	case ConfRollback:
		return "conf rollback"
	case Retention:
		return "retention"
	case Schedule:
		return "schedule"
	case Undelete:
		return "undelete"
	default:
		return ""
	}
}

// silent reports whether success is answered without a Response member.
func (c Command) silent() bool {
	return c == Reset || c == Shutdown || c == S3Restore
}

// Codes are the error codes of one command for the refusals that most commands share.
// A refusal that a command has no code of its own for has the code of Other.
type Codes struct {
	NoServer Code // the server is not configured
	NoBackup Code // no backup of that name
	Busy     Code // another job holds the server
	Other    Code // everything without a code of its own
}

// Codes returns the command's own codes.
func (c Command) Codes() Codes {
	codes := c.definedCodes()
	for _, code := range []*Code{&codes.NoServer, &codes.NoBackup, &codes.Busy} {
		if *code == 0 {
			*code = codes.Other
		}
	}
	return codes
}

// FileCodes returns the codes of a command about a file: for one that is not there, and for everything else.
// Compress and decompress have those of a codec, as far as it is known.
func (c Command) FileCodes(codec container.Codec) (missing, other Code) {
	switch {
	case c == Decrypt:
		return CodeDecryptNoFile, CodeDecryptOther
	case c == Encrypt:
		return CodeEncryptNoFile, CodeEncryptOther
	case codec == container.Gzip:
		return CodeGzipNoFile, CodeGzipOther
	case codec == container.Zstd:
		return CodeZstdNoFile, CodeZstdOther
	case codec == container.LZ4:
		return CodeLZ4NoFile, CodeLZ4Other
	case codec == container.Bzip2:
		return CodeBzip2NoFile, CodeBzip2Other
	}
	return c.Codes().Other, c.Codes().Other
}

func (c Command) definedCodes() Codes {
	switch c {
	case Backup:
		return Codes{CodeBackupNoServer, CodeBackupNoBackups, CodeBackupActive, CodeBackupOther}
	case ListBackup:
		return Codes{NoServer: CodeListNoServer, Other: CodeListOther}
	case Restore:
		return Codes{CodeRestoreNoServer, CodeRestoreNoBackup, CodeRestoreActive, CodeRestoreOther}
	case Archive:
		return Codes{CodeArchiveNoServer, CodeArchiveNoBackup, CodeArchiveActive, CodeArchiveOther}
	case Delete:
		return Codes{CodeDeleteNoServer, CodeDeleteBackupNoSuch, CodeDeleteBackupActive, CodeDeleteBackupOther}
	case Status:
		return Codes{Other: CodeStatusNetwork}
	case StatusDetails:
		return Codes{Other: CodeDetailsNetwork}
	case Retain:
		return Codes{NoServer: CodeRetainNoServer, NoBackup: CodeRetainNoBackup, Other: CodeRetainOther}
	case Expunge:
		return Codes{NoServer: CodeExpungeNoServer, NoBackup: CodeExpungeNoBackup, Other: CodeExpungeOther}
	case Decrypt:
		return Codes{Other: CodeDecryptOther}
	case Encrypt:
		return Codes{Other: CodeEncryptOther}
	case Decompress:
		return Codes{Other: CodeDecompressUnknown}
	case Compress:
		return Codes{Other: CodeCompressUnknown}
	case Info:
		return Codes{NoServer: CodeInfoNoServer, NoBackup: CodeInfoNoBackup, Other: CodeInfoOther}
	case Verify:
		return Codes{NoServer: CodeVerifyNoServer, Other: CodeVerifyOther}
	case Annotate:
		return Codes{NoServer: CodeAnnotateNoServer, NoBackup: CodeAnnotateNoBackup, Other: CodeAnnotateOther}
	case ConfGet:
		return Codes{Other: CodeConfGetOther}
	case ConfSet:
		return Codes{Other: CodeConfSetOther}
	case Mode:
		return Codes{NoServer: CodeModeNoServer, Other: CodeModeOther}
	case Progress:
		return Codes{NoServer: CodeProgressNoServer, Other: CodeProgressOther}
	case S3Ls:
		return Codes{NoServer: CodeS3LsNoServer, Other: CodeS3LsOther}
	case S3Restore:
		return Codes{NoServer: CodeS3RestoreNoServer, Other: CodeS3RestoreOther}
	case WALCheck:
		return Codes{NoServer: CodeWALCheckNoServer, Busy: CodeWALCheckBusy, Other: CodeWALCheckFailed}
	case RepoCheck, RepoStats:
		return Codes{NoServer: CodeRepoCheckNoServer, Busy: CodeRepoCheckBusy, Other: CodeRepoCheckFailed}
	case Rehearse:
		return Codes{CodeRehearseNoServer, CodeRehearseNoBackup, CodeRehearseBusy, CodeRehearseFailed}
	case Jobs:
		return Codes{NoServer: CodeJobsNoServer, Other: CodeJobsOther}
	case ConfCheck:
		return Codes{Other: CodeConfCheckOther}
	case ConfRollback:
		return Codes{Other: CodeConfRollbackOther}
	case Retention:
		return Codes{NoServer: CodeRetentionNoServer, Busy: CodeRetentionBusy, Other: CodeRetentionFailed}
	case Schedule:
		return Codes{NoServer: CodeScheduleNoServer, Other: CodeScheduleOther}
	case Undelete:
		return Codes{NoServer: CodeUndeleteNoServer, NoBackup: CodeUndeleteNoBackup, Other: CodeUndeleteOther}
	default:
		return Codes{Other: CodeBadPayload}
	}
}
