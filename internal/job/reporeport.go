package job

import "github.com/pgmoneta/pgmoneta-go/internal/repo"

// A RepoReport is what a check of the repository found. Sizes are bytes.
type RepoReport struct {
	Full     bool // every frame was read
	Usage    repo.Usage
	Read     int64         // plain, compared with hashes
	Findings []RepoFinding // at most [MaxFindings]
	Total    int           // findings, those left out included
}

// A RepoFinding is an object that is damaged or missing.
type RepoFinding struct {
	Object  string
	Backups []repo.Label // that need it
	Files   []string     // of them that are affected, not all; none when all are
	Message string
}
