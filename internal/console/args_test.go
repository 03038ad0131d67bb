package console

import (
	"errors"
	"reflect"
	"testing"
)

func testOptions() []Option {
	return []Option{
		{Short: "-c", Long: "--config", Value: true},
		{Short: "-v", Long: "--verbose"},
		{Long: "--force"},
		{Short: "-RD", Long: "--databases", Value: true},
	}
}

func TestParseArgs(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		in      []string
		words   []string
		config  string
		verbose bool
		unknown string
	}{
		{"nothing", nil, nil, "", false, ""},
		{"options first", []string{"-c", "f", "-v", "ping"}, []string{"ping"}, "f", true, ""},
		{"options anywhere", []string{"delete", "a", "--verbose", "b", "--config", "f"}, []string{"delete", "a", "b"}, "f", true, ""},
		{"last value wins", []string{"-c", "a", "--config", "b"}, nil, "b", false, ""},
		{"value after an equals sign", []string{"--config=-x", "ping"}, []string{"ping"}, "-x", false, ""},
		{"empty value", []string{"--config=", "ping"}, []string{"ping"}, "", false, ""},
		{"no bundling", []string{"ping", "-vc", "f"}, []string{"-vc", "f"}, "", false, "-vc"},
		{"short with an equals sign", []string{"-c=f"}, []string{"-c=f"}, "", false, "-c=f"},
		{"flag with a value", []string{"--verbose=yes"}, []string{"--verbose=yes"}, "", false, "--verbose=yes"},
		{"unknown ends parsing", []string{"-v", "--bogus", "-c", "f"}, []string{"--bogus", "-c", "f"}, "", true, "--bogus"},
		{"no short option", []string{""}, []string{""}, "", false, ""},
		{"a dash is a word", []string{"a", "-"}, []string{"a", "-"}, "", false, ""},
		{"words after two dashes", []string{"-v", "a", "--", "-c", "--"}, []string{"a", "-c", "--"}, "", true, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := ParseArgs(testOptions(), tt.in)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got.Words, tt.words) || got.Unknown != tt.unknown {
				t.Errorf("ParseArgs(%q): words %q unknown %q, want %q %q", tt.in, got.Words, got.Unknown, tt.words, tt.unknown)
			}
			if got.Value("--config") != tt.config || got.Has("--verbose") != tt.verbose {
				t.Errorf("ParseArgs(%q): config %q verbose %t, want %q %t",
					tt.in, got.Value("--config"), got.Has("--verbose"), tt.config, tt.verbose)
			}
		})
	}
}

func TestParseArgsCollectsRepeatedOptions(t *testing.T) {
	t.Parallel()
	got, err := ParseArgs(testOptions(), []string{"-RD", "a", "--databases", "b"})
	if err != nil || !reflect.DeepEqual(got.Values("--databases"), []string{"a", "b"}) {
		t.Errorf("Values = %q, %v, want a and b", got.Values("--databases"), err)
	}
}

func TestParseArgsMissingValue(t *testing.T) {
	t.Parallel()
	for _, in := range [][]string{{"-c"}, {"ping", "-c"}, {"-c", "-v"}, {"-c", "-5"}, {"-c", "--"}} {
		_, err := ParseArgs(testOptions(), in)
		var missing *MissingValueError
		if !errors.As(err, &missing) || err.Error() != "Option -c requires an argument" {
			t.Errorf("ParseArgs(%q) = %v, want -c to miss its value", in, err)
		}
	}
}
