// Package test states what holds for the source tree as a whole: which package may import which, and what only some of
// them may use. A new package or a new edge is a decision, taken here.
package test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/pgmoneta/pgmoneta-go/"

// A place says where a package stands and what it may import.
type place struct {
	row  int
	rows []int    // rows it may import
	also []string // packages outside of those rows
}

// places is the map of the tree. Imports point from higher rows to lower ones.
func places() map[string]place {
	var (
		below1 = []int{0}
		below2 = []int{0, 1}
		below3 = []int{0, 1, 2}
		below4 = []int{0, 1, 2, 3}
	)
	return map[string]place{
		// Leaves: values, files, processes, secrets. They import nothing of ours.
		"internal/pg":      {row: 0},
		"internal/durable": {row: 0},
		"internal/logging": {row: 0},
		"internal/shmem":   {row: 0},
		"internal/ipc":     {row: 0},
		"internal/vault":   {row: 0},
		"internal/version": {row: 0},
		"internal/sha256s": {row: 0},

		// What people and programs are told about the command lines and what they print.
		"internal/cmdline":             {row: 0},
		"internal/cmdline/cmdlinetest": {row: 0, also: []string{"internal/cmdline"}},
		"doc/schema":                   {row: 0},
		"doc/schema/schematest":        {row: 0, also: []string{"doc/schema"}},

		// Formats and connections.
		"internal/config":    {row: 1, rows: below1},
		"internal/container": {row: 1, rows: below1},
		"internal/manifest":  {row: 1, rows: below1},
		"internal/pgrepl":    {row: 1, rows: below1},
		"internal/walpage":   {row: 1, rows: below1},

		// The repository, the data directory, and the messages about jobs.
		"internal/datadir":             {row: 2, rows: below2},
		"internal/storage":             {row: 2, rows: below2},
		"internal/storage/storagetest": {row: 2, rows: below2, also: []string{"internal/storage"}},
		"internal/repo":                {row: 2, rows: below2, also: []string{"internal/storage"}},
		"internal/job":                 {row: 2, rows: below2, also: []string{"internal/repo"}},
		"internal/sealed":              {row: 2, rows: below2},

		// Services.
		"internal/wal":         {row: 3, rows: below3},
		"internal/wal/waltest": {row: 3, rows: below3, also: []string{"internal/wal", "test/pgtest"}}, // for tests
		"internal/verify":      {row: 3, rows: below3},
		"internal/walcheck":    {row: 3, rows: below3},
		"internal/foreign":     {row: 3, rows: below3},
		"internal/retention":   {row: 3, rows: below3},                                     // pure
		"internal/walfile":     {row: 3, rows: below3, also: []string{"internal/foreign"}}, // WAL that C pgmoneta left

		// Backup and restore never import each other.
		"internal/backup":  {row: 4, rows: below4},
		"internal/restore": {row: 4, rows: below4},
		"internal/expire":  {row: 4, rows: below4},
		"internal/onefile": {row: 4, rows: below4},
		// What is taken over is stored as backups are.
		"internal/adopt": {row: 4, rows: below4, also: []string{"internal/backup"}},
		// A rehearsal is a restore and what follows.
		"internal/rehearse": {row: 4, rows: below4, also: []string{"internal/restore"}},

		// Faces: requests and snapshots only, never wal, backup or restore.
		"internal/mgmt":    {row: 5, rows: below3},
		"internal/metrics": {row: 5, rows: below3},
		"internal/console": {row: 5, rows: below3, also: []string{"internal/mgmt"}},

		// What runs in a child does the work and has no face.
		"internal/worker": {row: 6, rows: []int{0, 1, 2, 3, 4}},

		// What runs in the supervisor has the faces and cannot do the work by accident.
		"internal/supervisor": {row: 7, rows: []int{0, 1, 2, 5}},

		// Wiring.
		"cmd/pgmoneta":        {row: 8, rows: []int{0, 1, 2, 3, 4, 5, 6, 7}},
		"cmd/pgmoneta-cli":    {row: 8, rows: []int{0, 1, 5}, also: []string{"internal/repo", "internal/job", "internal/foreign", "internal/walcheck", "internal/restore", "internal/onefile"}}, // what needs no daemon
		"cmd/pgmoneta-admin":  {row: 8, rows: []int{0, 1}, also: []string{"internal/repo"}},                                                                                                     // rotating keys
		"cmd/pgmoneta-config": {row: 8, rows: []int{0, 1, 5}},
		"cmd/pgmoneta-wal":    {row: 8, rows: []int{0, 1, 3}},

		// Not part of any program.
		"test/pgtest": {row: 9},
		"test/compat": {row: 9, also: []string{"test/pgtest"}},
	}
}

// owners are the packages that may import a third-party module, by the beginning of its path. golang.org/x/sync and
// golang.org/x/sys are the extended standard library and free for all.
func owners() map[string][]string {
	return map[string][]string{
		"github.com/jackc/pglogrepl":          {"internal/pgrepl"},
		"github.com/jackc/pgx/v5":             {"internal/pgrepl", "test/pgtest"},
		"github.com/prometheus/client_golang": {"internal/metrics"},
		"github.com/robfig/cron/v3":           {"internal/config"},
		"github.com/xdg-go/scram":             {"internal/mgmt", "internal/vault"},
		"github.com/klauspost/compress":       {"internal/container", "internal/mgmt", "internal/metrics"}, // there for speed: a page is zipped per scrape
		"github.com/pierrec/lz4/v4":           {"internal/container", "internal/mgmt"},
		"github.com/dsnet/compress":           {"internal/container", "internal/mgmt"},
		"golang.org/x/term":                   {"internal/logging", "cmd/pgmoneta-admin", "cmd/pgmoneta-cli", "cmd/pgmoneta-config"},
		"unsafe":                              {"internal/shmem"},
		"C":                                   nil,
	}
}

