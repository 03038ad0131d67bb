package mgmt

import (
	"reflect"
	"testing"

	"github.com/pgmoneta/pgmoneta-go/internal/job"
)

func TestRestoreSpecReadsWhatClientsSend(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		args Document
		want job.RestoreSpec
		ok   bool
	}{
		{"0.22", Document{"Server": "primary", "Backup": "newest", "Position": nil, "Directory": "/srv"}, job.RestoreSpec{Directory: "/srv"}, true},
		{"everything", Document{"Position": "latest", "Directory": "/srv", "DryRun": true, "Exact": true, "Delta": true, "WAL": "copy", "WALDirectory": "/wal",
			"Tablespaces": []any{"a=/a"}, "TablespacesInPlace": true, "Owner": "postgres", "Workers": int64(4), "MaxRate": int64(1 << 20)},
			job.RestoreSpec{Position: "latest", Directory: "/srv", DryRun: true, Exact: true, Delta: true, WAL: "copy", WALDirectory: "/wal",
				Tablespaces: []string{"a=/a"}, TablespacesInPlace: true, Owner: "postgres", Workers: 4, MaxRate: 1 << 20}, true},
		{"no directory", Document{}, job.RestoreSpec{}, false},
		{"relative", Document{"Directory": "srv"}, job.RestoreSpec{}, false},
		{"many workers", Document{"Directory": "/srv", "Workers": int64(1) << 40}, job.RestoreSpec{}, false},
		{"a negative rate", Document{"Directory": "/srv", "MaxRate": int64(-1)}, job.RestoreSpec{}, false},
		{"a tablespace of another type", Document{"Directory": "/srv", "Tablespaces": []any{int64(5)}}, job.RestoreSpec{}, false},
	}
	for _, tt := range tests {
		got, err := RestoreSpec(&Request{Command: Restore, Args: tt.args})
		if (err == nil) != tt.ok || tt.ok && !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: %+v, %v", tt.name, got, err)
		}
	}
}
