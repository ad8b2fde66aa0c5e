package control

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"

	"golang.org/x/sys/unix"

	"spvn/gosrc/listen"
)

// Config is what Python sends to Start. Every field is named as the option it comes from
// (config.py says what each means); times are seconds, sizes bytes, and what is left out
// or null has the default of parseConfig.
type Config struct {
	Version   string `json:"version"`
	InProcess bool   `json:"in_process"` // the app runs in this process too
	Workers   int    `json:"workers"`    // how many processes it runs in, as far as that is known

	Bind      []string `json:"bind"`
	UDS       string   `json:"uds"`
	FD        *int     `json:"fd"`
	Host      *string  `json:"host"`
	Port      int      `json:"port"`
	Backlog   int      `json:"backlog"`
	ListenFDs int      `json:"listen_fds"`
	ListenPID int      `json:"listen_pid"`
	IOThreads int      `json:"io_threads"`
	Transport string   `json:"transport"` // "poll" (the default) or "goroutines"
	RootPath  string   `json:"root_path"` // for the access log; the scope's is the worker's

	LimitRequestLine int  `json:"limit_request_line"`
	LimitHeaderBytes int  `json:"limit_header_bytes"`
	LimitHeaderCount int  `json:"limit_header_count"`
	LimitBody        *int `json:"limit_body"`
	LimitConcurrency *int `json:"limit_concurrency"`
	LimitConnections *int `json:"limit_connections"`

	TimeoutHeader           float64 `json:"timeout_header"`
	TimeoutBody             float64 `json:"timeout_body"`
	TimeoutKeepAlive        float64 `json:"timeout_keep_alive"`
	TimeoutWrite            float64 `json:"timeout_write"`
	TimeoutQueue            float64 `json:"timeout_queue"`
	TimeoutWorkerStart      float64 `json:"timeout_worker_start"`
	TimeoutGracefulShutdown float64 `json:"timeout_graceful_shutdown"`
	StallWarning            float64 `json:"stall_warning"`
	RetrySafe               bool    `json:"retry_safe"`
	Quarantine              float64 `json:"quarantine"`

	TimeoutRequest   float64 `json:"timeout_request"`
	TimeoutFirstByte float64 `json:"timeout_first_byte"`
	DeadlineHeader   string  `json:"deadline_header"`

	LimitConnectionRequests    *int     `json:"limit_connection_requests"`
	LimitConnectionsPerAddress *int     `json:"limit_connections_per_address"`
	LimitConnectionRate        *float64 `json:"limit_connection_rate"`
	MinBodyRate                *int     `json:"min_body_rate"`

	LimitBufferedBodies *int `json:"limit_buffered_bodies"`
	LimitBufferedOutput *int `json:"limit_buffered_output"`

	PriorityPaths   []string `json:"priority_paths"`
	HealthCheckPath string   `json:"health_check_path"`
	LivenessPath    string   `json:"liveness_path"`

	ServerHeader      bool        `json:"server_header"`
	DateHeader        bool        `json:"date_header"`
	Headers           [][2]string `json:"headers"`
	ProxyHeaders      bool        `json:"proxy_headers"`
	ForwardedAllowIPs []string    `json:"forwarded_allow_ips"`

	WS                  string  `json:"ws"`
	WSMaxSize           int     `json:"ws_max_size"`
	WSMaxQueue          int     `json:"ws_max_queue"`
	WSPingInterval      float64 `json:"ws_ping_interval"`
	WSPingTimeout       float64 `json:"ws_ping_timeout"`
	WSPerMessageDeflate bool    `json:"ws_per_message_deflate"`
	TimeoutWSSend       float64 `json:"timeout_ws_send"`

	AccessLog       bool   `json:"access_log"`
	AccessLogFD     *int   `json:"access_log_fd"`
	AccessLogColors bool   `json:"access_log_colors"`
	ControlSocket   string `json:"control_socket"`
	StackFD         *int   `json:"stack_fd"`     // a pipe that this process writes its Python stacks to; stays the caller's
	StackSignal     int    `json:"stack_signal"` // when it gets this signal
	ProfileCore     string `json:"profile_core"`
}

// parseConfig reads a configuration. With an error it returns what could be read.
func parseConfig(text string) (*Config, error) {
	c := &Config{
		Port:                    8000,
		LimitRequestLine:        16 << 10,
		LimitHeaderBytes:        64 << 10,
		LimitHeaderCount:        128,
		TimeoutHeader:           10,
		TimeoutBody:             30,
		TimeoutKeepAlive:        75,
		TimeoutWrite:            30,
		TimeoutQueue:            10,
		TimeoutWorkerStart:      60,
		TimeoutGracefulShutdown: 30,
		StallWarning:            1,
		RetrySafe:               true,
		WS:                      "auto",
		WSMaxSize:               16 << 20,
		WSMaxQueue:              32,
		WSPingInterval:          20,
		WSPingTimeout:           20,
		WSPerMessageDeflate:     true,
		TimeoutWSSend:           20,
		ServerHeader:            true,
		DateHeader:              true,
		ProxyHeaders:            true,
	}
	if err := json.Unmarshal([]byte(text), c); err != nil {
		return c, fmt.Errorf("the core's configuration is not understood: %w", err)
	}
	return c, nil
}

// takeAccessLog is the descriptor that the access log goes to, which belongs to the caller
// from now on; -1 for none.
func (c *Config) takeAccessLog() int {
	if c.AccessLogFD == nil {
		return -1
	}
	fd := *c.AccessLogFD
	c.AccessLogFD = nil
	return fd
}

// dropAccessLog closes that descriptor if nobody has taken it.
func (c *Config) dropAccessLog() {
	if fd := c.takeAccessLog(); fd >= 0 {
		unix.Close(fd)
	}
}

// seconds is a time as options give it; 0 and less is no time.
func seconds(s float64) time.Duration {
	return time.Duration(min(max(s, 0), math.MaxInt64/2e9) * float64(time.Second))
}

func orZero(p *int) int {
	if p == nil {
		return 0
	}
	return *p
}

// startError is an error of Start as Python reads it.
func startError(err error) error {
	kind, option, value := "start", "", ""
	var address *listen.Error
	if errors.As(err, &address) {
		kind, option, value = "address", address.Option, address.Value
	}
	text, _ := json.Marshal(map[string]string{"kind": kind, "option": option, "value": value, "message": err.Error()})
	return errors.New(string(text))
}
