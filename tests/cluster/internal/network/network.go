// Package network lays the cluster's cables: a network namespace for the control
// plane, which holds the bridge, one for each node, and one link to the machine.
// The bridge is in a namespace of its own, so the machine's firewall (also
// Docker's filtering of bridged packets) neither sees nor needs to know it.
// Pods' own namespaces are made by the CNI plugins.
package network

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"atomix.io/cluster/internal/instance"
	"atomix.io/cluster/internal/process"
)

const (
	bridge = "cluster0"
	// NodeInterface is a node's link to the bridge, seen from the node.
	NodeInterface = "eth0"
)

// Routed lists the destinations that the machine routes already.
func Routed() ([]netip.Prefix, error) {
	output, err := exec.Command("ip", "--json", "-4", "route", "show", "table", "all").Output()
	if err != nil {
		return nil, fmt.Errorf("list this machine's routes: %w", err)
	}
	var routes []struct {
		Destination string `json:"dst"`
	}
	if len(strings.TrimSpace(string(output))) > 0 {
		if err := json.Unmarshal(output, &routes); err != nil {
			return nil, fmt.Errorf("read this machine's routes: %w", err)
		}
	}
	var prefixes []netip.Prefix
	for _, route := range routes {
		if prefix, ok := parseRoute(route.Destination); ok {
			prefixes = append(prefixes, prefix)
		}
	}
	return prefixes, nil
}

// Make lays everything of the cluster.
func Make(cluster instance.Instance) error {
	if err := makeControlPlane(cluster); err != nil {
		return err
	}
	for _, node := range cluster.NodeNumbers() {
		if err := makeNode(cluster, node); err != nil {
			return err
		}
	}
	for _, node := range cluster.NodeNumbers() {
		if err := makePodRoutes(cluster, node); err != nil {
			return err
		}
	}
	return nil
}

func makeControlPlane(cluster instance.Instance) error {
	control := cluster.ControlNamespace()
	bits := cluster.NodeSubnet().Bits()
	return run(
		[]string{"netns", "add", control},
		[]string{"-n", control, "link", "set", "lo", "up"},
		[]string{"-n", control, "link", "add", bridge, "type", "bridge"},
		[]string{"-n", control, "address", "add", fmt.Sprintf("%s/%d", cluster.ControlAddress(), bits), "dev", bridge},
		[]string{"-n", control, "link", "set", bridge, "up"},
		[]string{"link", "add", cluster.HostInterface(), "type", "veth", "peer", "name", "host", "netns", control},
		[]string{"-n", control, "link", "set", "host", "master", bridge, "up"},
		[]string{"address", "add", fmt.Sprintf("%s/%d", cluster.HostAddress(), bits), "dev", cluster.HostInterface()},
		[]string{"link", "set", cluster.HostInterface(), "up"},
	)
}

func makeNode(cluster instance.Instance, node instance.NodeNumber) error {
	control, namespace := cluster.ControlNamespace(), cluster.NodeNamespace(node)
	address := fmt.Sprintf("%s/%d", cluster.NodeAddress(node), cluster.NodeSubnet().Bits())
	err := run(
		[]string{"netns", "add", namespace},
		[]string{"-n", namespace, "link", "set", "lo", "up"},
		[]string{"-n", namespace, "link", "add", NodeInterface, "type", "veth", "peer", "name", node.Name(), "netns", control},
		[]string{"-n", control, "link", "set", node.Name(), "master", bridge, "up"},
		[]string{"-n", namespace, "address", "add", address, "dev", NodeInterface},
		[]string{"-n", namespace, "link", "set", NodeInterface, "up"},
	)
	if err != nil {
		return err
	}
	forward := process.InNamespace(namespace, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
	if output, err := exec.Command(forward[0], forward[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("let %s forward packets: %w: %s", node.Name(), err, output)
	}
	return nil
}

// makePodRoutes tells the machine, the control plane and the other nodes where a
// node's pods are. Service addresses go by the first node, whose kube-proxy
// serves the machine and the control plane, too.
func makePodRoutes(cluster instance.Instance, node instance.NodeNumber) error {
	pods, gateway := cluster.PodSubnet(node).String(), cluster.NodeAddress(node).String()
	commands := [][]string{
		{"route", "add", pods, "via", gateway},
		{"-n", cluster.ControlNamespace(), "route", "add", pods, "via", gateway},
	}
	if node == 1 {
		services := cluster.ServiceNetwork().String()
		commands = append(commands,
			[]string{"route", "add", services, "via", gateway},
			[]string{"-n", cluster.ControlNamespace(), "route", "add", services, "via", gateway})
	}
	for _, other := range cluster.NodeNumbers() {
		if other != node {
			commands = append(commands, []string{"-n", cluster.NodeNamespace(other), "route", "add", pods, "via", gateway})
		}
	}
	return run(commands...)
}

// Remove deletes the cluster's namespaces and its link to the machine; the links
// and routes inside go with them. What is gone already is no error.
func Remove(cluster instance.Instance) error {
	namespaces := []string{cluster.ControlNamespace()}
	for _, node := range cluster.NodeNumbers() {
		namespaces = append(namespaces, cluster.NodeNamespace(node))
	}
	for _, namespace := range namespaces {
		if _, err := os.Stat(filepath.Join("/run/netns", namespace)); errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err := run([]string{"netns", "delete", namespace}); err != nil {
			return err
		}
	}
	return removeHostInterface(cluster.HostInterface())
}

// removeHostInterface also waits until the kernel, which takes namespaces apart
// in the background, has let go of the name.
func removeHostInterface(name string) error {
	path := filepath.Join("/sys/class/net", name)
	deadline := time.Now().Add(10 * time.Second)
	for {
		if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
			return nil
		}
		err := run([]string{"link", "delete", name})
		if err == nil {
			continue
		}
		if time.Now().After(deadline) {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func run(commands ...[]string) error {
	for _, arguments := range commands {
		output, err := exec.Command("ip", arguments...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("ip %s: %w: %s", strings.Join(arguments, " "), err, strings.TrimSpace(string(output)))
		}
	}
	return nil
}
