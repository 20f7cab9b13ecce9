package mounts

import "testing"

func TestMountPointsWithBlanksAreReadAsTheyAre(t *testing.T) {
	line := `36 35 98:0 /mnt1 /var/lib/a\040b\134c rw,noatime master:1 - ext3 /dev/root rw`
	got, ok := mountPoint(line)
	if !ok || got != `/var/lib/a b\c` {
		t.Fatalf("read %q, %v", got, ok)
	}
	if _, ok := mountPoint("too short"); ok {
		t.Fatal("a damaged line was accepted")
	}
}
