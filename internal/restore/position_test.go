package restore

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestParsePosition(t *testing.T) {
	berlin := time.FixedZone("CET", 3600)
	noon := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	tests := []struct {
		in   string
		want Target
	}{
		{"", Target{}},
		{" , ", Target{}},
		{"primary", Target{}},
		{"replica", Target{Replica: true}},
		{"current", Target{Kind: TargetImmediate}},
		{"immediate,action=promote", Target{Kind: TargetImmediate, Action: Promote}},
		{"latest", Target{Kind: TargetLatest}},
		{"timeline=latest", Target{Kind: TargetLatest}},
		{"timeline=", Target{Kind: TargetLatest}},
		{"timeline=3", Target{Kind: TargetLatest, Timeline: 3}},
		{"timeline=current", Target{Kind: TargetLatest, OwnTimeline: true}},
		{"latest,action=promote", Target{Kind: TargetLatest, Action: Promote}},
		{"timeline=2, name=before the update", Target{Kind: TargetName, Name: "before the update", Timeline: 2}},
		{"inclusive=off,xid=1234", Target{Kind: TargetXID, XID: 1234, Exclusive: true}},
		{"lsn=1/a2000000,inclusive=", Target{Kind: TargetLSN, LSN: 0x1_A200_0000}},
		{"lsn=0/1,inclusive=TRUE,action=shutdown", Target{Kind: TargetLSN, LSN: 1, Action: Shutdown}},
		{"lsn=0/1,inclusive=0,action=", Target{Kind: TargetLSN, LSN: 1, Exclusive: true, Action: Pause}},
		{"time=2026-11-21 13:00:00", Target{Kind: TargetTime, Time: noon}},
		{"time=2026-11-21T13:00:00", Target{Kind: TargetTime, Time: noon}},
		{"time=2026-11-21 12:00:00Z", Target{Kind: TargetTime, Time: noon}},
		{"time=2026-11-21 12:00:00 UTC", Target{Kind: TargetTime, Time: noon}},
		{"time=2026-11-21 14:00:00+02", Target{Kind: TargetTime, Time: noon}},
		{"time=2026-11-21 17:30:00 +05:30", Target{Kind: TargetTime, Time: noon}},
		{"time=2026-11-21T04:00:00.123456-0800", Target{Kind: TargetTime, Time: noon.Add(123456 * time.Microsecond)}},
		{"replica,port=5433,primary_conninfo=host=a port=1", Target{Replica: true,
			Settings: []Setting{{"port", "5433"}, {"primary_conninfo", "host=a port=1"}}}},
		{"pg_stat_statements.max=5", Target{Settings: []Setting{{"pg_stat_statements.max", "5"}}}},
	}
	for _, tt := range tests {
		t.Run(tt.in, func(t *testing.T) {
			got, err := parsePosition(tt.in, berlin)
			if err != nil || !reflect.DeepEqual(got, tt.want) {
				t.Errorf("parsePosition(%q) = %+v, %v; want %+v", tt.in, got, err, tt.want)
			}
			again, err := parsePosition(got.String(), time.UTC)
			if err != nil || !reflect.DeepEqual(again, got) {
				t.Errorf("%q was written as %q, which reads as %+v, %v", tt.in, got.String(), again, err)
			}
		})
	}
}

func TestParsePositionNamesTheWord(t *testing.T) {
	tests := []struct{ in, word, want string }{
		{"newest", "newest", "want current, immediate, latest"},
		{"lsn=1/0,xid=5", "xid=5", `"lsn=1/0"`},
		{"current,immediate", "immediate", `"current"`},
		{"latest,time=2026-11-21 12:00:00", "time=2026-11-21 12:00:00", `"latest"`},
		{"primary,replica", "replica", `"primary"`},
		{"inclusive=on,lsn=0/1,inclusive=off", "inclusive=off", "repeats"},
		{"port=1,port=2", "port=2", "repeats"},
		{"lsn=zz", "lsn=zz", "lsn=1/A2000000"},
		{"lsn=0/0", "lsn=0/0", "lsn=1/A2000000"},
		{"lsn=", "lsn=", "lsn=1/A2000000"},
		{"xid=-1", "xid=-1", "decimal"},
		{"xid=2", "xid=2", "decimal"},
		{"xid=0x10", "xid=0x10", "decimal"},
		{"name=", "name=", "restore point"},
		{"name=" + strings.Repeat("n", 64), "name=" + strings.Repeat("n", 64), "63 bytes"},
		{"time=yesterday", "time=yesterday", "2026-11-21T12:00:00Z"},
		{"time=2026-11-21", "time=2026-11-21", "2026-11-21T12:00:00Z"},
		{"time=2026-13-21 12:00:00", "time=2026-13-21 12:00:00", "2026-11-21T12:00:00Z"},
		{"time=2026-11-21 12:00:00 CEST", "time=2026-11-21 12:00:00 CEST", "2026-11-21T12:00:00Z"},
		{"timeline=0", "timeline=0", "number from 1"},
		{"timeline=newest", "timeline=newest", "number from 1"},
		{"lsn=0/1,action=stop", "action=stop", "action=pause"},
		{"action=promote", "action=promote", "needs a target"},
		{"latest,action=shutdown", "action=shutdown", "needs a target"},
		{"inclusive=off", "inclusive=off", "needs xid="},
		{"name=x,inclusive=off", "inclusive=off", "needs xid="},
		{"lsn=0/1,inclusive=maybe", "inclusive=maybe", "inclusive=on"},
		{"latest=1", "latest=1", "no value"},
		{"Port=1", "Port=1", "key=value"},
		{"=1", "=1", "key=value"},
		{"a b=1", "a b=1", "key=value"},
		{"recovery_target_lsn=0/1", "recovery_target_lsn=0/1", "use name="},
		{"port=1\nssl=on", "port=1\nssl=on", "control characters"},
		{"name=a\x00b", "name=a\x00b", "control characters"},
	}
	for _, tt := range tests {
		t.Run(tt.in, func(t *testing.T) {
			_, err := ParsePosition(tt.in)
			var p *PositionError
			if !errors.As(err, &p) || p.Word != tt.word || !strings.Contains(p.Error(), tt.want) {
				t.Errorf("ParsePosition(%q) = %v; want an error about %q that says %q", tt.in, err, tt.word, tt.want)
			}
		})
	}
}

// What is accepted means the same when it is written and read again, and can be
// written to a configuration file as single lines.
func FuzzParsePosition(f *testing.F) {
	for _, s := range []string{"", "current", "latest,timeline=2", "name=x y,primary", "xid=700,inclusive=off", "lsn=1/A2000000,action=pause",
		"time=2026-11-21 12:00:00.5+02,replica,port=5433", "time=2026-11-21T12:00:00 GMT", "a.b_c='\\,inclusive=no"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := parsePosition(s, time.UTC)
		if err != nil {
			var p *PositionError
			if !errors.As(err, &p) {
				t.Fatalf("%q: %v is no PositionError", s, err)
			}
			return
		}
		again, err := parsePosition(got.String(), time.FixedZone("", 7200))
		if err != nil || !reflect.DeepEqual(again, got) {
			t.Errorf("%q was written as %q, which reads as %+v, %v; want %+v", s, got.String(), again, err, got)
		}
		for _, s := range got.Settings {
			if strings.Count(s.line(), "\n") != 1 {
				t.Errorf("setting %q is written as %q", s, s.line())
			}
		}
	})
}
