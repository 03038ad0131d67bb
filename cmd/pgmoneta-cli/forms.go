package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/pgmoneta/pgmoneta-go/internal/cmdline"
	"github.com/pgmoneta/pgmoneta-go/internal/config"
	"github.com/pgmoneta/pgmoneta-go/internal/console"
	"github.com/pgmoneta/pgmoneta-go/internal/mgmt"
)

// A form is one command with its sub-command.
type form struct {
	word, sub string // sub is "" when there is none, or when it may be left out
	args      string // for the help
	help      string
	min, max  int // arguments after the words
	command   mgmt.Command
	request   func(c call) mgmt.Document
}

func (f *form) name() string { return strings.TrimSpace(f.word + " " + f.sub) }

// A call is a form with its arguments, whose number has been checked.
type call struct {
	form    *form
	words   []string
	options *console.Args
}

// word returns argument i, nil when it was left out.
func (c call) word(i int) any {
	if i >= len(c.words) {
		return nil
	}
	return c.words[i]
}

// args returns the member Request.
func (c call) args() mgmt.Document {
	args := c.form.request(c)
	if c.options.Has("--no-wait") {
		args["NoWait"] = true
	}
	return args
}

// number returns argument i as a number; one that is none is sent as it is, for the daemon to refuse.
func (c call) number(i int) any {
	n, err := strconv.ParseInt(c.words[i], 10, 64)
	if err != nil {
		return c.words[i]
	}
	return n
}

func forms() []form {
	return []form{
		{"backup", "", "[--allow-corrupt] <server> [<backup>]", "take a backup; with <backup> an incremental one based on it", 1, 2, mgmt.Backup, takeBackup},
		{"list-backup", "", "<server> [--sort asc|desc]", "list the backups of a server", 1, 2, mgmt.ListBackup, listBackup},
		{"restore", "", "[options] <server> <backup> [<position>] <directory>", "restore a backup below a directory", 3, 4, mgmt.Restore, restoreRequest},
		{"archive", "", "<server> <backup> [<position>] <directory>", "write a restorable cluster into a tar file in a directory; - is standard output, with --offline", 3, 4, mgmt.Archive, archive},
		{"delete", "", "[--force] <server> <backup>...", "delete backups, all of them or none", 2, manyWords, mgmt.Delete, deleteBackup},
		{"undelete", "", "<server> <backup>", "bring back a deleted backup that waits in the trash", 2, 2, mgmt.Undelete, serverBackup},
		{"shutdown", "", "", "stop the daemon", 0, 0, mgmt.Shutdown, nothing},
		{"status", "", "", "show servers and space", 0, 0, mgmt.Status, nothing},
		{"status", "details", "", "show servers, space and backups", 0, 0, mgmt.StatusDetails, nothing},
		{"ping", "", "", "ask whether the daemon answers", 0, 0, mgmt.Ping, nothing},
		{"clear", "prometheus", "", "set the counters of the metrics to zero", 0, 0, mgmt.Reset, nothing},
		{"conf", "reload", "", "read the configuration files again", 0, 0, mgmt.Reload, nothing},
		{"conf", "ls", "", "show the paths of the configuration files", 0, 0, mgmt.ConfLs, nothing},
		{"conf", "get", "[<key>]", "show one setting or all", 0, 1, mgmt.ConfGet, nothing},
		{"conf", "set", "<key> <value> [--save]", "change a setting until the next reload, or in the file too", 2, 2, mgmt.ConfSet, confSet},
		{"conf", "rollback", "", "bring back the file that the last conf set --save replaced", 0, 0, mgmt.ConfRollback, nothing},
		{"conf", "check", "[-c <file>]", "report every problem of a configuration file, without a daemon", 0, 0, mgmt.ConfCheck, nothing},
		{"retain", "", "[--cascade] <server> <backup>", "keep a backup whatever the retention says", 2, 2, mgmt.Retain, cascade},
		{"expunge", "", "[--cascade] <server> <backup>", "leave a backup to the retention again", 2, 2, mgmt.Expunge, cascade},
		{"decrypt", "", "<file> [-]", "decrypt a file, or with - to standard output; no daemon is needed", 1, 2, mgmt.Decrypt, file},
		{"encrypt", "", "<file>", "encrypt a file with the master key; no daemon is needed", 1, 1, mgmt.Encrypt, file},
		{"decompress", "", "<file>", "decompress a file; no daemon is needed", 1, 1, mgmt.Decompress, file},
		{"compress", "", "<file>", "compress a file; no daemon is needed", 1, 1, mgmt.Compress, file},
		{"info", "", "<server> <backup>", "show one backup", 2, 2, mgmt.Info, serverBackup},
		{"verify", "", "<server> <backup> <directory> [failed|all]", "check every file of a backup", 3, 4, mgmt.Verify, verify},
		{"annotate", "", "<server> <backup> add|update|remove <key> [<comment>]", "comment on a backup", 4, 5, mgmt.Annotate, annotate},
		{"mode", "", "<server> online|offline", "connect to a server or leave it alone", 2, 2, mgmt.Mode, mode},
		{"progress", "", "<server> backup", "show how far the running job is", 2, 2, mgmt.Progress, progress},
		{"cancel", "", "<server> [<job>]", "stop the running job, or the one of that number; - stops one about a file", 1, 2, mgmt.Progress, cancelJob},
		{"jobs", "", "[<server>] [--all]", "show the jobs that run, wait and ended", 0, 1, mgmt.Jobs, jobs},
		{"wal", "check", "<server> [--quick] [--offline]", "check the archived WAL of a server for holes and damage", 1, 1, mgmt.WALCheck, walCheck},
		{"repo", "check", "<server> [fast|full]", "check that every backup has what it refers to; full also reads it", 1, 2, mgmt.RepoCheck, repoCheck},
		{"repo", "stats", "<server>", "show what the backups of a server take and share", 1, 1, mgmt.RepoStats, serverOnly},
		{"rehearse", "", "<server> [<backup> [<position>]]", "restore a backup for proof, start PostgreSQL on it and check it; newest and latest if not said", 1, 3, mgmt.Rehearse, rehearse},
		{"retention", "", "[--dry-run] [<server>]", "delete what no rule of the retention keeps, of one server or all; with --dry-run only say what", 0, 1, mgmt.Retention, retention},
		{"schedule", "", "[<server>]", "show what the daemon does by itself, when it will and when it did", 0, 1, mgmt.Schedule, serverOnly},
		{"s3", "ls", "<server> [<prefix>]", "list objects in S3", 1, 2, mgmt.S3Ls, s3List},
		{"s3", "restore", "<server> <prefix> [<position>] <directory>", "restore from S3", 3, 4, mgmt.S3Restore, s3Restore},
		{schemaWord, "", "", "print the JSON Schema of what -F json prints", 0, 0, 0, nothing},                         // never travels
		{cmdline.Verb, "", "bash|zsh|fish", "print what makes a shell complete these command lines", 1, 1, 0, nothing}, // never travels
	}
}

