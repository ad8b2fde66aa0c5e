package link_test

import (
	"encoding/binary"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"spvn/gosrc/link"
)

// Two processes send each other records of random sizes through small rings as fast as
// they can and now and then go to sleep: every record must arrive once, whole and in
// order, and nobody may sleep for ever. SPVN_SOAK=1 runs it for a minute.
func TestStressAcrossProcesses(t *testing.T) {
	duration := 2 * time.Second
	if os.Getenv("SPVN_SOAK") != "" {
		duration = time.Minute
	}
	if testing.Short() {
		duration = 200 * time.Millisecond
	}
	l := newLink(t)
	bell, err := link.NewBell()
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(bell)
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), "SPVN_STRESS_CHILD="+strconv.Itoa(int(duration.Milliseconds())))
	child.Stderr = os.Stderr
	for _, fd := range []int{l.Memfd, l.Bell, bell} {
		dup, err := unix.Dup(fd)
		if err != nil {
			t.Fatal(err)
		}
		f := os.NewFile(uintptr(dup), "link")
		defer f.Close()
		child.ExtraFiles = append(child.ExtraFiles, f)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	port := l.Port(0)
	sent, got, failure := stress(port.Inbox, port.Outbox, l.Bell, bell, duration, false)
	if failure != "" {
		child.Process.Kill()
		t.Error(failure)
	}
	if err := child.Wait(); err != nil {
		t.Errorf("the other process: %v", err)
	}
	t.Logf("%d records sent, %d received", sent, got)
	if sent == 0 || got == 0 {
		t.Errorf("got %d records sent and %d received; want some", sent, got)
	}
}

func stressChild() {
	ms, _ := strconv.Atoi(os.Getenv("SPVN_STRESS_CHILD"))
	l, err := link.Attach(3, 4, small)
	if err != nil {
		println("attach:", err.Error())
		os.Exit(1)
	}
	w := l.Worker(0)
	_, _, failure := stress(w.Outbox, w.Inbox, 5, 4, time.Duration(ms)*time.Millisecond, true)
	if failure != "" {
		println(failure)
		os.Exit(1)
	}
	os.Exit(0)
}

// stress plays one side. Payload: u32 number, u32 checksum, bytes. Number 0xffffffff ends.
// A side sleeps until it is rung when its ring is full or it has sent all that it will;
// patient also when it has nothing to read. The other one always comes back by itself.
func stress(out *link.Producer, in *link.Consumer, peerBell, bell int, d time.Duration, patient bool) (sent, got uint32, failure string) {
	rnd := rand.New(rand.NewPCG(uint64(os.Getpid()), 1))
	end := time.Now().Add(d)
	buffer := make([]byte, 1024)
	closing, closed := false, false
	for !closed || !closing {
		wrote, full := false, false
		for n := rnd.IntN(12); n > 0 && !closing; n-- {
			number := sent
			if time.Now().After(end) {
				number = ^uint32(0)
			}
			size := 8 + rnd.IntN(link.MaxRecord(small.InboxSize)-link.RecordHeaderSize-8)
			if rnd.IntN(3) > 0 {
				size = 8 + rnd.IntN(64)
			}
			b, err := out.Reserve(size, link.Body, 0, 1, 0)
			if err != nil {
				return sent, got, err.Error()
			}
			if b == nil {
				if out.WantRoom() {
					continue
				}
				full = true
				break
			}
			for i := 8; i < size; i++ {
				b[i] = byte(rnd.Uint32())
			}
			binary.LittleEndian.PutUint32(b, number)
			binary.LittleEndian.PutUint32(b[4:], crc32.ChecksumIEEE(b[8:size]))
			wrote = true
			if number == ^uint32(0) {
				closing = true
			} else {
				sent++
			}
			if rnd.IntN(3) == 0 && out.Publish() {
				link.Ring(peerBell)
			}
		}
		if out.Pending() && out.Publish() {
			link.Ring(peerBell)
		}
		took := false
		for n := rnd.IntN(12); n > 0; n-- {
			r, ok, err := in.Next()
			if err != nil {
				return sent, got, err.Error()
			}
			if !ok {
				break
			}
			took = true
			buffer = append(buffer[:0], r.Payload...)
			number := binary.LittleEndian.Uint32(buffer)
			if number == ^uint32(0) {
				closed = true
				continue
			}
			if number != got {
				return sent, got, "got record " + strconv.Itoa(int(number)) + "; want " + strconv.Itoa(int(got))
			}
			sum, matches := binary.LittleEndian.Uint32(buffer[4:]), false
			for padding := 0; padding < 8 && 8 <= len(buffer)-padding; padding++ {
				matches = matches || crc32.ChecksumIEEE(buffer[8:len(buffer)-padding]) == sum
			}
			if !matches {
				return sent, got, "record " + strconv.Itoa(int(number)) + " is damaged"
			}
			got++
		}
		if in.Release() {
			link.Ring(peerBell)
		}
		if !wrote && !took && !(closed && closing) {
			if in.Arm(false) {
				fds := []unix.PollFd{{Fd: int32(bell), Events: unix.POLLIN}}
				ms := 10000
				if !full && (!closing || closed) && (!patient || closed) {
					ms = rnd.IntN(2)
				}
				n, err := unix.Poll(fds, ms)
				if err == nil && n == 0 && ms == 10000 {
					return sent, got, "slept for ten seconds: a wake-up was lost"
				}
				link.Silence(bell)
			}
			in.Disarm()
		}
	}
	return sent, got, ""
}
