package supervisor

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/pgmoneta/pgmoneta-go/internal/config"
	"github.com/pgmoneta/pgmoneta-go/internal/container"
	"github.com/pgmoneta/pgmoneta-go/internal/job"
	"github.com/pgmoneta/pgmoneta-go/internal/mgmt"
)

// noServer is the slot of jobs that belong to no server.
const noServer = -1

// ofFile answers encrypt, decrypt, compress and decompress: each is about a file of this
// machine, which belongs to no server.
func (h handler) ofFile(req *mgmt.Request, kind job.Kind) (mgmt.Response, error) {
	c := h.config.Load()
	codec, err := container.ParseCodec(c.Main.Compression.Codec.String())
	if err != nil {
		return nil, err
	}
	missing, code := req.Command.FileCodes(codec)
	path := req.Args.Text("SourceFile")
	err = convertible(c, kind, path)
	var result job.Result
	if err == nil {
		result, err = h.job(h.files, kind, job.Spec{Path: filepath.Clean(path)})
	}
	if err == nil {
		return mgmt.Response{"DestinationFile": result.Path}, nil
	}
	var failure *job.Failure
	if errors.As(err, &failure) && failure.Class == job.NoFile {
		code = missing
	}
	return nil, &mgmt.Error{Code: code, Workflow: req.Command.String(), Err: err}
}

// convertible refuses what needs no look at the file.
func convertible(c *config.Config, kind job.Kind, path string) error {
	switch {
	case !filepath.IsAbs(path):
		return fmt.Errorf("file %q: an absolute path is needed, because the daemon runs elsewhere", path)
	case kind == job.Compress && c.Main.Compression.Codec == config.None:
		return fmt.Errorf("%s: %s: compression is none: set it to what is wanted", path, c.Path)
	case kind == job.Encrypt && c.Main.Encryption == config.EncryptionNone:
		return fmt.Errorf("%s: %s: encryption is none: set it to what is wanted", path, c.Path)
	}
	return nil
}

// fileJob returns the job of a command about a file, "" for any other command.
func fileJob(c mgmt.Command) job.Kind {
	return map[mgmt.Command]job.Kind{mgmt.Encrypt: job.Encrypt, mgmt.Decrypt: job.Decrypt, mgmt.Compress: job.Compress, mgmt.Decompress: job.Decompress}[c]
}
