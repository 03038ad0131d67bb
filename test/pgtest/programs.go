package pgtest

import (
	"fmt"
	"os"
	"os/exec"
)

// Build builds our programs into a new directory, which any user may read and the caller removes.
func Build() (dir string, err error) {
	dir, err = os.MkdirTemp("", "pgmoneta-test-bin-")
	if err != nil {
		return "", err
	}
	cmd := exec.Command("go", "build", "-o", dir, "github.com/pgmoneta/pgmoneta-go/cmd/...")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%w\n%s", err, out)
	} else {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		_ = os.RemoveAll(dir)
		return "", err
	}
	return dir, nil
}
