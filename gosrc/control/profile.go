package control

import (
	"fmt"
	"os"
	"runtime/pprof"
	"sync"
)

// profiling guards the one CPU profile that a process can have at a time.
var profiling sync.Mutex

// startProfile writes a CPU profile of the core to a file until the server stops; see
// `go tool pprof`. It costs a few percent.
func (s *server) startProfile() error {
	path := s.config.ProfileCore
	if path == "" {
		return nil
	}
	if !profiling.TryLock() {
		return fmt.Errorf("--profile-core %s: another server of this process is being profiled", path)
	}
	file, err := os.Create(path)
	if err == nil {
		err = pprof.StartCPUProfile(file)
	}
	if err != nil {
		profiling.Unlock()
		return fmt.Errorf("--profile-core %s: cannot profile: %w", path, err)
	}
	s.stopProfile = func() {
		pprof.StopCPUProfile()
		file.Close()
		profiling.Unlock()
	}
	return nil
}
