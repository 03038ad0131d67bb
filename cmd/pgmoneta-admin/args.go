package main

import (
	"fmt"
	"slices"
	"strings"
)

// complaint is a message in the words of C pgmoneta, which begin with a capital letter.
type complaint string

func (c complaint) Error() string { return string(c) }

func complain(format string, args ...any) error { return complaint(fmt.Sprintf(format, args...)) }

// option is one option of the command line.
type option struct {
	short, long string
	value       bool // takes a value
}

// options are the options of the program by their long names.
func options() []option {
	return []option{
		{"f", "file", true},
		{"U", "user", true},
		{"P", "password", true},
		{"g", "generate", false},
		{"l", "length", true},
		{"F", "format", true},
		{"c", "config", true},
		{"D", "directory", true},
		{"s", "server", true},
		{"V", "version", false},
		{"?", "help", false},
	}
}

// arguments is a parsed command line.
type arguments struct {
	values  map[string]string // by long name; options without value are empty but present
	words   []string
	unknown string // first unknown option; it and all after it are words
}

func (a *arguments) has(name string) bool {
	_, ok := a.values[name]
	return ok
}

// parseArguments reads a command line: options may stand anywhere, the last of several counts. A value is the next word, which must not begin with a
// dash, or follows an equal sign. An unknown option ends the options.
func parseArguments(args []string) (*arguments, error) {
	a := &arguments{values: map[string]string{}}
	for i := 0; i < len(args); i++ {
		word := args[i]
		if len(word) < 2 || word[0] != '-' {
			a.words = append(a.words, word)
			continue
		}
		o, value, inline, ok := lookup(word)
		switch {
		case !ok:
			a.unknown = word
			a.words = append(a.words, args[i:]...)
			return a, nil
		case !o.value || inline:
			a.values[o.long] = value
		case i+1 == len(args) || strings.HasPrefix(args[i+1], "-"):
			return nil, complain("Error: Option %s requires an argument", word)
		default:
			i++
			a.values[o.long] = args[i]
		}
	}
	return a, nil
}

// lookup finds the option a word names and splits off a value after an equal sign.
func lookup(word string) (o option, value string, inline, ok bool) {
	name, value, inline := strings.Cut(word, "=")
	for _, o := range options() {
		if (name == "-"+o.short || name == "--"+o.long) && (o.value || !inline) {
			return o, value, inline, true
		}
	}
	return option{}, "", false, false
}

// command is one command of the program.
type command struct {
	name     string // as typed
	code     int    // number in the document
	needFile bool
	run      func(*program, *request) error
}

// commands are all commands in the order of their numbers.
func commands() []command {
	return []command{
		{"master-key", 100, false, (*program).masterKey},
		{"user add", 101, true, (*program).userAdd},
		{"user edit", 102, true, (*program).userEdit},
		{"user del", 103, true, (*program).userDelete},
		{"user ls", 104, true, (*program).userList},
		{"master-key rotate", 105, false, (*program).masterKeyRotate},
		{"key rotate", 106, false, (*program).keyRotate},
	}
}

// findCommand returns the command of the words, or what is wrong with them.
func findCommand(words []string) (command, error) {
	if len(words) == 0 {
		return command{}, complain("A command is required")
	}
	var sub bool
	for _, c := range commands() {
		first, second, _ := strings.Cut(c.name, " ")
		if first != words[0] {
			continue
		}
		if second == "" {
			if len(words) > 1 && hasCommand(words[0]+" "+words[1]) {
				continue
			}
			return exactWords(c, words, 1)
		}
		sub = true
		if len(words) > 1 && words[1] == second {
			return exactWords(c, words, 2)
		}
	}
	switch {
	case !sub:
		return command{}, complain("Unknown command '%s'", words[0])
	case len(words) == 1:
		return command{}, complain("Command '%s' requires a subcommand", words[0])
	}
	return command{}, complain("Unknown subcommand '%s' for command '%s'", words[1], words[0])
}

func hasCommand(name string) bool {
	return slices.ContainsFunc(commands(), func(c command) bool { return c.name == name })
}

func exactWords(c command, words []string, n int) (command, error) {
	if len(words) > n {
		return command{}, complain("Too many arguments provided for command '%s'", c.name)
	}
	return c, nil
}
