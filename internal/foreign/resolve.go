package foreign

import (
	"io/fs"
	"path"
	"path/filepath"
	"strings"

	"github.com/pgmoneta/pgmoneta-go/internal/repo"
)

// maxLinks bounds how many links lead to one file. Each backup can add one.
const maxLinks = 1 << 14

// locate follows the links of a name of the repository, which may be of any component,
// and returns the name of what they lead to.
func (r *Repository) locate(name string) (string, fs.FileInfo, error) {
	links := 0
	return r.follow(name, &links)
}

func (r *Repository) follow(name string, links *int) (string, fs.FileInfo, error) {
	for {
		dir, base := path.Split(name)
		if dir != "" {
			real, err := r.directory(strings.TrimSuffix(dir, "/"), links)
			if err != nil {
				return "", nil, err
			}
			name = real + "/" + base
		}
		info, err := r.root.Lstat(name)
		if err != nil || info.Mode()&fs.ModeSymlink == 0 {
			return name, info, err
		}
		target, err := r.root.Readlink(name)
		if err != nil {
			return "", nil, err
		}
		if *links++; *links > maxLinks {
			return "", nil, &LinkError{name, target, "the links go round in a circle"}
		}
		next, ok := r.translate(name, target)
		if !ok {
			return "", nil, &LinkError{name, target, "it leads out of the backups and is not followed"}
		}
		name = next
	}
}

// directory is follow for a directory, and remembers the answer.
func (r *Repository) directory(name string, links *int) (string, error) {
	r.mu.Lock()
	real, ok := r.dirs[name]
	r.mu.Unlock()
	if ok {
		return real, nil
	}
	real, info, err := r.follow(name, links)
	if err != nil {
		return "", err
	}
	if !info.IsDir() {
		return "", &fs.PathError{Op: "open", Path: name, Err: fs.ErrInvalid}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dirs[name] = real
	return real, nil
}

// translate returns the name that a link leads to. An absolute one leads to where the
// repository was when it was made; of it only what is below backup/ counts. ok is false
// for a link that leads to anything but the data of a backup.
func (r *Repository) translate(name, target string) (next string, ok bool) {
	if !path.IsAbs(target) {
		next = path.Join(path.Dir(name), target)
		return next, isData(next)
	}
	target = path.Clean(target)
	if rest, below := strings.CutPrefix(target, r.dir+"/"); below && isData(rest) {
		return rest, true
	}
	for end := len(target); ; {
		at := strings.LastIndex(target[:end], "/backup/")
		if at < 0 {
			return "", false
		}
		if next = target[at+1:]; isData(next) {
			return next, true
		}
		end = at
	}
}

// isData reports whether a name is one of the data of a backup.
func isData(name string) bool {
	parts := strings.SplitN(name, "/", 4)
	if !filepath.IsLocal(name) || name != path.Clean(name) || len(parts) < 3 || parts[0] != "backup" {
		return false
	}
	if _, err := repo.ParseLabel(parts[1]); err != nil {
		return false
	}
	return parts[2] == "data" || strings.HasPrefix(parts[2], tablespacePrefix)
}

// labelOf returns the label of the backup that a name belongs to.
func labelOf(name string) repo.Label {
	parts := strings.SplitN(name, "/", 3)
	if len(parts) < 3 {
		return ""
	}
	return repo.Label(parts[1])
}