// A source is one package of the tree, without its tests.
type source struct {
	dir     string              // from the root of the module
	imports map[string][]string // files by imported path
	exits   []string            // places that end the process
}

func TestImportsPointOneWay(t *testing.T) {
	table := places()
	for _, s := range sources(t) {
		from, ok := table[s.dir]
		if !ok {
			t.Errorf("package %s is not in the table: decide its row in places()", s.dir)
			continue
		}
		for imported, files := range s.imports {
			to, ours := strings.CutPrefix(imported, module)
			if !ours {
				continue
			}
			target, known := table[to]
			if known && (slices.Contains(from.rows, target.row) || slices.Contains(from.also, to)) {
				continue
			}
			t.Errorf("%s (row %d) imports %s (row %d) in %s; allowed are rows %v %v",
				s.dir, from.row, to, target.row, strings.Join(files, ", "), from.rows, from.also)
		}
	}
}

// TestTableHasNoGhosts keeps the table as true as the tree.
func TestTableHasNoGhosts(t *testing.T) {
	have := map[string]bool{}
	for _, s := range sources(t) {
		have[s.dir] = true
	}
	for dir := range places() {
		if !have[dir] {
			t.Errorf("package %s is in the table but not in the tree: remove it from places()", dir)
		}
	}
}

// TestRowsDescend checks the table itself: no row may import its own or a higher one, except by name.
func TestRowsDescend(t *testing.T) {
	for dir, p := range places() {
		for _, row := range p.rows {
			if row >= p.row {
				t.Errorf("%s stands in row %d and is allowed row %d", dir, p.row, row)
			}
		}
	}
}

func TestThirdPartyModulesHaveOneOwner(t *testing.T) {
	table := owners()
	for _, s := range sources(t) {
		for imported, files := range s.imports {
			if strings.HasPrefix(imported, module) || standard(imported) ||
				strings.HasPrefix(imported, "golang.org/x/sys") || strings.HasPrefix(imported, "golang.org/x/sync") {
				continue
			}
			owner, ok := ownersOf(table, imported)
			switch {
			case !ok:
				t.Errorf("%s imports %s in %s: a new dependency needs a line in owners()", s.dir, imported, strings.Join(files, ", "))
			case !slices.Contains(owner, s.dir):
				t.Errorf("%s imports %s in %s; only %v may", s.dir, imported, strings.Join(files, ", "), owner)
			}
		}
	}
}

func TestOnlyProgramsEndTheProcess(t *testing.T) {
	for _, s := range sources(t) {
		if strings.HasPrefix(s.dir, "cmd/") {
			continue
		}
		for _, at := range s.exits {
			t.Errorf("%s: return an error; only cmd/* may end the process", at)
		}
	}
}

// standard reports whether a path is of the standard library and free for everybody.
func standard(imported string) bool {
	first, _, _ := strings.Cut(imported, "/")
	return !strings.Contains(first, ".") && imported != "unsafe" && imported != "C"
}

// ownersOf finds the longest path of the table that imported lies in.
func ownersOf(table map[string][]string, imported string) ([]string, bool) {
	for at := imported; at != "." && at != "/"; at = path.Dir(at) {
		if owner, ok := table[at]; ok {
			return owner, true
		}
	}
	return nil, false
}

// sources reads all packages of the module.
func sources(t *testing.T) []*source {
	t.Helper()
	root := moduleRoot(t)
	found := map[string]*source{}
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() {
			if p != root && (strings.HasPrefix(name, ".") || name == "testdata" || name == "bin") {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		dir := filepath.ToSlash(filepath.Dir(rel))
		if found[dir] == nil {
			found[dir] = &source{dir: dir, imports: map[string][]string{}}
		}
		return found[dir].read(p)
	})
	if err != nil {
		t.Fatal(err)
	}
	list := slices.Collect(maps.Values(found))
	slices.SortFunc(list, func(a, b *source) int { return strings.Compare(a.dir, b.dir) })
	return list
}

// read adds one file.
func (s *source) read(file string) error {
	fset := token.NewFileSet()
	tree, err := parser.ParseFile(fset, file, nil, parser.SkipObjectResolution)
	if err != nil {
		return err
	}
	names := map[string]string{} // names in this file of the packages that can end the process
	for _, spec := range tree.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return err
		}
		s.imports[imported] = append(s.imports[imported], filepath.Base(file))
		name := path.Base(imported)
		if spec.Name != nil {
			name = spec.Name.Name
		}
		names[name] = imported
	}
	ast.Inspect(tree, func(n ast.Node) bool {
		sel, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		x, ok := sel.X.(*ast.Ident)
		if ok && ends(names[x.Name], sel.Sel.Name) {
			s.exits = append(s.exits, fmt.Sprintf("%s uses %s.%s", fset.Position(sel.Pos()), x.Name, sel.Sel.Name))
		}
		return true
	})
	return nil
}

func ends(imported, function string) bool {
	return imported == "os" && function == "Exit" || imported == "log" && strings.HasPrefix(function, "Fatal") ||
		imported == "syscall" && function == "Exit"
}

func moduleRoot(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for ; dir != "/"; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
	}
	t.Fatal("no go.mod above the directory of this test")
	return ""
}
