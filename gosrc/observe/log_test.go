package observe

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func messages(records []Record) string {
	var all []string
	for _, r := range records {
		all = append(all, string(r.Level)+": "+r.Message)
	}
	return strings.Join(all, "\n")
}

func wantMessages(t *testing.T, l *Log, want ...string) {
	t.Helper()
	if got := messages(l.Drain()); got != strings.Join(want, "\n") {
		t.Errorf("records:\n%s\nwant:\n%s", got, strings.Join(want, "\n"))
	}
}

func TestLogNotifiesOncePerDrain(t *testing.T) {
	notified := 0
	l := NewLog(func() { notified++ })
	l.Printf(Info, "", "one %d", 1)
	l.Printf(Error, "", "two")
	if notified != 1 {
		t.Errorf("notified %d times; want 1", notified)
	}
	wantMessages(t, l, "info: one 1", "error: two")
	wantMessages(t, l)
	l.Printf(Debug, "", "three")
	if notified != 2 {
		t.Errorf("notified %d times; want 2", notified)
	}
}

func TestLogRateLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		notified := 0
		l := NewLog(func() { notified++ })
		for i := range logBurst + 3 {
			l.Printf(Warning, "accept", "accept failed, %d", i)
			l.Printf(Info, "other", "other")
			if i >= logBurst-1 {
				l.Drain()
			}
		}
		l.Drain()
		time.Sleep(logInterval)
		synctest.Wait()
		got := messages(l.Drain())
		for _, want := range []string{"warning: accept failed, 7 (and 2 more like it)", "info: other (and 2 more like it)"} {
			if !strings.Contains(got, want) {
				t.Errorf("after the interval:\n%s\nwant %q", got, want)
			}
		}
		if notified < 2 {
			t.Errorf("the summary came without a notification")
		}
		l.Printf(Warning, "accept", "again")
		wantMessages(t, l, "warning: again")
		time.Sleep(2 * logInterval)
		synctest.Wait()
		wantMessages(t, l) // nothing was left out, so nothing is reported
		for range logBurst + 1 {
			l.Printf(Warning, "accept", "once more")
		}
		if got := len(l.Drain()); got != logBurst {
			t.Errorf("kept %d; want %d", got, logBurst)
		}
		time.Sleep(logInterval)
		synctest.Wait()
		wantMessages(t, l, "warning: once more")
	})
}

func TestLogQueueIsBounded(t *testing.T) {
	l := NewLog(nil)
	for i := range logQueue + 10 {
		l.Printf(Info, "", "%d", i)
	}
	records := l.Drain()
	if len(records) != logQueue+1 {
		t.Fatalf("records = %d; want %d", len(records), logQueue+1)
	}
	if got, want := records[logQueue], (Record{Warning, "10 messages of the core were lost: they came faster than they were read"}); got != want {
		t.Errorf("last record = %v; want %v", got, want)
	}
	wantMessages(t, l)
}

func TestLogKeysAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLog(nil)
		for i := range 2 * logKeys {
			l.Printf(Info, fmt.Sprintf("key %d", i), "message")
			l.Drain()
		}
		if got := len(l.keys); got > logKeys+1 {
			t.Errorf("keys = %d; want at most %d", got, logKeys+1)
		}
		time.Sleep(logInterval)
		l.Printf(Info, "new", "message")
		if got := len(l.keys); got > 2 {
			t.Errorf("keys after their interval = %d; want the new one and that of the summary", got)
		}
		l.Close()
	})
}

func TestLogClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLog(nil)
		for range logBurst + 2 {
			l.Printf(Error, "k", "broken")
		}
		l.Drain()
		l.Close()
		l.Printf(Error, "", "too late")
		l.Close()
		wantMessages(t, l, "error: broken (and 1 more like it)")
	})
}

func TestLogConcurrently(t *testing.T) {
	l := NewLog(nil)
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			for j := range 1000 {
				l.Printf(Info, fmt.Sprint(j%7), "%d", i)
				if j%100 == 0 {
					l.Drain()
				}
			}
		})
	}
	all.Wait()
	l.Close()
}
