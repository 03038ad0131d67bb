package supervisor

import (
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/metrics"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
)

func TestForecastFollowsTheTrendAndNotItsTeeth(t *testing.T) {
	t.Parallel()
	const gib = 1 << 30
	begin := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	for name, tt := range map[string]struct {
		used func(hours float64) float64 // GiB
		want float64                     // days until 100 GiB more are used, 0 for never
	}{
		"steady":              {func(h float64) float64 { return 100 + h*10/24 }, 10},
		"daily teeth":         {func(h float64) float64 { return 100 + h*10/24 + 20*math.Mod(h, 24)/24 }, 10},
		"one jump and steady": {func(h float64) float64 { return 100 + h*10/24 + map[bool]float64{true: 80}[h > 150] }, 8},
		"constant":            {func(float64) float64 { return 100 }, 0},
		"shrinking":           {func(h float64) float64 { return 500 - h }, 0},
	} {
		var tr trend
		for at := time.Duration(0); at < 8*24*time.Hour; at += 10 * time.Second * 60 {
			tr.add(begin.Add(at), uint64(tt.used(at.Hours())*gib))
		}
		f := tr.forecast(100 * gib)
		if tt.want == 0 {
			if !f.Known || !math.IsInf(f.Full, 1) {
				t.Errorf("%s: %+v", name, f)
			}
			continue
		}
		if days := f.Full / 86400; days < tt.want*0.7 || days > tt.want*1.3 {
			t.Errorf("%s: full in %.1f days, want about %.0f", name, days, tt.want)
		}
		if len(tr.samples) > maxTrend {
			t.Errorf("%s: %d samples are kept", name, len(tr.samples))
		}
	}
}

func TestTrendOutlivesTheDaemonAndItsClock(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var tr trend
	if damaged, err := tr.load(dir); err != nil || damaged != 0 {
		t.Fatal(damaged, err)
	}
	now := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	for range 13 { // six hours
		if f := tr.forecast(1000); f.Known {
			t.Errorf("after %d samples there is a forecast", len(tr.samples))
		}
		tr.add(now, uint64(now.Unix()))
		if tr.add(now.Add(time.Minute), 0) {
			t.Error("two samples within a minute")
		}
		now = now.Add(trendInterval)
	}
	if err := tr.save(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, trendName)
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, append([]byte("garbage\n{}\n"), content...), 0o600); err != nil {
		t.Fatal(err)
	}
	var again trend
	if damaged, err := again.load(dir); err != nil || damaged != 2 {
		t.Fatalf("%d lines damaged, %v, want 2", damaged, err)
	}
	if f := again.forecast(1000); !f.Known || f.Full < 999 || f.Full > 1001 {
		t.Errorf("after a restart: %+v", f)
	}
	again.add(now.AddDate(-1, 0, 0), 5) // the clock was set back
	if len(again.samples) != 1 {
		t.Errorf("%d samples after the clock was set back", len(again.samples))
	}
	again.add(now.AddDate(20, 0, 0), 5)
	if len(again.samples) != 1 {
		t.Errorf("%d samples after the clock was set forward", len(again.samples))
	}
}

func TestForecastInWords(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		f      *metrics.Forecast
		text   string
		fullAt string
		perDay int64
	}{
		{nil, "not known yet", "", 0},
		{&metrics.Forecast{Full: math.Inf(1)}, "not known yet", "", 0},
		{&metrics.Forecast{Known: true, Growth: -5, Full: math.Inf(1)}, "not growing", "", 0},
		{&metrics.Forecast{Known: true, Growth: 1e-9, Full: 1e18}, "not growing", "", 0},
		{&metrics.Forecast{Known: true, Growth: 10, Full: 1.5 * 86400}, "full in 1.5 days", "2026-11-02T12:00:00Z", 864000},
	} {
		text, fullAt, perDay := spaceForecast(tt.f, now)
		if text != tt.text || fullAt != tt.fullAt || perDay != tt.perDay {
			t.Errorf("%+v: %q %q %d", tt.f, text, fullAt, perDay)
		}
	}
}

func TestSignatureChangesWithTheBackups(t *testing.T) {
	t.Parallel()
	var v server
	a, b := []repo.Backup{{Label: "1"}, {Label: "2"}}, []repo.Backup{{Label: "1"}}
	if v.signature(a) == v.signature(b) || v.signature(nil) == v.signature(b) || !strings.Contains(v.signature(a), "2") {
		t.Error("two lists have the same signature")
	}
	before := v.signature(a)
	if v.freed.Add(1); v.signature(a) == before {
		t.Error("the signature is the same after a job that freed space")
	}
}

func FuzzTrend(f *testing.F) {
	f.Add([]byte(`{"at":"2026-11-01T00:00:00Z","used":5}` + "\n" + `{"at":"2026-11-02T00:00:00Z","used":7}` + "\n" + `{"at":"2026-11-02T10:00:00Z","used":18446744073709551615}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var tr trend
		tr.samples, _ = decodeTrend(b)
		tr.growth, tr.known = growth(tr.samples)
		if len(tr.samples) > maxTrend {
			t.Errorf("%d samples", len(tr.samples))
		}
		if f := tr.forecast(1 << 40); math.IsNaN(f.Full) || f.Full < 0 {
			t.Errorf("%+v", f)
		}
	})
}
