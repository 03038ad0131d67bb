package config

import "testing"

func TestSpace(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		text        string
		free, total uint64
		want        bool
	}{
		{"", 0, 100, false}, {"0", 5, 100, false}, {"10%", 11, 100, false}, {"10%", 10, 100, true},
		{"1k", 1025, 1 << 20, false}, {"1k", 1024, 1 << 20, true}, {"50%", 1<<62 - 100, 1 << 63, true},
	} {
		s, err := parseSpace(tt.text)
		if err != nil {
			t.Error(err)
		}
		if got := s.Reached(tt.free, tt.total); got != tt.want {
			t.Errorf("%q: %d of %d free: %v, want %v", tt.text, tt.free, tt.total, got, tt.want)
		}
		if again, err := parseSpace(s.String()); again != s || err != nil {
			t.Errorf("%q comes back as %+v, %v", tt.text, again, err)
		}
	}
	for _, bad := range []string{"100%", "-1%", "x%", "10 percent"} {
		if s, err := parseSpace(bad); err == nil {
			t.Errorf("%q is accepted as %s", bad, s)
		}
	}
}
