package watch

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"
)

// fresh is how young a file's time of modification is when only its attributes are said to
// have changed and it counts as touched.
const fresh = 2 * time.Second

// Watcher watches until it is closed. Its methods may be called concurrently.
type Watcher struct {
	options Options
	notify  *fsnotify.Watcher
	changed func(paths []string)
	trouble func(err error)
	done    chan struct{}
}

// New starts to watch. changed gets the files that changed, trouble what went wrong later
// on; both are called from the Watcher's goroutine.
func New(options Options, changed func(paths []string), trouble func(err error)) (*Watcher, error) {
	notify, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, explain(err)
	}
	w := &Watcher{options: options, notify: notify, changed: changed, trouble: trouble, done: make(chan struct{})}
	for _, dir := range options.Dirs {
		info, err := os.Stat(dir)
		if err == nil && !info.IsDir() {
			err = fmt.Errorf("%s is not a directory", dir)
		}
		if err == nil {
			_, err = w.add(dir)
		}
		if err != nil {
			notify.Close()
			return nil, explain(err)
		}
	}
	go w.run()
	return w, nil
}

// Close ends the watching; nothing is told after it has returned.
func (w *Watcher) Close() {
	w.notify.Close()
	<-w.done
}

// add watches a directory and those below it. It returns the files of interest in it: they
// may have been written before the directory was watched.
func (w *Watcher) add(root string) (files []string, err error) {
	err = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			if path != root || errors.Is(err, fs.ErrNotExist) {
				return nil // it has gone meanwhile, or is not ours to read
			}
			return err
		}
		if !entry.IsDir() {
			if w.options.wants(path) {
				files = append(files, path)
			}
			return nil
		}
		if path != root && !w.options.enters(path) {
			return fs.SkipDir
		}
		if err := w.notify.Add(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	})
	return files, err
}

func (w *Watcher) run() {
	defer close(w.done)
	delay := time.Duration(w.options.Delay * float64(time.Second))
	pending := map[string]bool{}
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	defer timer.Stop()
	for {
		select {
		case event, open := <-w.notify.Events:
			if !open {
				return
			}
			if w.take(event, pending) {
				timer.Reset(delay)
			}
		case err, open := <-w.notify.Errors:
			if !open {
				return
			}
			w.trouble(explain(err))
		case <-timer.C:
			paths := make([]string, 0, len(pending))
			for path := range pending {
				paths = append(paths, path)
			}
			sort.Strings(paths)
			clear(pending)
			w.changed(paths)
		}
	}
}

// take adds what the event says to pending; false if it is of no interest.
func (w *Watcher) take(event fsnotify.Event, pending map[string]bool) bool {
	if event.Has(fsnotify.Create) {
		if info, err := os.Lstat(event.Name); err == nil && info.IsDir() {
			return w.takeDir(event.Name, pending)
		}
	}
	if !w.options.wants(event.Name) {
		return false
	}
	if event.Op == fsnotify.Chmod {
		// touch(1) changes a file's time and nothing else; other changes of attributes are not told.
		info, err := os.Stat(event.Name)
		if err != nil || time.Since(info.ModTime()) > fresh {
			return false
		}
	}
	pending[event.Name] = true
	return true
}

func (w *Watcher) takeDir(dir string, pending map[string]bool) bool {
	if !w.options.enters(dir) {
		return false
	}
	files, err := w.add(dir)
	if err != nil {
		w.trouble(explain(err))
	}
	for _, file := range files {
		pending[file] = true
	}
	return len(files) > 0
}

// explain adds what to do about the limits that watching runs into.
func explain(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EMFILE) {
		return fmt.Errorf("cannot watch files: %w; raise fs.inotify.max_user_watches and max_user_instances (sysctl), "+
			"or watch fewer directories with --reload-dir", err)
	}
	return fmt.Errorf("cannot watch files: %w", err)
}
