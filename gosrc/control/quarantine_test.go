package control

import (
	"encoding/json"
	"testing"

	"spvn/gosrc/dispatch"
	"spvn/gosrc/link"
	"spvn/gosrc/observe"
)

func TestSelfInflicted(t *testing.T) {
	for text, want := range map[string]bool{
		`{"signal": 11}`: true, `{"signal": 6}`: true, `{"signal": 7}`: true, `{"signal": 4}`: true, `{"signal": 8}`: true,
		`{"exit": 0}`: true, `{"exit": 3}`: true,
		`{"signal": 9}`: false, `{"signal": 15}`: false, `{"signal": 2}`: false, `{}`: false,
	} {
		var e ending
		if err := json.Unmarshal([]byte(text), &e); err != nil {
			t.Fatal(err)
		}
		if got := e.selfInflicted(); got != want {
			t.Errorf("selfInflicted of %s = %v; want %v", text, got, want)
		}
	}
}

// The two halves of what is known of a death come in either order.
func TestJudge(t *testing.T) {
	lost := &death{lost: []dispatch.LostCall{{Method: "GET", Path: "/x"}}}
	crash, kill := &ending{Signal: 11}, &ending{Signal: 9}
	for _, tt := range []struct {
		name   string
		halves [2]func(s *server)
		option float64
		want   bool
	}{
		{"calls first", [2]func(*server){
			func(s *server) { s.judge(1, lost, nil) }, func(s *server) { s.judge(1, nil, crash) }}, 60, true},
		{"ending first", [2]func(*server){
			func(s *server) { s.judge(1, nil, crash) }, func(s *server) { s.judge(1, lost, nil) }}, 60, true},
		{"killed from outside", [2]func(*server){
			func(s *server) { s.judge(1, lost, nil) }, func(s *server) { s.judge(1, nil, kill) }}, 60, false},
		{"no calls", [2]func(*server){
			func(s *server) { s.judge(1, &death{lost: []dispatch.LostCall{}}, nil) }, func(s *server) { s.judge(1, nil, crash) }}, 60, false},
		{"another worker", [2]func(*server){
			func(s *server) { s.judge(1, lost, nil) }, func(s *server) { s.judge(2, nil, crash) }}, 60, false},
		{"off", [2]func(*server){
			func(s *server) { s.judge(1, lost, nil) }, func(s *server) { s.judge(1, nil, crash) }}, 0, false},
	} {
		s := &server{
			config:   &Config{Quarantine: tt.option},
			dispatch: dispatch.New(dispatch.Settings{Loops: 1}, []*observe.Shard{observe.NewRegistry().Shard()}),
		}
		s.logs.core = observe.NewLog(func() {})
		for _, half := range tt.halves {
			half(s)
		}
		if got := s.dispatch.Quarantine.Holds([]byte("GET"), []byte("/x"), link.Monotonic()) > 0; got != tt.want {
			t.Errorf("%s: kept out = %v; want %v", tt.name, got, tt.want)
		}
		s.logs.core.Close()
	}
}

func TestDeathsAreBounded(t *testing.T) {
	s := &server{config: &Config{Quarantine: 1}}
	for worker := range 1000 {
		s.judge(worker, nil, &ending{})
	}
	if got := len(s.deaths); got > maxDeaths {
		t.Errorf("%d halves of deaths are kept; want at most %d", got, maxDeaths)
	}
}
