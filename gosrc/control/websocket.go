package control

import (
	"spvn/gosrc/call"
	"spvn/gosrc/observe"
	"spvn/gosrc/websocket"
)

// webSockets is what the WebSocket connections of one loop share; nil without any.
func (s *server) webSockets(counters *observe.Shard) call.WebSockets {
	c := s.config
	if c.WS == "none" {
		return nil
	}
	w := websocket.NewConfig()
	w.MaxSize = c.WSMaxSize
	w.PingInterval = seconds(c.WSPingInterval)
	w.PingTimeout = seconds(c.WSPingTimeout)
	w.SendTimeout = seconds(c.TimeoutWSSend)
	w.Deflate = c.WSPerMessageDeflate
	w.Count = func(e websocket.Event) {
		switch e {
		case websocket.Opened:
			counters.Inc(observe.WebSocketsOpen)
		case websocket.Closed:
			counters.Dec(observe.WebSocketsOpen)
		case websocket.ClosingOver:
			counters.Dec(observe.WebSocketsClosing)
		}
		if counter := webSocketCounters[e]; counter != 0 {
			counters.Inc(counter)
		}
	}
	return w
}

var webSocketCounters = [websocket.NumEvents]observe.Counter{
	websocket.Opened:           observe.WebSocketsAccepted,
	websocket.Closed:           observe.WebSocketsClosed,
	websocket.Closing:          observe.WebSocketsClosing,
	websocket.MessageIn:        observe.WebSocketsMessagesIn,
	websocket.MessageOut:       observe.WebSocketsMessagesOut,
	websocket.PingSent:         observe.WebSocketsPingsOut,
	websocket.PingReceived:     observe.WebSocketsPingsIn,
	websocket.TimedOutPing:     observe.WebSocketsTimedOutPing,
	websocket.TimedOutSend:     observe.WebSocketsTimedOutSend,
	websocket.TooLarge:         observe.WebSocketsTooLarge,
	websocket.OverBudget:       observe.WebSocketsOverBudget,
	websocket.NotText:          observe.WebSocketsNotText,
	websocket.ProtocolError:    observe.WebSocketsProtocolError,
	websocket.HandshakeRefused: observe.WebSocketsRefused,
}
