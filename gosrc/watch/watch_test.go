package watch

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestFilter(t *testing.T) {
	o := Options{
		Includes:    []string{"*.py", "templates/*.html"},
		Excludes:    []string{".*", "*_pb2.py", "gen/old"},
		ExcludeDirs: []string{"/src/data"},
	}
	for file, want := range map[string]bool{
		"/src/main.py":          true,
		"/src/main.pyc":         false,
		"/src/a/b.py":           true,
		"/src/.hidden.py":       false,
		"/src/a_pb2.py":         false,
		"/src/templates/x.html": true,
		"/src/other/x.html":     false,
	} {
		if got := o.wants(file); got != want {
			t.Errorf("wants(%q) = %v; want %v", file, got, want)
		}
	}
	for dir, want := range map[string]bool{
		"/src/a":           true,
		"/src/.git":        false,
		"/src/__pycache__": false,
		"/src/data":        false,
		"/src/gen/old":     false,
		"/src/old":         true,
	} {
		if got := o.enters(dir); got != want {
			t.Errorf("enters(%q) = %v; want %v", dir, got, want)
		}
	}
}

// watched is a Watcher of a new directory and what it tells.
func watched(t *testing.T, delay float64) (string, chan []string) {
	t.Helper()
	dir, told := t.TempDir(), make(chan []string, 10)
	o := Options{Dirs: []string{dir}, Includes: []string{"*.py"}, Excludes: []string{".*"}, Delay: delay}
	w, err := New(o, func(paths []string) { told <- paths }, func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return dir, told
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// expect waits until all of these names, relative to dir, were told, and no others.
func expect(t *testing.T, dir string, told chan []string, names ...string) {
	t.Helper()
	missing := map[string]bool{}
	for _, name := range names {
		missing[filepath.Join(dir, name)] = true
	}
	timeout := time.After(10 * time.Second)
	for len(missing) > 0 {
		select {
		case paths := <-told:
			for _, path := range paths {
				if !missing[path] && !contains(names, strings.TrimPrefix(path, dir+"/")) {
					t.Errorf("told of %s; want only %v", path, names)
				}
				delete(missing, path)
			}
		case <-timeout:
			t.Fatalf("not told of %v", missing)
		}
	}
}

func contains(names []string, name string) bool {
	for _, n := range names {
		if n == name {
			return true
		}
	}
	return false
}

func TestChangesAreTold(t *testing.T) {
	dir, told := watched(t, 0.02)
	write(t, filepath.Join(dir, "notes.txt"), "no")
	write(t, filepath.Join(dir, "main.py"), "a")
	expect(t, dir, told, "main.py")

	write(t, filepath.Join(dir, ".main.py.swp"), "no")
	write(t, filepath.Join(dir, "new.tmp"), "b")
	if err := os.Rename(filepath.Join(dir, "new.tmp"), filepath.Join(dir, "main.py")); err != nil {
		t.Fatal(err)
	}
	expect(t, dir, told, "main.py")

	write(t, filepath.Join(dir, "pkg", "deep", "mod.py"), "c")
	expect(t, dir, told, "pkg/deep/mod.py")
	write(t, filepath.Join(dir, "pkg", "deep", "mod.py"), "d")
	expect(t, dir, told, "pkg/deep/mod.py")

	if err := os.Chtimes(filepath.Join(dir, "main.py"), time.Now(), time.Now()); err != nil {
		t.Fatal(err)
	}
	expect(t, dir, told, "main.py")
	if err := os.Remove(filepath.Join(dir, "main.py")); err != nil {
		t.Fatal(err)
	}
	expect(t, dir, told, "main.py")
}

func TestChangesAreGathered(t *testing.T) {
	dir, told := watched(t, 0.2)
	names := []string{"a.py", "b.py", "c.py"}
	for _, name := range names {
		write(t, filepath.Join(dir, name), "x")
	}
	select {
	case paths := <-told:
		if len(paths) != len(names) {
			t.Errorf("told of %v at once; want all of %v", paths, names)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("told of nothing")
	}
}

func TestNoSuchDirectory(t *testing.T) {
	_, err := New(Options{Dirs: []string{"/no/such/dir"}}, nil, nil)
	if err == nil || !strings.Contains(err.Error(), "/no/such/dir") {
		t.Errorf("New = %v; want an error that names the directory", err)
	}
}
