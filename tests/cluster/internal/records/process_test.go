package records

import (
	"os/exec"
	"runtime"
	"testing"
	"time"
)

func TestStatIsReadBehindAProgramNameWithParenthesesAndBlanks(t *testing.T) {
	const line = "4242 (a) b (c) S 1 4242 4242 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 11 0 98765 1000 200"
	stat, err := parseStat(line)
	if err != nil {
		t.Fatal(err)
	}
	if stat.state != 'S' || stat.startTicks != 98765 {
		t.Fatalf("read state %c and start %d", stat.state, stat.startTicks)
	}
}

func TestStatThatIsCutShortIsAnError(t *testing.T) {
	for _, line := range []string{"", "12 no name", "12 (name) S 1 2 3"} {
		if _, err := parseStat(line); err == nil {
			t.Errorf("%q was accepted", line)
		}
	}
}

func TestProcessLivesUntilItIsKilledAndReaped(t *testing.T) {
	command := startSleeper(t)
	recorded, err := Identify("sleeper", command.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	if !recorded.Lives() {
		t.Fatal("a running process counts as dead")
	}
	if err := recorded.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := command.Wait(); err == nil {
		t.Fatal("the process was not killed")
	}
	if recorded.Lives() {
		t.Fatal("a process that is gone counts as alive")
	}
	if err := recorded.Kill(); err != nil {
		t.Fatalf("killing a dead process: %v", err)
	}
}

func TestStrangerWithTheRecordedIdIsNeverKilled(t *testing.T) {
	command := startSleeper(t)
	recorded, err := Identify("sleeper", command.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	stale := recorded
	stale.StartTicks--
	if stale.Lives() {
		t.Fatal("another start time counts as the same process")
	}
	if err := stale.Kill(); err != nil {
		t.Fatal(err)
	}
	if !recorded.Lives() {
		t.Fatal("a stranger was killed")
	}
}

func TestZombieIsDead(t *testing.T) {
	command := startSleeper(t)
	recorded, err := Identify("sleeper", command.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	// Nobody waits for it yet, so it stays in the process table as a zombie.
	deadline := time.Now().Add(10 * time.Second)
	for recorded.Lives() {
		if time.Now().After(deadline) {
			t.Fatal("a zombie counts as alive")
		}
		runtime.Gosched()
	}
	if _, err := readStat(recorded.ID); err != nil {
		t.Fatalf("the process was reaped, so the test shows nothing: %v", err)
	}
}

func startSleeper(t *testing.T) *exec.Cmd {
	t.Helper()
	// Waits for an input that never comes, so it needs no time limit.
	command := exec.Command("cat")
	if _, err := command.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = command.Process.Kill()
		_ = command.Wait()
	})
	return command
}
