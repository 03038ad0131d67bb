package mgmt

import "fmt"

// A Code is the number sent as Outcome.Error.
type Code int

// The codes of pgmoneta 0.22. Those ending in NoFork, Network or Allocation name causes inside the C program
// that no longer exist; they are kept so that every number has its name.
const (
	CodeBadPayload     Code = 1
	CodeUnknownCommand Code = 2
	CodeAllocation     Code = 3

	CodeBackupNotValid   Code = 100 // the server does not meet the requirements
	CodeBackupNoWAL      Code = 101 // WAL is not being streamed
	CodeBackupActive     Code = 102 // another job holds the server
	CodeBackupNoBackups  Code = 103 // no backup to base an incremental one on
	CodeBackupNoScan     Code = 104 // cannot look for children of the base
	CodeBackupHasChild   Code = 105 // the base already has a child
	CodeBackupSetup      Code = 106
	CodeBackupExecute    Code = 107
	CodeBackupTeardown   Code = 108
	CodeBackupNetwork    Code = 109
	CodeBackupOffline    Code = 110
	CodeBackupNoServer   Code = 111
	CodeBackupNoFork     Code = 112
	CodeBackupOther      Code = 113
	CodeIncrementalSetup Code = 200
	CodeIncrementalExec  Code = 201
	CodeIncrementalTear  Code = 202

	CodeListQueue       Code = 300
	CodeListBackups     Code = 301 // the backups cannot be read
	CodeListJSON        Code = 302
	CodeListNetwork     Code = 303
	CodeListNoServer    Code = 304
	CodeListNoFork      Code = 305
	CodeListInvalidSort Code = 306
	CodeListOther       Code = 307

	CodeDeleteSetup    Code = 400
	CodeDeleteExecute  Code = 401
	CodeDeleteTeardown Code = 402
	CodeDeleteNoServer Code = 403
	CodeDeleteNoFork   Code = 404
	CodeDeleteNetwork  Code = 405
	CodeDeleteOther    Code = 406

	CodeDeleteBackupSetup    Code = 500
	CodeDeleteBackupExecute  Code = 501
	CodeDeleteBackupTeardown Code = 502
	CodeDeleteBackupActive   Code = 503
	CodeDeleteBackupNone     Code = 504 // the server has no backups
	CodeDeleteBackupNoSuch   Code = 505
	CodeDeleteBackupRetained Code = 506 // the keep flag protects it
	CodeDeleteBackupRollup   Code = 507
	CodeDeleteBackupRemove   Code = 508
	CodeDeleteBackupOther    Code = 509

	CodeRestoreNoBackup Code = 600 // no such backup, or a position that makes no sense
	CodeRestoreFailed   Code = 601 // whatever ended the restore
	CodeRestoreActive   Code = 602
	CodeRestoreNoServer Code = 603
	CodeRestoreSetup    Code = 604
	CodeRestoreExecute  Code = 605
	CodeRestoreTeardown Code = 606
	CodeRestoreNoFork   Code = 607
	CodeRestoreNetwork  Code = 608
	CodeRestoreOther    Code = 609

	CodeCombineSetup    Code = 700
	CodeCombineExecute  Code = 701
	CodeCombineTeardown Code = 702

	CodeVerifyNoServer Code = 800
	CodeVerifySetup    Code = 801
	CodeVerifyExecute  Code = 802
	CodeVerifyTeardown Code = 803
	CodeVerifyNoFork   Code = 804
	CodeVerifyNetwork  Code = 805
	CodeVerifyOther    Code = 806

	CodeArchiveNoBackup Code = 900
	CodeArchiveNoServer Code = 901
	CodeArchiveActive   Code = 902
	CodeArchiveSetup    Code = 903
	CodeArchiveExecute  Code = 904
	CodeArchiveTeardown Code = 905
	CodeArchiveNoFork   Code = 906
	CodeArchiveNetwork  Code = 907
	CodeArchiveOther    Code = 908

	CodeStatusNoFork   Code = 1000
	CodeStatusNetwork  Code = 1001
	CodeDetailsNoFork  Code = 1100
	CodeDetailsNetwork Code = 1101

	CodeRetainNoBackup  Code = 1200
	CodeRetainNoServer  Code = 1201
	CodeRetainNoFork    Code = 1202
	CodeRetainNetwork   Code = 1203
	CodeRetainOther     Code = 1204
	CodeExpungeNoBackup Code = 1300
	CodeExpungeNoServer Code = 1301
	CodeExpungeNoFork   Code = 1302
	CodeExpungeNetwork  Code = 1303
	CodeExpungeOther    Code = 1304

	CodeDecryptNoFile  Code = 1400
	CodeDecryptNoFork  Code = 1401
	CodeDecryptNetwork Code = 1402
	CodeDecryptOther   Code = 1403
	CodeEncryptNoFile  Code = 1500
	CodeEncryptNoFork  Code = 1501
	CodeEncryptNetwork Code = 1502
	CodeEncryptOther   Code = 1503

	CodeGzipNoFile   Code = 1600
	CodeGzipNoFork   Code = 1601
	CodeGzipNetwork  Code = 1602
	CodeGzipOther    Code = 1603
	CodeZstdNoFile   Code = 1700
	CodeZstdNoFork   Code = 1701
	CodeZstdNetwork  Code = 1702
	CodeZstdOther    Code = 1703
	CodeLZ4NoFile    Code = 1800
	CodeLZ4NoFork    Code = 1801
	CodeLZ4Network   Code = 1802
	CodeLZ4Other     Code = 1803
	CodeBzip2NoFile  Code = 1900
	CodeBzip2NoFork  Code = 1901
	CodeBzip2Network Code = 1902
	CodeBzip2Other   Code = 1903

	CodeDecompressNoFork  Code = 2000
	CodeDecompressUnknown Code = 2001 // no compression is configured
	CodeCompressNoFork    Code = 2100
	CodeCompressUnknown   Code = 2101

	CodeInfoNoBackup Code = 2200
	CodeInfoNoServer Code = 2201
	CodeInfoNoFork   Code = 2202
	CodeInfoNetwork  Code = 2203
	CodeInfoOther    Code = 2204

	CodeRetentionSetup    Code = 2302
	CodeRetentionExecute  Code = 2303
	CodeRetentionTeardown Code = 2304
	CodeRetentionOther    Code = 2305
	CodeShippingSetup     Code = 2402
	CodeShippingExecute   Code = 2403
	CodeShippingTeardown  Code = 2404

	CodeAnnotateNoBackup      Code = 2500
	CodeAnnotateNoServer      Code = 2501
	CodeAnnotateNoFork        Code = 2502
	CodeAnnotateFailed        Code = 2503
	CodeAnnotateNetwork       Code = 2504
	CodeAnnotateOther         Code = 2505
	CodeAnnotateUnknownAction Code = 2506

	CodeConfGetNoFork  Code = 2600
	CodeConfGetNetwork Code = 2602
	CodeConfGetOther   Code = 2603

	CodeConfSetNoFork        Code = 2700
	CodeConfSetNoRequest     Code = 2701
	CodeConfSetNoKeyOrValue  Code = 2702
	CodeConfSetNoResponse    Code = 2703
	CodeConfSetUnknownKey    Code = 2704
	CodeConfSetUnknownServer Code = 2705
	CodeConfSetNetwork       Code = 2706
	CodeConfSetOther         Code = 2707 // every refusal of a key or a value

	CodeModeNoServer      Code = 2800
	CodeModeNoFork        Code = 2801
	CodeModeFailed        Code = 2802
	CodeModeNetwork       Code = 2803
	CodeModeOther         Code = 2804
	CodeModeUnknownAction Code = 2805

	CodeS3LsNoServer Code = 2900
	CodeS3LsNoFork   Code = 2901
	CodeS3LsWorkflow Code = 2902 // also: no S3 engine configured
	CodeS3LsJSON     Code = 2903
	CodeS3LsNetwork  Code = 2904
	CodeS3LsOther    Code = 2905

	CodeProgressNoServer Code = 3000
	CodeProgressNoFork   Code = 3001
	CodeProgressNetwork  Code = 3002
	CodeProgressOther    Code = 3003

	CodeS3RestoreNoServer Code = 3100
	CodeS3RestoreNoFork   Code = 3101
	CodeS3RestoreWorkflow Code = 3102
	CodeS3RestoreNetwork  Code = 3103
	CodeS3RestoreOther    Code = 3104
)

