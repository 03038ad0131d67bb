package shmem

import "time"

// Capacities of texts in bytes.
const (
	maxText     = 512 // the largest
	nameText    = 128
	messageText = 512
)

// States of a worker, in Server.State and Job.State.
const (
	StateUnused   = 0 // the slot is free
	StateStarting = 1
	StateRunning  = 2
	StateWaiting  = 3 // ended, will be started again after a delay
	StateStopping = 4
	StateStopped  = 5 // ended as asked, or done
	StateFailed   = 6
)

// A Server is the slot of one server. Times are Unix nanoseconds, 0 for never.
type Server struct {
	// Written by the supervisor.
	State     Gauge // one of the States
	WorkerPID Gauge
	Restarts  Counter // of the worker
	StartedAt Gauge   // of the worker
	Offline   Gauge   // 1 when taken offline by an operator
	Name      Text
	LastExit  Text // why the worker ended last

	// Written by the WAL worker.
	Heartbeat        Gauge // when the worker last passed its main loop
	Streaming        Gauge // 1 while it receives WAL
	Primary          Gauge // 1 primary, 0 standby
	Checksums        Gauge // 1 data checksums are on
	Summarize        Gauge // 1 summarize_wal is on
	Timeline         Counter
	SystemIdentifier Counter
	ServerVersion    Counter // server_version_num, such as 170011
	SegmentSize      Counter // wal_segment_size in bytes
	WrittenLSN       Counter
	FlushedLSN       Counter
	StoredLSN        Counter // end of the newest segment in the repository
	ShippedLSN       Counter // end of the newest segment in the directory to ship to
	ServerLSN        Counter // newest position the server told
	LastMessage      Gauge   // from the server
	LastFlush        Gauge
	FlushLagSince    Gauge // when the oldest unflushed byte arrived, 0 when all is flushed
	ReceivedBytes    Counter
	StoredSegments   Counter
	StoredBytes      Counter // as stored, after compression
	WALFiles         Counter // in the repository
	WALBytes         Counter // in the repository
	Reconnects       Counter
	Errors           Counter
	StoreQueue       Gauge   // segments received and not yet stored
	ShipQueue        Gauge   // segments stored and not yet shipped
	ShipLagSince     Gauge   // since when there is something to ship, 0 when all is shipped
	NextAttempt      Gauge   // when the next connection is tried, 0 while there is one
	SlotRetained     Counter // WAL the server keeps for our slot, in bytes
	Flushes          Histogram
	CurrentSegment   Text
	LastError        Text
	SlotState        Text // wal_status of the replication slot
}

// serverSlotSize returns the size of a server slot in bytes.
func serverSlotSize() int { return measure(func(c *cursor) { layServer(c) }) }

// jobSlotSize returns the size of a job slot in bytes.
func jobSlotSize() int { return measure(func(c *cursor) { layJob(c) }) }

// measure returns the size of what lay takes, whole cache lines.
func measure(lay func(*cursor)) int {
	var c cursor
	lay(&c)
	return roundUp(c.offset, lineSize)
}

// layServer lays a slot over memory. The order here is the layout: change LayoutVersion with it.
func layServer(c *cursor) Server {
	var s Server
	for _, g := range []*Gauge{&s.State, &s.WorkerPID} {
		*g = c.gauge()
	}
	s.Restarts = c.counter()
	s.StartedAt = c.gauge()
	s.Offline = c.gauge()
	s.Name = c.text(nameText)
	s.LastExit = c.text(messageText)

	c.block()
	for _, g := range []*Gauge{
		&s.Heartbeat, &s.Streaming, &s.Primary, &s.Checksums, &s.Summarize, &s.LastMessage, &s.LastFlush, &s.FlushLagSince, &s.StoreQueue, &s.ShipQueue, &s.ShipLagSince, &s.NextAttempt,
	} {
		*g = c.gauge()
	}
	for _, n := range []*Counter{
		&s.Timeline, &s.SystemIdentifier, &s.ServerVersion, &s.SegmentSize,
		&s.WrittenLSN, &s.FlushedLSN, &s.StoredLSN, &s.ShippedLSN, &s.ServerLSN,
		&s.ReceivedBytes, &s.StoredSegments, &s.StoredBytes, &s.WALFiles, &s.WALBytes, &s.Reconnects, &s.Errors, &s.SlotRetained,
	} {
		*n = c.counter()
	}
	s.Flushes = c.histogram()
	s.CurrentSegment = c.text(nameText)
	s.LastError = c.text(messageText)
	s.SlotState = c.text(nameText)
	return s
}

