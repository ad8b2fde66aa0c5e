module spvn

go 1.26.0

require (
	github.com/fsnotify/fsnotify v1.10.1
	github.com/gorilla/websocket v1.5.3
	golang.org/x/sys v0.49.0
)

// Its connections, without what needs net/http and crypto/tls: see served.go there.
replace github.com/gorilla/websocket => ./gosrc/websocket/gorilla
