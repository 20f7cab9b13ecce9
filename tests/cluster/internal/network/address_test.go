package network

import (
	"net/netip"
	"testing"

	"atomix.io/cluster/internal/instance"
)

func TestSlotAvoidsOtherClustersAndTheMachinesRoutes(t *testing.T) {
	cases := []struct {
		name   string
		taken  []instance.Slot
		routed []string
		want   instance.Slot
	}{
		{"nothing is taken", nil, nil, 0},
		{"another cluster has the first", []instance.Slot{0}, nil, 1},
		{"a gap is filled", []instance.Slot{0, 2}, nil, 1},
		{"a route touches the node subnet", nil, []string{"10.99.0.0/30"}, 1},
		{"a route touches the pods", nil, []string{"10.160.7.0/24"}, 1},
		{"a route touches the services", nil, []string{"10.200.0.10/32"}, 1},
		{"a wide route covers several", nil, []string{"10.160.0.0/14"}, 4},
		{"foreign networks do not matter", nil, []string{"192.168.0.0/16", "172.17.0.0/16"}, 0},
	}
	for _, test := range cases {
		t.Run(test.name, func(t *testing.T) {
			got, err := ChooseSlot(test.taken, parseAll(test.routed))
			if err != nil || got != test.want {
				t.Fatalf("got slot %d, %v; want %d", got, err, test.want)
			}
		})
	}
}

func TestNoFreeSlotIsAnError(t *testing.T) {
	if slot, err := ChooseSlot(nil, parseAll([]string{"10.0.0.0/8"})); err == nil {
		t.Fatalf("slot %d was chosen in a network that the machine routes", slot)
	}
}

func TestRoutesAreReadAsTheIPProgramPrintsThem(t *testing.T) {
	cases := map[string]string{
		"default":        "",
		"0.0.0.0/0":      "",
		"10.99.0.0/24":   "10.99.0.0/24",
		"10.99.0.255":    "10.99.0.255/32",
		"not an address": "",
	}
	for text, want := range cases {
		got, ok := parseRoute(text)
		if ok != (want != "") || ok && got.String() != want {
			t.Errorf("%q was read as %v, %v; want %q", text, got, ok, want)
		}
	}
}

func parseAll(texts []string) []netip.Prefix {
	var prefixes []netip.Prefix
	for _, text := range texts {
		prefixes = append(prefixes, netip.MustParsePrefix(text))
	}
	return prefixes
}
