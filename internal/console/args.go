package console

import (
	"fmt"
	"strings"

	"github.com/pgmoneta/pgmoneta-go/internal/cmdline"
)

// An Option is one option a program knows.
type Option struct {
	Short string // with its dash, such as "-c"; "" when there is none
	Long  string // with its dashes, such as "--config"; also the name for [Args.Value]
	Value bool   // the next word is its value
}

// Options returns the options of a program.
func Options(p *cmdline.Program) []Option {
	var list []Option
	for _, g := range p.Groups {
		for _, o := range g.Options {
			list = append(list, Option{Short: o.Short, Long: o.Long, Value: o.Arg != ""})
		}
	}
	return list
}

// Args are the arguments of one call, sorted into options and words.
type Args struct {
	Words   []string // everything that is not an option: command, sub-command and arguments
	Unknown string   // the option that ended parsing, "" when all were known

	given map[string][]string
}

// Has reports whether the option with this long name was given.
func (a *Args) Has(long string) bool { return len(a.given[long]) > 0 }

// Value returns the value of an option, of several the last one, "" when it was not given.
func (a *Args) Value(long string) string {
	values := a.given[long]
	if len(values) == 0 {
		return ""
	}
	return values[len(values)-1]
}

// Values returns all values of an option that may be repeated, in order.
func (a *Args) Values(long string) []string { return a.given[long] }

// A MissingValueError reports an option without its value. A word beginning with a dash is no value;
// --name=value takes any.
type MissingValueError struct {
	Option string // as it was written
}

func (e *MissingValueError) Error() string {
	return fmt.Sprintf("Option %s requires an argument", e.Option)
}

// ParseArgs sorts args, which do not include the program's name. After "--" everything is a word.
//
// An unknown option is no error but ends parsing: it and all that follows become the words, and
// [Args.Unknown] names it. A command line tool then meets an unknown command, the daemon starts with a warning.
func ParseArgs(options []Option, args []string) (*Args, error) {
	parsed := &Args{given: map[string][]string{}}
	for i := 0; i < len(args); i++ {
		arg := args[i]
		if arg == "--" {
			parsed.Words = append(parsed.Words, args[i+1:]...)
			return parsed, nil
		}
		if !isOption(arg) {
			parsed.Words = append(parsed.Words, arg)
			continue
		}
		opt, value, joined := find(options, arg)
		switch {
		case opt == nil:
			parsed.Unknown = arg
			parsed.Words = args[i:]
			return parsed, nil
		case opt.Value && !joined:
			if i+1 == len(args) || strings.HasPrefix(args[i+1], "-") {
				return nil, &MissingValueError{Option: arg}
			}
			i++
			value = args[i]
		}
		parsed.given[opt.Long] = append(parsed.given[opt.Long], value)
	}
	return parsed, nil
}

func isOption(arg string) bool { return len(arg) > 1 && arg[0] == '-' }

// find returns the option arg names, nil when there is none, and the value joined to it by an equals sign.
func find(options []Option, arg string) (opt *Option, value string, joined bool) {
	for i := range options {
		o := &options[i]
		if arg == o.Short || arg == o.Long {
			return o, "", false
		}
		if rest, ok := strings.CutPrefix(arg, o.Long+"="); ok && o.Value {
			return o, rest, true
		}
	}
	return nil, "", false
}
