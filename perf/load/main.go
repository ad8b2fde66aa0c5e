// Command load is the harness's own client, for what wrk cannot do: constant rates (an open loop), bursts of
// connections, idle connections, WebSockets and server-sent events. It prints JSON on standard output, errors on standard error.
//
// Its rule: every call that was planned appears in exactly one number of the account it prints: ok, status by
// code, errors by kind, or unsent. Nothing is retried.
package main

import (
	"encoding/json"
	"fmt"
	"os"
)

type command struct {
	name string
	help string
	run  func(args []string) (any, error)
}

var commands = []command{
	{"rate", "calls at a constant rate, whatever the server does (vegeta)", runRate},
	{"open", "the same, going round all connections in turn", runOpen},
	{"closed", "connections opened at once; each asks again when it was answered", runClosed},
	{"idle", "opens connections, asks one call each, holds them until a line on standard input", runIdle},
	{"websocket", "messages to a WebSocket echo, or a broadcast", runWebSocket},
	{"sse", "subscribes to a server-sent event stream and accounts for every event", runSSE},
}

func main() {
	if len(os.Args) >= 2 {
		for _, c := range commands {
			if c.name == os.Args[1] {
				finish(c.run(os.Args[2:]))
			}
		}
	}
	fmt.Fprintln(os.Stderr, "usage: load COMMAND [flags]; load COMMAND -h lists the flags")
	for _, c := range commands {
		fmt.Fprintf(os.Stderr, "  %-9s %s\n", c.name, c.help)
	}
	os.Exit(2)
}

func finish(report any, err error) {
	if err == nil {
		err = printJSON(report)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// printJSON writes one line, so that a driver can read several reports from one run.
func printJSON(report any) error {
	return json.NewEncoder(os.Stdout).Encode(report)
}
