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

func TestNodeIsFoundByItsNameOnly(t *testing.T) {
	cluster := Instance{Name: "garden", Nodes: 3}
	if node, err := cluster.NodeNamed("node-3"); err != nil || node != 3 {
		t.Fatalf("node-3 is %d, %v", node, err)
	}
	for _, wrong := range []string{"node-0", "node-4", "3", "node-03", ""} {
		if node, err := cluster.NodeNamed(wrong); err == nil {
			t.Errorf("%q is %d", wrong, node)
		}
	}
	alone := Instance{Name: "garden", Nodes: 3, ControlPlaneOnly: true}
	if _, err := alone.NodeNamed("node-1"); err == nil {
		t.Error("a control plane has a node")
	}
}

func TestPowerOfANodeGoesAndComes(t *testing.T) {
	cluster := Instance{Nodes: 3}
	off := cluster.WithPower(3, false).WithPower(1, false).WithPower(1, false)
	if !off.IsStopped(1) || off.IsStopped(2) || !off.IsStopped(3) || len(off.StoppedNodes) != 2 {
		t.Fatalf("stopped: %v", off.StoppedNodes)
	}
	if on := off.WithPower(3, true).WithPower(1, true); len(on.StoppedNodes) != 0 {
		t.Fatalf("stopped: %v", on.StoppedNodes)
	}
	if len(cluster.StoppedNodes) != 0 {
		t.Fatal("the original changed")
	}
}
