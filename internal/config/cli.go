package config

import (
	"fmt"
	"log/slog"
	"os"
	"strings"

	"github.com/pgmoneta/pgmoneta-go/internal/logging"
)

// A CLI is a parsed pgmoneta_cli.conf.
type CLI struct {
	Host          string // remote daemon
	Port          int    // 0 none
	UnixSocketDir string // local daemon
	LogType       LogType
	LogLevel      slog.Level
	LogPath       string
	LogMode       LogMode
	Output        Output
	OutputSet     bool       // somebody asked for Output
	Compression   Codec      // of the management protocol
	Encryption    Encryption // of the management protocol
}

// Output is the default format of the command line program.
type Output int

// Output formats, with the numbers of the management protocol.
const (
	OutputText Output = 0
	OutputJSON Output = 1
	OutputRaw  Output = 2
)

// String returns the word of the key output.
func (o Output) String() string {
	return enumName(o, map[Output]string{OutputText: "text", OutputJSON: "json", OutputRaw: "raw"})
}

// DefaultCLI returns what holds when no file is loaded. A file starts from no compression and no encryption instead, as in C pgmoneta.
func DefaultCLI() CLI {
	c := emptyCLI()
	c.Compression, c.Encryption = Zstd, AES256
	return c
}

func emptyCLI() CLI { return CLI{LogLevel: logging.LevelInfo, LogMode: LogAppend} }

// ParseCLI reads a configuration of pgmoneta-cli. Section headers and unknown keys are skipped and the last value of a key counts. The
// file may be a pgmoneta.conf: of one with a section [pgmoneta] only that section is read. Bad values and malformed lines are reported together as [Errors].
func ParseCLI(path string) (*CLI, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, err
	}
	return ParseCLIBytes(path, data, os.LookupEnv)
}

// ParseCLIBytes parses a configuration of pgmoneta-cli. name is used in messages, env looks up environment variables in paths.
func ParseCLIBytes(name string, data []byte, env func(string) (string, bool)) (*CLI, error) {
	cli := emptyCLI()
	var errs Errors
	daemon, ours := isDaemonFile(data), true
	for number, raw := range lines(data) {
		if header := strings.TrimSpace(raw); strings.HasPrefix(header, "[") {
			ours = !daemon || strings.HasPrefix(header, "["+MainSection+"]")
		}
		if !ours {
			continue // a server's host and port are not the daemon's
		}
		if p := cli.line(raw, env); p.Message != "" {
			p.File, p.Line = name, number
			errs = append(errs, p)
		}
	}
	if len(errs) > 0 {
		return nil, errs
	}
	return &cli, nil
}

// isDaemonFile reports whether data is a pgmoneta.conf, of which only the main
// section counts here.
func isDaemonFile(data []byte) bool {
	for _, raw := range lines(data) {
		if strings.HasPrefix(strings.TrimSpace(raw), "["+MainSection+"]") {
			return true
		}
	}
	return false
}

// line reads one line and returns a Problem without a message when it is good.
func (c *CLI) line(raw string, env func(string) (string, bool)) Problem {
	if message := textProblem(raw); message != "" {
		return Problem{Message: message}
	}
	line := cutComment(raw)
	if line == "" || line[0] == '[' {
		return Problem{}
	}
	name, rest, hasEqual := splitAssignment(line)
	for _, k := range cliKeys() {
		if k.name != name {
			continue
		}
		value, err := readValue(rest, k.path, hasEqual, env)
		if err == nil {
			err = k.set(c, value)
		}
		if err != nil {
			return Problem{Key: name, Value: rest, Message: err.Error()}
		}
		return Problem{}
	}
	if !hasEqual && !isDaemonPath(name) {
		return Problem{Message: fmt.Sprintf("%s is not a key and the line is not of the form key = value", printable(name))}
	}
	return Problem{}
}

// isDaemonPath reports whether name is a key of pgmoneta.conf that may stand without an equal sign.
func isDaemonPath(name string) bool {
	for _, k := range mainKeys() {
		if k.name == name {
			return k.path
		}
	}
	return false
}

func cliKeys() []key[CLI] {
	output := enum("output", func(c *CLI) *Output { return &c.Output }, []word[Output]{{"text", OutputText}, {"json", OutputJSON}, {"raw", OutputRaw}})
	set := output.set
	output.set = func(c *CLI, value string) error {
		c.OutputSet = true
		return set(c, value)
	}
	return []key[CLI]{
		text("host", func(c *CLI) *string { return &c.Host }),
		custom("port", func(c *CLI) *int { return &c.Port }, parseCLIPort, func(n int) string { return fmt.Sprint(n) }),
		path("unix_socket_dir", func(c *CLI) *string { return &c.UnixSocketDir }),
		enum("log_type", func(c *CLI) *LogType { return &c.LogType }, logTypeWords),
		custom("log_level", func(c *CLI) *slog.Level { return &c.LogLevel }, logging.ParseLevel, levelWord),
		path("log_path", func(c *CLI) *string { return &c.LogPath }),
		enum("log_mode", func(c *CLI) *LogMode { return &c.LogMode }, logModeWords),
		output,
		custom("compression", func(c *CLI) *Codec { return &c.Compression }, ParseWireCodec, Codec.String),
		custom("encryption", func(c *CLI) *Encryption { return &c.Encryption }, ParseWireEncryption, Encryption.String),
	}
}

// parseCLIPort reads a port; a negative one means none.
func parseCLIPort(value string) (int, error) {
	if n, err := parseInt(value); err == nil && n < 0 {
		return 0, nil
	}
	return parsePort(value)
}

// ParseWireCodec reads a compression of the management protocol: gz, zstd, lz4, bz2 or none, in any case. The words of pgmoneta.conf are accepted too.
func ParseWireCodec(value string) (Codec, error) {
	codec, err := parseWord(value, []word[Codec]{{"none", None}, {"gz", Gzip}, {"zstd", Zstd}, {"lz4", LZ4}, {"bz2", Bzip2}})
	if err == nil {
		return codec, nil
	}
	if c, daemonErr := parseWord(value, compressionWords); daemonErr == nil {
		return c.Codec, nil
	}
	return None, err
}

// ParseWireEncryption reads an encryption of the management protocol: none, aes, aes256, aes192 or aes128, each also with
// the ending -gcm, in any case. The words of pgmoneta.conf are accepted too.
func ParseWireEncryption(value string) (Encryption, error) {
	if e, err := parseWord(value, encryptionWords); err == nil {
		return e, nil
	}
	return parseWord(value, []word[Encryption]{
		{"none", EncryptionNone}, {"aes", AES256}, {"aes256", AES256}, {"aes192", AES192}, {"aes128", AES128},
		{"aes-gcm", AES256}, {"aes256-gcm", AES256}, {"aes192-gcm", AES192}, {"aes128-gcm", AES128},
	})
}