func nothing(call) mgmt.Document { return mgmt.Document{} }

func serverBackup(c call) mgmt.Document {
	return mgmt.Document{"Server": c.word(0), "Backup": c.word(1)}
}

func takeBackup(c call) mgmt.Document {
	args := serverBackup(c)
	if c.options.Has("--allow-corrupt") {
		args["AllowCorrupt"] = true
	}
	return args
}

func listBackup(c call) mgmt.Document {
	order := "asc"
	if c.options.Has("--sort") {
		order = sortOrder(c.options.Value("--sort"))
	}
	return mgmt.Document{"Server": c.word(0), "Sort": order}
}

func toDirectory(c call) mgmt.Document {
	position, directory := positionAndDirectory(c)
	return mgmt.Document{"Server": c.word(0), "Backup": c.word(1), "Position": position, "Directory": directory}
}

// restoreRequest sends only what was asked for: a daemon that does not know a member passes it over.
func restoreRequest(c call) mgmt.Document {
	doc := toDirectory(c)
	for option, member := range map[string]string{"--dry-run": "DryRun", "--exact": "Exact", "--delta": "Delta", "--tablespaces-in-place": "TablespacesInPlace"} {
		if c.options.Has(option) {
			doc[member] = true
		}
	}
	for option, member := range map[string]string{"--wal": "WAL", "--waldir": "WALDirectory", "--owner": "Owner"} {
		if c.options.Has(option) {
			doc[member] = c.options.Value(option)
		}
	}
	if c.options.Has("--tablespace") {
		doc["Tablespaces"] = c.options.Values("--tablespace")
	}
	for option, member := range map[string]string{"--workers": "Workers", "--max-rate": "MaxRate"} {
		if n, err := config.ParseSize(c.options.Value(option)); c.options.Has(option) && err == nil { // checkOptions refuses others
			doc[member] = n
		}
	}
	return doc
}

// positionAndDirectory returns the third and fourth argument; alone it is the directory.
func positionAndDirectory(c call) (position, directory any) {
	if len(c.words) < 4 {
		return nil, c.word(2)
	}
	return c.word(2), c.word(3)
}

func archive(c call) mgmt.Document {
	args := toDirectory(c)
	if c.options.Has("--plain") {
		args["Plain"] = true
	}
	return args
}

// manyWords is more arguments than a command line has.
const manyWords = 1 << 20

// deleteBackup names one backup as 0.22 does. Several are sent under another name, so that
// a daemon that does not know it deletes nothing rather than the first.
func deleteBackup(c call) mgmt.Document {
	args := mgmt.Document{"Server": c.word(0), "Force": c.options.Has("--force")}
	if len(c.words) == 2 {
		args["Backup"] = c.word(1)
	} else {
		args["Backups"] = c.words[1:]
	}
	return args
}

