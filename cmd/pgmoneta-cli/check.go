package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/pgmoneta/pgmoneta-go/internal/config"
	"github.com/pgmoneta/pgmoneta-go/internal/mgmt"
	"github.com/pgmoneta/pgmoneta-go/internal/version"
)

// checkConf reports every problem of a daemon's configuration file, without a daemon.
func (p *program) checkConf(ctx context.Context, c call) int {
	format, err := p.outputFormat(c.options)
	if err != nil {
		p.complain(err.Error())
		return exitUsage
	}
	client := &mgmt.Client{Version: version.Version, Output: format.Output(), Now: p.now}
	doc := mgmt.Local(ctx, checker{p.daemonFile(c.options)}, mgmt.Options{Version: version.Version, Now: p.now}, client, c.form.command, c.args())
	return p.show(doc, format, c)
}

// A checker answers "conf check" about one file.
type checker struct{ path string }

// Handle implements [mgmt.Handler].
func (k checker) Handle(context.Context, *mgmt.Request) (mgmt.Response, error) {
	c, err := config.Load(k.path)
	var wrong config.Errors
	if err != nil && !errors.As(err, &wrong) {
		return nil, &mgmt.Error{Code: mgmt.CodeConfCheckOther, Workflow: "conf check", Err: err}
	}
	if len(wrong) > 0 {
		return nil, &mgmt.Error{Code: mgmt.CodeConfCheckFound, Workflow: "conf check", Err: fmt.Errorf("%d problems:\n%w", len(wrong), err),
			Response: mgmt.Document{"Configuration": k.path, "NumberOfProblems": len(wrong), "Problems": problems(wrong)}}
	}
	return mgmt.Response{"Configuration": k.path, "NumberOfProblems": 0, "NumberOfServers": len(c.Servers), "Warnings": problems(c.Warnings)}, nil
}

func problems(list []config.Problem) []mgmt.Document {
	rows := []mgmt.Document{}
	for _, p := range list {
		row := mgmt.Document{"File": p.File, "Line": p.Line, "Message": p.Message}
		for member, text := range map[string]string{"Section": p.Section, "Key": p.Key, "Value": p.Value} {
			if text != "" {
				row[member] = text
			}
		}
		rows = append(rows, row)
	}
	return rows
}
