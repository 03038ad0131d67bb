package supervisor

import (
	"context"
	"fmt"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/mgmt"
)

// How long "mode" waits to see what came of it. A last flush or a server that does
// not answer may take longer; the order holds all the same.
const modePatience = 10 * time.Second

// mode takes a server offline, so that nothing is connected to it, or online again.
// It holds until it is changed, over restarts too.
func (h handler) mode(ctx context.Context, req *mgmt.Request, v *server) (mgmt.Response, error) {
	action := req.Args.Text("Action")
	if action != "offline" && action != "online" {
		return nil, &mgmt.Error{Code: mgmt.CodeModeUnknownAction, Workflow: "mode", Err: fmt.Errorf("action %q: want online or offline", action)}
	}
	if err := v.setMode(action == "offline"); err != nil {
		return nil, &mgmt.Error{Code: mgmt.CodeModeFailed, Workflow: "mode", Err: fmt.Errorf("server %q: nothing was changed, because it could not be remembered: %w", v.name, err)}
	}
	v.log.Info("taken " + action)
	if action == "offline" {
		h.await(ctx, func() bool { return v.slot.WorkerPID.Load() == 0 })
	} else {
		h.await(ctx, func() bool { return v.slot.Streaming.Load() == 1 })
	}
	return mgmt.Response{"Online": v.slot.Streaming.Load() == 1}, nil
}

// setMode remembers the mode of a server and puts it into force, in one step for other
// requests: what holds now must be what is remembered.
func (v *server) setMode(offline bool) error {
	v.mode.Lock()
	defer v.mode.Unlock()
	if err := v.keepMode(offline); err != nil {
		return err
	}
	shown := int64(0)
	if offline {
		shown = 1
	}
	v.slot.Offline.Store(shown)
	v.receiver.setOffline(offline)
	return nil
}

// await waits until something holds, the patience is over or the daemon ends.
func (h handler) await(ctx context.Context, holds func() bool) {
	ctx, cancel := context.WithTimeout(ctx, modePatience)
	defer cancel()
	stop := context.AfterFunc(h.ctx, cancel)
	defer stop()
	t := time.NewTicker(20 * time.Millisecond)
	defer t.Stop()
	for !holds() {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}