func cascade(c call) mgmt.Document {
	return mgmt.Document{"Server": c.word(0), "Backup": c.word(1), "Cascade": c.options.Has("--cascade")}
}

func confSet(c call) mgmt.Document {
	args := mgmt.Document{"ConfigKey": c.word(0), "ConfigValue": c.word(1)}
	if c.options.Has("--save") {
		args["Save"] = true
	}
	return args
}

func file(c call) mgmt.Document { return mgmt.Document{"SourceFile": c.word(0)} }

func verify(c call) mgmt.Document {
	files := c.word(3)
	if files == nil {
		files = "failed"
	}
	return mgmt.Document{"Server": c.word(0), "Backup": c.word(1), "Directory": c.word(2), "Files": files}
}

func annotate(c call) mgmt.Document {
	return mgmt.Document{"Server": c.word(0), "Backup": c.word(1), "Action": c.word(2), "Key": c.word(3), "Comment": c.word(4)}
}

func mode(c call) mgmt.Document {
	return mgmt.Document{"Server": c.word(0), "Action": c.word(1)}
}

func progress(c call) mgmt.Document {
	return mgmt.Document{"Server": c.word(0), "Command": c.word(1)}
}

// noServer stands for the server of jobs about files, which have none.
const noServer = "-"

func cancelJob(c call) mgmt.Document {
	args := mgmt.Document{"Server": c.word(0), "Command": "backup", "Cancel": true}
	if args["Server"] == noServer {
		delete(args, "Server")
	}
	if len(c.words) > 1 {
		args["Job"] = c.number(1)
	}
	return args
}

func jobs(c call) mgmt.Document {
	args := mgmt.Document{}
	if server := c.word(0); server != nil {
		args["Server"] = server
	}
	if c.options.Has("--all") {
		args["All"] = true
	}
	return args
}

func walCheck(c call) mgmt.Document {
	return mgmt.Document{"Server": c.word(0), "Quick": c.options.Has("--quick")}
}

func repoCheck(c call) mgmt.Document {
	return mgmt.Document{"Server": c.word(0), "Mode": c.word(1)}
}

func serverOnly(c call) mgmt.Document { return mgmt.Document{"Server": c.word(0)} }

func rehearse(c call) mgmt.Document {
	return mgmt.Document{"Server": c.word(0), "Backup": c.word(1), "Position": c.word(2)}
}

func retention(c call) mgmt.Document {
	return mgmt.Document{"Server": c.word(0), "DryRun": c.options.Has("--dry-run")}
}

func s3List(c call) mgmt.Document {
	args := mgmt.Document{"Server": c.word(0)}
	if prefix := c.word(1); prefix != nil {
		args["S3Prefix"] = prefix
	}
	return args
}

func s3Restore(c call) mgmt.Document {
	position, directory := positionAndDirectory(c)
	return mgmt.Document{"Server": c.word(0), "S3Prefix": c.word(1), "Position": position, "Directory": directory}
}

// A usageError is a command line that is no command.
type usageError struct {
	message string
	help    string // of the command, or everything
}

func (e *usageError) Error() string { return e.message }

// match finds the form the words begin with and returns its arguments.
func match(words []string) (*form, []string, *usageError) {
	if len(words) == 0 {
		return nil, nil, &usageError{"A command is required", usage()}
	}
	word := words[0]
	var same []form
	for _, f := range forms() {
		if f.word == word {
			same = append(same, f)
		}
	}
	if len(same) == 0 {
		return nil, nil, &usageError{fmt.Sprintf("Unknown command '%s'", word), usage()}
	}
	f, args, message := choose(same, words[1:])
	if message != "" {
		return nil, nil, &usageError{message, formHelp(same)}
	}
	return f, args, nil
}

// choose picks among the forms of one command by the sub-command and checks the number of arguments.
func choose(same []form, args []string) (f *form, rest []string, message string) {
	for i := range same {
		if sub := same[i].sub; sub != "" && len(args) > 0 && args[0] == sub {
			return count(&same[i], args[1:])
		}
	}
	for i := range same {
		if same[i].sub == "" {
			return count(&same[i], args)
		}
	}
	if len(args) == 0 {
		return nil, nil, fmt.Sprintf("Command '%s' requires a subcommand", same[0].word)
	}
	return nil, nil, fmt.Sprintf("Unknown subcommand '%s' for command '%s'", args[0], same[0].word)
}

func count(f *form, args []string) (*form, []string, string) {
	switch {
	case len(args) < f.min:
		return nil, nil, fmt.Sprintf("Too few arguments provided for command '%s'", f.name())
	case len(args) > f.max:
		return nil, nil, fmt.Sprintf("Too many arguments provided for command '%s'", f.name())
	default:
		return f, args, ""
	}
}
