package config

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"unicode/utf8"
)

// maxFileSize bounds what is read from a configuration file, in bytes.
const maxFileSize = 16 << 20

// Parse reads a daemon configuration. The error is a [*FileError] when the file cannot be read and [Errors] when its
// content is wrong. Environment variables are those of the process. See [Load] for the checks of the values together.
func Parse(path string) (*Config, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, err
	}
	return ParseBytes(path, data, os.LookupEnv)
}

// Load reads and validates a daemon configuration, and reports the problems of both at once.
func Load(path string) (*Config, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, err
	}
	p := newParser(path, os.LookupEnv)
	p.parse(data)
	// A value that was refused is absent from the configuration: do not report it a second time as missing.
	p.errs = append(p.errs, slices.DeleteFunc(p.config.problems(), func(v Problem) bool { return p.refused[place{v.Section, v.Key}] })...)
	if len(p.errs) > 0 {
		return nil, p.errs
	}
	return p.config, nil
}

// ParseBytes parses a daemon configuration. name is used in messages, env looks up environment variables in paths.
func ParseBytes(name string, data []byte, env func(string) (string, bool)) (*Config, error) {
	p := newParser(name, env)
	p.parse(data)
	if len(p.errs) > 0 {
		return nil, p.errs
	}
	return p.config, nil
}

// readFile reads a regular file.
func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, &FileError{path, "Configuration file not found or not a regular file", err}
	}
	if !info.Mode().IsRegular() {
		return nil, &FileError{path, "Configuration file not found or not a regular file", nil}
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, &FileError{path, "Can't read configuration file", err}
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, maxFileSize+1))
	if err != nil {
		return nil, &FileError{path, "Can't read configuration file", err}
	}
	if len(data) > maxFileSize {
		return nil, &FileError{path, fmt.Sprintf("Configuration file is larger than %d bytes", maxFileSize), nil}
	}
	return data, nil
}

// parser holds what is known while the lines of a file are read.
type parser struct {
	config     *Config
	env        func(string) (string, bool)
	main       []key[Main]
	server     []key[Server]
	errs       Errors
	refused    map[place]bool
	inSection  bool
	skipping   bool // inside a section whose header was refused
	section    string
	serverSlot int // index of the current server, -1 in the main section
}

func newParser(name string, env func(string) (string, bool)) *parser {
	home, _ := env("HOME")
	return &parser{
		config:     &Config{Path: name, Main: Defaults(home), lines: map[place]int{}, env: env},
		env:        env,
		main:       mainKeys(),
		server:     serverKeys(),
		refused:    map[place]bool{},
		serverSlot: -1,
	}
}

func (p *parser) parse(data []byte) {
	for number, raw := range lines(data) {
		p.line(number, raw)
	}
	p.config.Main.clampLevel()
}

// clampLevel brings compression_level into the range of the codec, which may stand on a later line.
func (m *Main) clampLevel() {
	if lowest, highest, ok := m.Compression.Codec.levels(); ok {
		m.CompressionLevel = min(max(m.CompressionLevel, lowest), highest)
	}
}

// problem records what is wrong with a line.
func (p *parser) problem(line int, key, value, message string) {
	p.errs = append(p.errs, Problem{p.config.Path, line, p.section, key, value, message})
	p.refused[place{p.section, key}] = true
}

func (p *parser) line(number int, raw string) {
	if message := textProblem(raw); message != "" {
		p.problem(number, "", "", message)
		return
	}
	line := cutComment(raw)
	switch {
	case line == "":
	case line[0] == '[':
		p.header(number, line)
	case !p.inSection:
		p.problem(number, "", "", "this line stands before the first section; begin with [pgmoneta]")
	case !p.skipping:
		p.assignment(number, line)
	}
}

