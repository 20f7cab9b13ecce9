package cgroups

import (
	"slices"
	"testing"
)

func TestMountsOfBothCgroupVersionsAreRecognized(t *testing.T) {
	cases := []struct {
		line    string
		found   bool
		mount   string
		unified bool
	}{
		{"31 24 0:27 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate", true, "/sys/fs/cgroup", true},
		{"33 32 0:29 / /sys/fs/cgroup/cpuset rw,relatime shared:9 - cgroup cgroup rw,cpuset", true, "/sys/fs/cgroup/cpuset", false},
		{"22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw", false, "", false},
		{"", false, "", false},
	}
	for _, test := range cases {
		got, found := parseMount(test.line)
		if found != test.found || got.mount != test.mount || got.isUnified != test.unified {
			t.Errorf("%q was read as %+v, %v", test.line, got, found)
		}
	}
	cpuset, _ := parseMount(cases[1].line)
	if !slices.Contains(cpuset.controllers, "cpuset") {
		t.Errorf("controllers are %v", cpuset.controllers)
	}
}

func TestMembershipEndsAtTheNamesBoundary(t *testing.T) {
	const path = "atomix-cluster/dev"
	cases := map[string]bool{
		"5:memory:/atomix-cluster/dev\n":                      true,
		"1:name=systemd:/\n0::/atomix-cluster/dev/node-1/x\n": true,
		"5:memory:/atomix-cluster/dev-two/processes\n":        false,
		"5:memory:/other/atomix-cluster/dev\n":                false,
		"garbage\n":                                           false,
	}
	for content, want := range cases {
		if got := mentions(content, path); got != want {
			t.Errorf("%q: member is %v, want %v", content, got, want)
		}
	}
}
