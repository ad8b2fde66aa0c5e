// Package watch tells of files that change below some directories, for live reloading.
//
// The operating system tells of changes (inotify on Linux); directories that appear later
// are watched too. Changes that come within Options.Delay of each other are told at once,
// when there was none for that long.
//
// One goroutine belongs to a Watcher: it alone touches what it knows of the files, and it
// ends with Close. The package imports none of the others.
package watch