// The codes of commands that pgmoneta 0.22 does not know begin at 4000.
const (
	CodeWALCheckNoServer Code = 4000
	CodeWALCheckFailed   Code = 4001 // the archive could not be checked
	CodeWALCheckFound    Code = 4002 // it was, and is not whole
	CodeWALCheckBusy     Code = 4003 // a check of this server runs already

	CodeRepoCheckNoServer Code = 4100
	CodeRepoCheckFailed   Code = 4101 // the repository could not be checked
	CodeRepoCheckFound    Code = 4102 // it was, and is not whole
	CodeRepoCheckBusy     Code = 4103 // another job holds the server

	CodeRehearseNoServer Code = 4200
	CodeRehearseFailed   Code = 4201 // there could be no rehearsal
	CodeRehearseUnproven Code = 4202 // there was one, and it proves nothing
	CodeRehearseBusy     Code = 4203 // another job holds the server
	CodeRehearseNoBackup Code = 4204 // or no such position

	CodeJobsNoServer Code = 4300
	CodeJobsOther    Code = 4301

	CodeConfCheckFound    Code = 4302 // problems
	CodeConfCheckOther    Code = 4303 // the file could not be read
	CodeConfRollbackNone  Code = 4304 // no former file is kept
	CodeConfRollbackOther Code = 4305

	CodeRetentionNoServer Code = 4400
	CodeRetentionFailed   Code = 4401
	CodeRetentionBusy     Code = 4402 // another job holds the server
	CodeScheduleNoServer  Code = 4410
	CodeScheduleOther     Code = 4411
	CodeUndeleteNoServer  Code = 4420
	CodeUndeleteNoBackup  Code = 4421 // no such backup in the trash
	CodeUndeleteOther     Code = 4422
)

// WorkflowMain is the part that answers when no step of a job was reached.
const WorkflowMain = "main"

// An Error is a refused or failed request. A [Handler] returns it to choose what the client is told;
// a client gets it from [Outcome.Err].
type Error struct {
	Code         Code     // sent as Outcome.Error
	Workflow     string   // the part that failed, "" for WorkflowMain
	Server       string   // sent as Response.Server, "" for the server that was asked for
	WorkerErrors []string // what parallel workers reported
	Response     Document // further members of Response
	Err          error    // its text is sent as Outcome.Message
}

func (e *Error) Error() string {
	return fmt.Sprintf("%s (error %d)", e.reason(), int(e.Code))
}

func (e *Error) reason() string {
	if e.Err == nil {
		return "refused by " + e.workflow()
	}
	return e.Err.Error()
}

func (e *Error) workflow() string {
	if e.Workflow == "" {
		return WorkflowMain
	}
	return e.Workflow
}

func (e *Error) Unwrap() error { return e.Err }
