package restore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/pgmoneta/pgmoneta-go/internal/manifest"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
)

// postgresManifest writes backup_manifest: PostgreSQL's own, byte for byte, when it
// describes the files. That of a backup for which the server sent only blocks describes
// those; then a new one takes its place, as pg_combinebackup would write it.
func (j *runner) postgresManifest(ctx context.Context, m *repo.Manifest, sums []string) error {
	f, err := j.tree.create(j.tree.data, "backup_manifest", 0o600)
	if err != nil {
		return err
	}
	if err = j.tree.op("write", f.Name()); err == nil {
		if m.Summary.Overlaid {
			err = j.newManifest(ctx, m, sums, f)
		} else {
			err = j.plan.repo.ReadPostgresManifest(ctx, m.Summary.Label, f)
		}
	}
	return errors.Join(err, f.Close())
}

// newManifest writes a manifest of the restored files. Position and system are those of the
// server's.
func (j *runner) newManifest(ctx context.Context, m *repo.Manifest, sums []string, out io.Writer) error {
	sent, err := j.sentManifest(ctx, m.Summary.Label)
	if err != nil {
		return err
	}
	return describe(out, sent, m.Files(), sums)
}

// describe writes a manifest of files. sums are the checksums of those whose rows have none.
func describe(out io.Writer, sent *manifest.Reader, files iter.Seq2[repo.File, error], sums []string) error {
	w := manifest.NewWriter(out, sent.System)
	for row, err := range files {
		if err != nil {
			return err
		}
		if row.Kind != repo.Regular {
			continue
		}
		sum := row.CRC
		if sum == "" {
			if len(sums) == 0 {
				return fmt.Errorf("the manifest has no checksum of %q", row.Path)
			}
			sum, sums = sums[0], sums[1:]
		}
		err := w.Add(manifest.File{Path: row.Path, Size: row.Size, Modified: row.ModTime.UTC().Format(manifest.TimeLayout), Algorithm: "CRC32C", Checksum: sum})
		if err != nil {
			return err
		}
	}
	return w.Finish(sent.Ranges)
}

// sentManifest reads the server's manifest for all but its files.
func (j *runner) sentManifest(ctx context.Context, label repo.Label) (*manifest.Reader, error) {
	in, err := j.plan.repo.OpenPostgresManifest(ctx, label)
	if err != nil {
		return nil, err
	}
	m, err := readSent(in)
	return m, errors.Join(err, in.Close())
}

func readSent(in io.Reader) (*manifest.Reader, error) {
	m := manifest.NewReader(in)
	for _, err := range m.Files() {
		if err != nil {
			return nil, err
		}
	}
	return m, nil
}
