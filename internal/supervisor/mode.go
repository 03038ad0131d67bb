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
	if action == "offline" || action == "online" {
		if err := v.keepMode(action == "offline"); err != nil {
			return nil, &mgmt.Error{Code: mgmt.CodeModeFailed, Workflow: "mode", Err: fmt.Errorf("server %q: nothing was changed, because it could not be remembered: %w", v.name, err)}
		}
	}
	switch action {
	case "offline":
		v.slot.Offline.Store(1)
		v.receiver.setOffline(true)
		v.log.Info("taken offline")
		h.await(ctx, func() bool { return v.slot.WorkerPID.Load() == 0 })
	case "online":
		v.receiver.setOffline(false)
		v.slot.Offline.Store(0)
		v.log.Info("taken online")
		h.await(ctx, func() bool { return v.slot.Streaming.Load() == 1 })
	default:
		return nil, &mgmt.Error{Code: mgmt.CodeModeUnknownAction, Workflow: "mode", Err: fmt.Errorf("action %q: want online or offline", action)}
	}
	return mgmt.Response{"Online": v.slot.Streaming.Load() == 1}, nil
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
