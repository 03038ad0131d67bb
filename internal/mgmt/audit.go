package mgmt

import (
	"errors"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// A Peer is who sent a request.
type Peer struct {
	User    string // that logged in, "" on the socket
	Address string // of a remote client, "" on the socket
	UID     int    // of the process on the other end of the socket, -1 for a remote client
	PID     int    // of that process when it connected
}

// socketPeer asks the kernel who connected.
func socketPeer(conn net.Conn) Peer {
	nobody := Peer{UID: -1}
	socket, ok := conn.(*net.UnixConn)
	if !ok {
		return nobody
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return nobody
	}
	var cred *unix.Ucred
	failed := raw.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if failed != nil || err != nil {
		return nobody
	}
	return Peer{UID: int(cred.Uid), PID: int(cred.Pid)}
}

// A Record is what an audit tells about one request: who, when, what, and what came
// of it. It holds no secret: of the arguments only those that name things are taken.
type Record struct {
	Time    time.Time `json:"time"` // when the request was complete
	User    string    `json:"user,omitempty"`
	Address string    `json:"address,omitempty"`
	UID     *int      `json:"uid,omitempty"`
	PID     int       `json:"pid,omitempty"`
	Command string    `json:"command"`
	Args    Document  `json:"args,omitempty"`
	Done    bool      `json:"done"`
	Code    Code      `json:"code,omitempty"`  // of a refusal or failure
	Error   string    `json:"error,omitempty"` // its reason
	Elapsed float64   `json:"elapsed"`         // seconds
}

// Changes reports whether a request may change something outside of itself. Those that
// only look, or only read to prove something, do not.
func (r *Request) Changes() bool {
	switch r.Command {
	case ListBackup, Status, StatusDetails, Ping, Info, Verify, ConfLs, ConfGet, S3Ls, WALCheck, RepoCheck, RepoStats, Jobs, ConfCheck, Schedule:
		return false
	case Progress:
		return r.Args.Bool("Cancel")
	default:
		return true
	}
}

// audited are the arguments that a record keeps. The value of "conf set" is not among
// them: it may be a secret that was meant for another key.
var audited = [...]string{
	"Server", "Backup", "Backups", "Position", "Directory", "ConfigKey", "Action", "Key", "SourceFile", "Force", "Cascade", "Plain", "Cancel", "Job", "DryRun", "Save",
	"AllowCorrupt", "Delta", "Exact", "Tablespaces", "TablespacesInPlace", "WALDirectory", "Owner",
}

// record describes a request that was answered.
func (s *Server) record(req *Request, peer Peer, start time.Time, err error) Record {
	r := Record{Time: start.UTC(), User: peer.User, Address: peer.Address, PID: peer.PID, Command: req.Command.String(), Args: Document{},
		Done: err == nil, Elapsed: s.opt.Now().Sub(start).Seconds()}
	if peer.UID >= 0 {
		r.UID = &peer.UID
	}
	for _, name := range audited {
		if value, ok := req.Args[name]; ok && value != nil {
			r.Args[name] = value
		}
	}
	if err == nil {
		return r
	}
	r.Code = req.Command.Codes().Other
	var known *Error
	if errors.As(err, &known) {
		r.Code = known.Code
	}
	if req.Command != ConfSet { // the reason may repeat the value
		r.Error = err.Error()
	}
	return r
}
