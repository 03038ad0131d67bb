package mgmt

import (
	"reflect"
	"testing"
	"time"
)

// TestAuditNamesWhatWasTouched records requests that touch more than one thing.
func TestAuditNamesWhatWasTouched(t *testing.T) {
	t.Parallel()
	s := NewServer(nil, Options{Now: time.Now})
	for _, tt := range []struct {
		command    Command
		args, want Document
	}{
		{Delete, Document{"Server": "primary", "Backups": []any{"20261121000000", "20261122000000"}, "Force": true},
			Document{"Server": "primary", "Backups": []any{"20261121000000", "20261122000000"}, "Force": true}},
		{Restore, Document{"Server": "primary", "Backup": "newest", "Position": nil, "Directory": "/srv/a", "Tablespaces": []any{"space=/srv/b"}, "TablespacesInPlace": true, "WALDirectory": "/srv/c", "Owner": "postgres", "Workers": int64(2)},
			Document{"Server": "primary", "Backup": "newest", "Directory": "/srv/a", "Tablespaces": []any{"space=/srv/b"}, "TablespacesInPlace": true, "WALDirectory": "/srv/c", "Owner": "postgres"}},
		{ConfSet, Document{"ConfigKey": "s3_secret_access_key", "ConfigValue": "hunter2"}, Document{"ConfigKey": "s3_secret_access_key"}},
	} {
		r := s.record(&Request{Command: tt.command, Args: tt.args}, Peer{UID: -1}, time.Now(), nil)
		if !reflect.DeepEqual(r.Args, tt.want) {
			t.Errorf("%s: %v, want %v", tt.command, r.Args, tt.want)
		}
	}
}
