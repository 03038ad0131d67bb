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
	short, long string // without dashes
	value       bool   // takes a value
}

// options are the options of the program.
func options() []option {
	var list []option
	for _, g := range commandLine().Groups {
		for _, o := range g.Options {
			list = append(list, option{strings.TrimPrefix(o.Short, "-"), strings.TrimPrefix(o.Long, "--"), o.Arg != ""})
		}
	}
	return list
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
	help     string
	needFile bool
	run      func(*program, *request) error
}

// commands are all commands in the order of their numbers.
func commands() []command {
	return []command{
		{"master-key", 100, "create the master key", false, (*program).masterKey},
		{"user add", 101, "add a user to the file", true, (*program).userAdd},
		{"user edit", 102, "change the password of a user", true, (*program).userEdit},
		{"user del", 103, "remove a user", true, (*program).userDelete},
		{"user ls", 104, "list the users", true, (*program).userList},
		{"master-key rotate", 105, "replace the master key and seal with the new one what the old one has sealed", false, (*program).masterKeyRotate},
		{"key rotate", 106, "give encrypted repositories a new key for what is stored from now on", false, (*program).keyRotate},
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
