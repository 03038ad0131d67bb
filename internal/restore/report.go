package restore

import (
	"context"
	"errors"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/job"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
)

// ParseSpec turns a request into options.
func ParseSpec(backup string, s job.RestoreSpec) (Options, error) {
	o := Options{Backup: backup, Directory: s.Directory, Exact: s.Exact, Delta: s.Delta, InPlace: s.TablespacesInPlace,
		WALDirectory: s.WALDirectory, WAL: Supply(s.WAL)}
	var err error
	if o.Target, err = ParsePosition(s.Position); err != nil {
		return o, err
	}
	for _, text := range s.Tablespaces {
		p, err := ParseMapping(text)
		if err != nil {
			return o, err
		}
		o.Tablespaces = append(o.Tablespaces, p)
	}
	if s.Owner != "" {
		o.Owner, err = ParseOwner(s.Owner)
	}
	return o, err
}

// Do plans a restore and, unless it is only to be planned, runs it. The report tells
// what could be found out also when there is an error, and is nil when nothing could.
func Do(ctx context.Context, r *repo.Repository, o Options, dry bool, run RunOptions) (*job.RestoreReport, error) {
	plan, problems := Preview(ctx, r, o)
	report := plan.Report(problems)
	if len(problems) > 0 {
		return report, problems[0]
	}
	if dry {
		return report, nil
	}
	if run.Planned != nil {
		run.Planned(plan)
	}
	var stats Stats
	run.Stats = &stats
	err := Run(ctx, plan, run)
	if err == nil && !plan.Foreign {
		report.Read, report.Write = stats.Read, stats.Written
	}
	return report, err
}

// Report describes a plan and what stands in its way.
func (p *Plan) Report(problems []error) *job.RestoreReport {
	r := &job.RestoreReport{
		Target: p.Target.String(), Timeline: p.Timeline, Directory: p.Directory, WALDirectory: p.WALDirectory, Delta: p.over(),
		WALStart: p.WALStart, WALEnd: p.WALEnd, Segments: len(p.Needed), Copied: len(p.Segments),
		Supply: string(p.Supply), SupplyWhy: p.SupplyWhy, Signal: p.Signal,
		Read: p.ReadBytes, Write: p.Bytes(), Need: p.need(), Free: p.Free,
	}
	if p.Backup.Label != "" {
		r.Backup = &p.Backup
		r.Speed, r.SpeedFrom = expectedSpeed(p.repo)
		r.Estimate = time.Duration(float64(r.Write) / float64(r.Speed) * float64(time.Second))
	}
	for _, ts := range p.Tablespaces {
		r.Tablespaces = append(r.Tablespaces, job.RestoredTablespace{OID: ts.OID, Name: ts.Name, Directory: ts.Directory})
	}
	for _, s := range p.Settings {
		line := s.line()
		r.Settings = append(r.Settings, line[:len(line)-1])
	}
	for _, h := range p.Holes {
		r.Holes = append(r.Holes, job.RestoreHole(h))
	}
	for _, err := range problems {
		r.Problems = append(r.Problems, err.Error())
		r.Nearest = append(r.Nearest, nearestOf(err)...)
	}
	return r
}

// nearestOf returns what a refusal offers instead.
func nearestOf(err error) (list []job.RestorePoint) {
	var target *TargetError
	var hole *HoleError
	points := []Point{}
	switch {
	case errors.As(err, &target):
		points = append(points, target.Before, target.After)
	case errors.As(err, &hole):
		if hole.Nearest != "" {
			points = append(points, Point{hole.Label, hole.Nearest})
		}
		points = append(points, hole.After)
	}
	for _, p := range points {
		if p != (Point{}) {
			list = append(list, job.RestorePoint{Backup: p.Label, Position: p.Position})
		}
	}
	return list
}