// A ServerSnapshot is what a server slot held. See the fields of [Server].
type ServerSnapshot struct {
	State     int
	WorkerPID int
	Restarts  uint64
	StartedAt time.Time
	Offline   bool
	Name      string
	LastExit  string

	Heartbeat        time.Time
	Streaming        bool
	Primary          bool
	Checksums        bool
	Summarize        bool
	Timeline         uint32
	SystemIdentifier uint64
	ServerVersion    int
	SegmentSize      uint64
	WrittenLSN       uint64
	FlushedLSN       uint64
	StoredLSN        uint64
	ShippedLSN       uint64
	ServerLSN        uint64
	LastMessage      time.Time
	LastFlush        time.Time
	FlushLagSince    time.Time
	ReceivedBytes    uint64
	StoredSegments   uint64
	StoredBytes      uint64
	WALFiles         uint64
	WALBytes         uint64
	Reconnects       uint64
	Errors           uint64
	StoreQueue       int
	ShipQueue        int
	ShipLagSince     time.Time
	NextAttempt      time.Time
	SlotRetained     uint64
	Flushes          Distribution
	CurrentSegment   string
	LastError        string
	SlotState        string
}

// Snapshot reads the whole slot. Each field is whole, the fields together are not of one moment.
func (s *Server) Snapshot() ServerSnapshot {
	return ServerSnapshot{
		State:     int(s.State.Load()),
		WorkerPID: int(s.WorkerPID.Load()),
		Restarts:  s.Restarts.Load(),
		StartedAt: s.StartedAt.Time(),
		Offline:   s.Offline.Load() != 0,
		Name:      s.Name.String(),
		LastExit:  s.LastExit.String(),

		Heartbeat:        s.Heartbeat.Time(),
		Streaming:        s.Streaming.Load() != 0,
		Primary:          s.Primary.Load() != 0,
		Checksums:        s.Checksums.Load() != 0,
		Summarize:        s.Summarize.Load() != 0,
		Timeline:         uint32(s.Timeline.Load()),
		SystemIdentifier: s.SystemIdentifier.Load(),
		ServerVersion:    int(s.ServerVersion.Load()),
		SegmentSize:      s.SegmentSize.Load(),
		WrittenLSN:       s.WrittenLSN.Load(),
		FlushedLSN:       s.FlushedLSN.Load(),
		StoredLSN:        s.StoredLSN.Load(),
		ShippedLSN:       s.ShippedLSN.Load(),
		ServerLSN:        s.ServerLSN.Load(),
		LastMessage:      s.LastMessage.Time(),
		LastFlush:        s.LastFlush.Time(),
		FlushLagSince:    s.FlushLagSince.Time(),
		ReceivedBytes:    s.ReceivedBytes.Load(),
		StoredSegments:   s.StoredSegments.Load(),
		StoredBytes:      s.StoredBytes.Load(),
		WALFiles:         s.WALFiles.Load(),
		WALBytes:         s.WALBytes.Load(),
		Reconnects:       s.Reconnects.Load(),
		Errors:           s.Errors.Load(),
		StoreQueue:       int(s.StoreQueue.Load()),
		ShipQueue:        int(s.ShipQueue.Load()),
		ShipLagSince:     s.ShipLagSince.Time(),
		NextAttempt:      s.NextAttempt.Time(),
		SlotRetained:     s.SlotRetained.Load(),
		Flushes:          s.Flushes.Load(),
		CurrentSegment:   s.CurrentSegment.String(),
		LastError:        s.LastError.String(),
		SlotState:        s.SlotState.String(),
	}
}

