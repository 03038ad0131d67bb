package console

import (
	"math"
	"testing"
	"time"
)

func TestProgressLine(t *testing.T) {
	t.Parallel()
	running := Progress{Phase: "Backup", Done: 1288490188, Total: 2899102924, Rate: 110414233, Elapsed: 12 * time.Second}
	tests := []struct {
		name    string
		p       Progress
		columns int
		want    string
	}{
		{"all", running, 79, "Backup  44 % [########------------]  1.2 GB of 2.7 GB  105.3 MB/s  14 s left"},
		{"a smaller bar", running, 66, "Backup  44 % [####------]  1.2 GB of 2.7 GB  105.3 MB/s  14 s left"},
		{"no bar", running, 60, "Backup  44 %  1.2 GB of 2.7 GB  105.3 MB/s  14 s left"},
		{"narrow", running, 40, "Backup  44 % [###----]  1.2 GB of 2.7 GB"},
		{"too narrow", running, 5, "Backu"},
		{"no rate yet", Progress{Phase: "Backup", Total: 1 << 20, Elapsed: 2 * time.Second}, 79, "Backup   0 % [--------------------]  0 B of 1.0 MB  2.0 s"},
		{"no total", Progress{Phase: "Sync", Elapsed: 65 * time.Second}, 79, "Sync  1 min 5 s"},
		{"more than all", Progress{Phase: "x", Done: 5, Total: 2, Rate: 1}, 79, "x 100 % [####################]  5 B of 2 B  1 B/s  0.0 s left"},
		{"controls", Progress{Phase: "a\x1b[2J\nb"}, 79, "a [2J b"},
		{"for ever", Progress{Phase: "x", Total: math.MaxInt64, Rate: 1}, 30, "x   0 %  0 B of 8192.0 PB"},
	}
	for _, tt := range tests {
		if got := tt.p.Line(tt.columns); got != tt.want {
			t.Errorf("%s: Line(%d) = %q, want %q", tt.name, tt.columns, got, tt.want)
		}
		for columns := range 90 {
			if line := tt.p.Line(columns); width(line) > columns {
				t.Errorf("%s: Line(%d) = %q, which is longer", tt.name, columns, line)
			}
		}
	}
}
