package config

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// DefaultDir holds the configuration files when no flag says otherwise.
const DefaultDir = "/etc/pgmoneta"

// DirectoryVariable is the environment variable that stands for -D.
const DirectoryVariable = "PGMONETA_CONFIG_DIR"

// Names of the files below a configuration directory.
const (
	ConfigName = "pgmoneta.conf"
	UsersName  = "pgmoneta_users.conf"
	AdminsName = "pgmoneta_admins.conf"
	CLIName    = "pgmoneta_cli.conf"
)

// Flags are the options of the daemon that choose its files; empty ones were not given.
type Flags struct {
	Config    string // -c
	Users     string // -u
	Admins    string // -A
	Directory string // -D
}

// Files are the files of a daemon.
type Files struct {
	Config      string
	Users       string
	Admins      string
	AdminsGiven bool   // chosen by -A or found below -D: then a bad file is fatal
	Warning     string // something worth a log line, else empty
}

// Locate chooses the files of the daemon: a flag of its own wins, then the file below -D or $PGMONETA_CONFIG_DIR if it exists,
// then the one below /etc/pgmoneta. It does not check the files themselves.
func Locate(flags Flags, env func(string) (string, bool)) (Files, error) {
	directory := flags.Directory
	if directory == "" {
		directory, _ = env(DirectoryVariable)
	}
	if directory != "" {
		if err := checkDirectory(directory); err != nil {
			return Files{}, err
		}
	}
	files := Files{}
	files.Config, _ = choose(flags.Config, directory, ConfigName)
	files.Users, _ = choose(flags.Users, directory, UsersName)
	files.Admins, files.AdminsGiven = choose(flags.Admins, directory, AdminsName)
	if directory != "" && filepath.Clean(directory) == DefaultDir {
		files.Warning = "the configuration directory " + DefaultDir + " is the default and can be omitted"
	}
	return files, nil
}

// choose returns the path of one file and whether it was asked for rather than the default.
func choose(flag, directory, name string) (path string, given bool) {
	if flag != "" {
		return flag, true
	}
	if directory != "" {
		path := filepath.Join(directory, name)
		if _, err := os.Stat(path); err == nil {
			return path, true
		}
	}
	return filepath.Join(DefaultDir, name), false
}

func checkDirectory(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return &FileError{path, "configuration directory not found", err}
	}
	if !info.IsDir() {
		return &FileError{path, "configuration directory is not a directory", nil}
	}
	if err := unix.Access(path, unix.R_OK|unix.X_OK); err != nil {
		return &FileError{path, "configuration directory is not readable", fmt.Errorf("access: %w", err)}
	}
	return nil
}