// Clear sets every field to zero, before the supervisor gives the slot to another server. The worker of the one before must have ended.
func (s *Server) Clear() {
	for _, g := range []Gauge{
		s.State, s.WorkerPID, s.StartedAt, s.Offline, s.Heartbeat, s.Streaming, s.Primary, s.Checksums, s.Summarize, s.LastMessage, s.LastFlush, s.FlushLagSince, s.StoreQueue,
		s.ShipQueue, s.ShipLagSince, s.NextAttempt,
	} {
		g.Store(0)
	}
	for _, n := range []Counter{
		s.Restarts, s.Timeline, s.SystemIdentifier, s.ServerVersion, s.SegmentSize, s.WrittenLSN, s.FlushedLSN, s.StoredLSN, s.ShippedLSN, s.ServerLSN,
		s.ReceivedBytes, s.StoredSegments, s.StoredBytes, s.WALFiles, s.WALBytes, s.Reconnects, s.Errors, s.SlotRetained,
	} {
		n.Store(0)
	}
	s.Flushes.clear()
	for _, t := range []*Text{&s.Name, &s.LastExit, &s.CurrentSegment, &s.LastError, &s.SlotState} {
		t.Store("")
	}
}

// A Job is the slot of one running job.
type Job struct {
	// Written by the supervisor.
	ServerIndex Gauge // slot of the server
	Kind        Gauge
	State       Gauge // one of the States
	PID         Gauge
	StartedAt   Gauge

	// Written by the job worker.
	UpdatedAt  Gauge
	DoneBytes  Counter
	TotalBytes Counter // 0 when not known
	Phase      Text
	Label      Text // of the backup
}

// layJob lays a slot over memory. The order here is the layout: change LayoutVersion with it.
func layJob(c *cursor) Job {
	var j Job
	for _, g := range []*Gauge{&j.ServerIndex, &j.Kind, &j.State, &j.PID, &j.StartedAt} {
		*g = c.gauge()
	}
	c.block()
	j.UpdatedAt = c.gauge()
	j.DoneBytes = c.counter()
	j.TotalBytes = c.counter()
	j.Phase = c.text(nameText)
	j.Label = c.text(nameText)
	return j
}

// A JobSnapshot is what a job slot held. See the fields of [Job].
type JobSnapshot struct {
	ServerIndex int
	Kind        int
	State       int
	PID         int
	StartedAt   time.Time
	UpdatedAt   time.Time
	DoneBytes   uint64
	TotalBytes  uint64
	Phase       string
	Label       string
}

// Snapshot reads the whole slot. Each field is whole, the fields together are not of one moment.
func (j *Job) Snapshot() JobSnapshot {
	return JobSnapshot{
		ServerIndex: int(j.ServerIndex.Load()),
		Kind:        int(j.Kind.Load()),
		State:       int(j.State.Load()),
		PID:         int(j.PID.Load()),
		StartedAt:   j.StartedAt.Time(),
		UpdatedAt:   j.UpdatedAt.Time(),
		DoneBytes:   j.DoneBytes.Load(),
		TotalBytes:  j.TotalBytes.Load(),
		Phase:       j.Phase.String(),
		Label:       j.Label.String(),
	}
}

// Clear sets every field of a free slot to zero, before the supervisor gives it to a new job. The job before must have ended.
func (j *Job) Clear() {
	for _, g := range []Gauge{j.State, j.ServerIndex, j.Kind, j.PID, j.StartedAt, j.UpdatedAt} {
		g.Store(0)
	}
	j.DoneBytes.Store(0)
	j.TotalBytes.Store(0)
	j.Phase.Store("")
	j.Label.Store("")
}
