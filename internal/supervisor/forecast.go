package supervisor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/durable"
	"github.com/pgmoneta/pgmoneta-go/internal/metrics"
)

// trendName is the file in base_dir that remembers how full its file system was.
const trendName = "pgmoneta.space"

const (
	trendInterval = 30 * time.Minute
	trendKept     = 7 * 24 * time.Hour
	// trendLeast is the least time that a trend is told from: shorter ones tell of one backup.
	trendLeast = 6 * time.Hour
)

// A spaceSample is how full a file system was.
type spaceSample struct {
	At   time.Time `json:"at"`
	Used uint64    `json:"used"` // bytes, by whomever
}

// A trend is how a file system filled up over the last days. It outlives the daemon.
type trend struct {
	mu      sync.Mutex
	path    string
	samples []spaceSample // ascending
	growth  float64       // bytes per second, of the samples
	known   bool          // there are enough of them
}

// load reads what was remembered. Lines that cannot be read are left out and counted.
func (t *trend) load(baseDir string) (damaged int, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.path = filepath.Join(baseDir, trendName)
	b, err := os.ReadFile(t.path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	t.samples, damaged = decodeTrend(b)
	t.growth, t.known = growth(t.samples)
	return damaged, nil
}

// decodeTrend reads lines of JSON, as far as they are samples.
func decodeTrend(b []byte) (list []spaceSample, damaged int) {
	for line := range bytes.Lines(b) {
		var s spaceSample
		if err := json.Unmarshal(line, &s); err != nil || s.At.IsZero() {
			damaged++
			continue
		}
		list = append(list, s)
	}
	slices.SortFunc(list, func(a, b spaceSample) int { return a.At.Compare(b.At) })
	return list[max(0, len(list)-maxTrend):], damaged
}

// maxTrend bounds what is read from the file.
const maxTrend = int(trendKept/trendInterval) + 1

// add remembers a sample, when it is time for the next. Those that are too old go, and
// those of the future, when the clock was set back.
func (t *trend) add(now time.Time, used uint64) (added bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.samples = slices.DeleteFunc(t.samples, func(s spaceSample) bool { return s.At.After(now) || now.Sub(s.At) > trendKept })
	if n := len(t.samples); n > 0 && now.Sub(t.samples[n-1].At) < trendInterval {
		return false
	}
	t.samples = append(t.samples, spaceSample{now.UTC(), used})
	t.growth, t.known = growth(t.samples)
	return true
}

// save writes the file anew.
func (t *trend) save() error {
	t.mu.Lock()
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	for _, s := range t.samples {
		_ = encoder.Encode(s) // times of our clock and numbers always can be
	}
	path := t.path
	t.mu.Unlock()
	return durable.Replace(path, b.Bytes())
}

// growth returns by how many bytes a second the file system fills up: the median of
// the slopes between all samples, so that a few that are out of the way, a backup or
// its deletion, do not turn it. known is false while there is too little to tell from.
func growth(list []spaceSample) (perSecond float64, known bool) {
	n := len(list)
	if n < 3 || list[n-1].At.Sub(list[0].At) < trendLeast {
		return 0, false
	}
	slopes := make([]float64, 0, n*(n-1)/2)
	for i := range list {
		for j := i + 1; j < n; j++ {
			if seconds := list[j].At.Sub(list[i].At).Seconds(); seconds > 0 {
				slopes = append(slopes, (float64(list[j].Used)-float64(list[i].Used))/seconds)
			}
		}
	}
	if len(slopes) == 0 {
		return 0, false
	}
	slices.Sort(slopes)
	return slopes[len(slopes)/2], true
}

// forecast tells when nothing is free any more if it goes on as it did.
func (t *trend) forecast(free uint64) metrics.Forecast {
	t.mu.Lock()
	f := metrics.Forecast{Known: t.known, Growth: t.growth, Full: math.Inf(1)}
	t.mu.Unlock()
	if f.Known && f.Growth > 0 {
		f.Full = float64(free) / f.Growth
	}
	return f
}

// watchTrend takes samples until ctx ends.
func (s *Supervisor) watchTrend(ctx context.Context) {
	dir := s.config.Load().Main.BaseDir
	if damaged, err := s.trend.load(dir); err != nil || damaged > 0 {
		s.Log.Warn("how space went before is not read whole", "file", filepath.Join(dir, trendName), "damaged", damaged, "err", err)
	}
	t := time.NewTicker(spaceInterval)
	defer t.Stop()
	for {
		if free, total, err := space(dir); err == nil {
			if s.trend.add(time.Now(), total-min(free, total)) {
				if err := s.trend.save(); err != nil {
					s.Log.Warn("how space goes cannot be noted", "err", err)
				}
			}
			f := s.trend.forecast(free)
			s.forecast.Store(&f)
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// spaceForecast describes the forecast for status details.
func spaceForecast(f *metrics.Forecast, now time.Time) (text, fullAt string, perDay int64) {
	const day = 24 * 3600
	switch {
	case f == nil || !f.Known:
		return "not known yet", "", 0
	case f.Full > 100*365*day:
		return "not growing", "", max(int64(f.Growth*day), 0)
	}
	at := now.Add(time.Duration(f.Full * float64(time.Second)))
	return fmt.Sprintf("full in %.1f days", f.Full/day), at.UTC().Format(time.RFC3339), int64(f.Growth * day)
}
