package watch

import (
	"path"
	"path/filepath"
	"strings"
)

// Options says what is watched. Includes and Excludes are patterns as path.Match has them;
// one without a slash is held against each name, one with a slash against the end of the
// path.
type Options struct {
	Dirs        []string // absolute
	Includes    []string // files that are told of
	Excludes    []string // files and directories that are not, also if they are included
	ExcludeDirs []string // absolute
	Delay       float64  // seconds
}

// wants says whether a change of this file is told.
func (o *Options) wants(file string) bool {
	return matches(o.Includes, file) && !matches(o.Excludes, file)
}

// enters says whether this directory, below one of Dirs, is watched.
func (o *Options) enters(dir string) bool {
	for _, excluded := range o.ExcludeDirs {
		if dir == excluded {
			return false
		}
	}
	return filepath.Base(dir) != "__pycache__" && !matches(o.Excludes, dir)
}

func matches(patterns []string, file string) bool {
	parts := strings.Split(filepath.ToSlash(file), "/")
	for _, pattern := range patterns {
		pattern = strings.Trim(pattern, "/")
		end := parts[max(0, len(parts)-1-strings.Count(pattern, "/")):]
		if ok, _ := path.Match(pattern, strings.Join(end, "/")); ok {
			return true
		}
	}
	return false
}
