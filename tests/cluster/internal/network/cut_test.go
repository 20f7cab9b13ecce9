package network

import (
	"strings"
	"testing"

	"atomix.io/cluster/internal/instance"
)

func TestCutNamesEveryOtherNodeAndItsPodsAndNothingElse(t *testing.T) {
	cluster := instance.Instance{Name: "garden", Slot: 3, Nodes: 3}
	rules := renderCut(cluster, 2)
	const others = "{ 10.99.3.11, 10.163.1.0/24, 10.99.3.13, 10.163.3.0/24 }"
	for _, hook := range []string{"input", "output", "forward"} {
		if !strings.Contains(rules, "type filter hook "+hook+" ") {
			t.Errorf("no rule for %s in:\n%s", hook, rules)
		}
	}
	for _, direction := range []string{"saddr", "daddr"} {
		if count := strings.Count(rules, "ip "+direction+" "+others+" drop"); count != 3 {
			t.Errorf("%d rules by %s in:\n%s", count, direction, rules)
		}
	}
	// The node itself, its pods, the API server and the machine.
	for _, own := range []string{"10.99.3.12", "10.163.2.0", "10.99.3.1,", "10.99.3.254"} {
		if strings.Contains(rules, own) {
			t.Errorf("%s is cut off in:\n%s", own, rules)
		}
	}
}

func TestCutOfTheOnlyNodeHasNoRules(t *testing.T) {
	if rules := renderCut(instance.Instance{Nodes: 1}, 1); rules != "" {
		t.Fatalf("rules without any other node:\n%s", rules)
	}
}

func TestLinksToPodsAreAllButTheNodesOwn(t *testing.T) {
	const shown = `[{},{"ifname":"eth0","link_index":4},{"ifname":"veth51b1b3ee"},{"ifname":"vethc11a1009"}]`
	links, err := podLinks([]byte(shown))
	if err != nil || strings.Join(links, " ") != "veth51b1b3ee vethc11a1009" {
		t.Fatalf("%v, %v", links, err)
	}
	if links, err := podLinks([]byte(" \n")); err != nil || links != nil {
		t.Fatalf("%v, %v", links, err)
	}
	if _, err := podLinks([]byte("no list")); err == nil {
		t.Fatal("what is no list was read")
	}
}
