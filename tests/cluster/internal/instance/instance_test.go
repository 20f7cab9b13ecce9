package instance

import (
	"net/netip"
	"strings"
	"testing"
)

func TestNamesOfInterfacesFitTheKernelForEveryInstance(t *testing.T) {
	for _, name := range []string{"a", "dev", strings.Repeat("x", 40)} {
		cluster := Instance{Name: name, Nodes: MaximumNodes}
		names := []string{cluster.HostInterface()}
		for _, node := range cluster.NodeNumbers() {
			names = append(names, node.Name())
		}
		for _, interfaceName := range names {
			if len(interfaceName) > 15 {
				t.Errorf("interface %q of instance %q is longer than 15", interfaceName, name)
			}
		}
	}
}

func TestInstancesShareNoAddress(t *testing.T) {
	var all []netip.Prefix
	for slot := range Slot(Slots) {
		for _, prefix := range slot.Prefixes() {
			if prefix != prefix.Masked() {
				t.Errorf("%s is not a network address", prefix)
			}
			for _, other := range all {
				if prefix.Overlaps(other) {
					t.Errorf("%s of slot %d overlaps with %s", prefix, slot, other)
				}
			}
			all = append(all, prefix)
		}
	}
}

func TestAddressesLieInTheirNetworksAndDiffer(t *testing.T) {
	cluster := Instance{Name: "x", Slot: Slots - 1, Nodes: MaximumNodes}
	seen := map[netip.Addr]bool{cluster.ControlAddress(): true, cluster.HostAddress(): true}
	for _, node := range cluster.NodeNumbers() {
		address := cluster.NodeAddress(node)
		if !cluster.NodeSubnet().Contains(address) || seen[address] {
			t.Errorf("address %s of %s is outside of %s or taken", address, node.Name(), cluster.NodeSubnet())
		}
		seen[address] = true
		if !cluster.PodNetwork().Overlaps(cluster.PodSubnet(node)) {
			t.Errorf("pods of %s are outside of the pod network", node.Name())
		}
	}
	for _, address := range []netip.Addr{cluster.DNSServiceAddress(), cluster.KubernetesServiceAddress()} {
		if !cluster.ServiceNetwork().Contains(address) {
			t.Errorf("service address %s is outside of %s", address, cluster.ServiceNetwork())
		}
	}
}

func TestDefaultNameIsValidAndDiffersByPath(t *testing.T) {
	seen := map[string]bool{}
	for _, clone := range []string{"/a/atomix", "/b/atomix", "/", "/src/Ünï côdé", "/x/" + strings.Repeat("long", 30), "/x/-dash-"} {
		name := DefaultName(clone)
		if err := CheckName(name); err != nil {
			t.Error(err)
		}
		if seen[name] {
			t.Errorf("%s gets a name that another clone has: %s", clone, name)
		}
		seen[name] = true
	}
}

func TestNamesThatWouldLeaveTheirFolderAreRefused(t *testing.T) {
	for _, name := range []string{"", ".", "..", "a/b", "-a", "a-", "A", strings.Repeat("x", 41)} {
		if CheckName(name) == nil {
			t.Errorf("%q was accepted", name)
		}
	}
}
