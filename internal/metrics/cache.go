package metrics

import (
	"net/http"
	"sync"
	"time"
)

// A cache keeps replies for a while, whole or not at all. The zero value is empty.
type cache struct {
	mu      sync.Mutex
	replies map[format]reply
}

// A format is what a client can read.
type format struct{ open, gzip bool }

// A reply is a body and until when it may be used.
type reply struct {
	until time.Time
	body  []byte
}

func (c *cache) get(f format, now time.Time) ([]byte, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r, ok := c.replies[f]
	if !ok || !now.Before(r.until) {
		return nil, false
	}
	return r.body, true
}

func (c *cache) put(f format, r reply) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.replies == nil {
		c.replies = map[format]reply{}
	}
	c.replies[f] = r
}

func (c *cache) clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.replies = nil
}

// A recorder passes a reply on and keeps a copy of what fits.
type recorder struct {
	http.ResponseWriter
	limit int64
	body  []byte
	over  bool // it did not fit
}

func (r *recorder) Write(p []byte) (int, error) {
	if r.over = r.over || int64(len(r.body)+len(p)) > r.limit; r.over {
		r.body = nil
	} else {
		r.body = append(r.body, p...)
	}
	return r.ResponseWriter.Write(p)
}
