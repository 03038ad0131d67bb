package supervisor

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/durable"
)

// modeFile remembers, while it is there, that a server was taken offline. It is local, no
// object of the repository.
const modeFile = "mode.json"

type modeNote struct {
	Mode  string    `json:"mode"`
	Since time.Time `json:"since"`
}

func (v *server) modePath() string { return filepath.Join(v.repo.Dir(), modeFile) }

// keepMode remembers the mode of a server over the end of the daemon.
func (v *server) keepMode(offline bool) error {
	if offline {
		b, err := json.Marshal(modeNote{"offline", time.Now().UTC().Truncate(time.Second)})
		if err != nil {
			return err
		}
		return durable.Replace(v.modePath(), append(b, '\n'))
	}
	if err := os.Remove(v.modePath()); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	return durable.OS{}.SyncDir(v.repo.Dir())
}

// restoreMode takes a server offline that was so when the daemon ended. A note that cannot
// be read is one of a server that is to be left alone.
func (v *server) restoreMode() {
	b, err := os.ReadFile(v.modePath())
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	var note modeNote
	if err == nil {
		err = json.Unmarshal(b, &note)
	}
	if err == nil && note.Mode != "offline" {
		return
	}
	v.slot.Offline.Store(1)
	v.receiver.setOffline(true)
	attrs := []any{"since", note.Since, "file", v.modePath()}
	if err != nil {
		attrs = append(attrs, "err", err)
	}
	v.log.Warn("the server is offline until it is taken online (pgmoneta-cli mode)", attrs...)
}
