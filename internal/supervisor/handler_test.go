package supervisor

import (
	"errors"
	"strings"
	"testing"

	"github.com/pgmoneta/pgmoneta-go/internal/mgmt"
)

func TestVerifyRefusesAWordItDoesNotKnow(t *testing.T) {
	t.Parallel()
	h := handler{Supervisor: notRunning(t, 1, 1, nil)}
	for _, word := range []string{"bogus", "ALL", "failed "} {
		req := &mgmt.Request{Command: mgmt.Verify, Args: mgmt.Document{"Server": "s0", "Backup": "newest", "Directory": "/tmp", "Files": word}}
		_, err := h.verify(t.Context(), req, &server{name: "s0"})
		var refused *mgmt.Error
		if !errors.As(err, &refused) || refused.Code != mgmt.CodeVerifyOther || !strings.Contains(err.Error(), "want failed or all") {
			t.Errorf("verify with %q: %v", word, err)
		}
	}
}