// textProblem returns what keeps a line from being text.
func textProblem(line string) string {
	if !utf8.ValidString(line) {
		return "the line is not valid UTF-8"
	}
	if i := strings.IndexFunc(line, func(r rune) bool { return r < ' ' && r != '\t' && r != '\r' || r == 0x7f }); i >= 0 {
		return fmt.Sprintf("the line contains the control character %q", line[i])
	}
	return ""
}

func (p *parser) header(number int, line string) {
	p.inSection, p.skipping, p.section = true, true, ""
	end := strings.IndexByte(line, ']')
	if end < 0 {
		p.problem(number, "", "", "a section header needs a closing bracket: [name]")
		return
	}
	p.section = line[1:end]
	if rest := strings.TrimSpace(line[end+1:]); rest != "" {
		p.problem(number, "", "", fmt.Sprintf("unexpected text %s after the section header; write it on a line of its own", printable(rest)))
	}
	if p.section == MainSection {
		p.skipping, p.serverSlot = false, -1
		p.config.lines[place{p.section, ""}] = number
		return
	}
	p.openServer(number)
}

// openServer begins a server section.
func (p *parser) openServer(number int) {
	header := place{p.section, ""}
	if first, ok := p.config.lines[header]; ok {
		p.problem(number, "", "", fmt.Sprintf("this server is defined twice, first in line %d; rename or remove one", first))
		return
	}
	p.config.lines[header] = number
	p.skipping = false
	p.serverSlot = len(p.config.Servers)
	p.config.Servers = append(p.config.Servers, newServer(p.section))
}

// assignment handles "key = value".
func (p *parser) assignment(number int, line string) {
	name, value, hasEqual := splitAssignment(line)
	if p.serverSlot < 0 {
		assign(p, number, p.main, &p.config.Main, name, value, hasEqual)
		return
	}
	assign(p, number, p.server, &p.config.Servers[p.serverSlot], name, value, hasEqual)
}

// assign stores one value into its section.
func assign[S any](p *parser, number int, keys []key[S], section *S, name, value string, hasEqual bool) {
	i := slices.IndexFunc(keys, func(k key[S]) bool { return k.name == name })
	if i < 0 {
		p.unknownKey(number, name, hasEqual)
		return
	}
	k := keys[i]
	shown := value
	if k.secret {
		shown = ""
	}
	at := place{p.section, name}
	if first, ok := p.config.lines[at]; ok {
		p.problem(number, name, shown, fmt.Sprintf("the key stands twice in this section, first in line %d; remove one", first))
		return
	}
	p.config.lines[at] = number
	value, err := readValue(value, k.path, hasEqual, p.env)
	if err == nil {
		err = k.set(section, value)
	}
	if err != nil {
		p.problem(number, name, shown, err.Error())
	}
}

// unknownKey reports a key that the section does not have. It shows no value: the key may be a misspelt one of a password.
func (p *parser) unknownKey(number int, name string, hasEqual bool) {
	if !hasEqual {
		p.problem(number, "", "", fmt.Sprintf("%s is not a key and the line is not of the form key = value", printable(name)))
		return
	}
	mainNames, serverNames := keyNames(p.main), keyNames(p.server)
	if p.serverSlot < 0 && slices.Contains(serverNames, name) {
		// C pgmoneta lets such a line pass, so files with it are in use.
		p.config.Warnings = append(p.config.Warnings, Problem{p.config.Path, number, p.section, name, "",
			"this key belongs into a server section and is ignored here"})
		return
	}
	own, message := serverNames, "unknown key"
	if p.serverSlot < 0 {
		own = mainNames
	} else if slices.Contains(mainNames, name) {
		p.problem(number, name, "", "this key belongs into the section [pgmoneta]")
		return
	}
	if near, ok := nearest(name, own); ok {
		message += fmt.Sprintf("; did you mean %s?", near)
	} else {
		message += "; remove it, or see the list of keys in the manual"
	}
	p.problem(number, name, "", message)
}

func keyNames[S any](keys []key[S]) []string {
	names := make([]string, len(keys))
	for i, k := range keys {
		names[i] = k.name
	}
	return names
}
