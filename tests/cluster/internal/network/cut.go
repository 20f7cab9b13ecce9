package network

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"atomix.io/cluster/internal/instance"
	"atomix.io/cluster/internal/process"
)

// cutTable holds the rules of a cut, apart from kube-proxy's.
const cutTable = "atomix-cut"

// Unplug takes the node's only cable out. Its addresses and routes stay.
func Unplug(cluster instance.Instance, node instance.NodeNumber) error {
	return run([]string{"-n", cluster.ControlNamespace(), "link", "set", node.Name(), "down"})
}

// Plug puts the cable back into a node that boots. Its rules for packets are gone,
// kube-proxy's as well, and so are the links and routes to its pods: the kernel takes
// those of killed pods apart at a time of its own, and would take the route of a new
// pod along that got the same address.
func Plug(cluster instance.Instance, node instance.NodeNumber) error {
	if err := nft(cluster, node, "flush ruleset\n"); err != nil {
		return err
	}
	if err := removePodLinks(cluster.NodeNamespace(node)); err != nil {
		return err
	}
	return run([]string{"-n", cluster.ControlNamespace(), "link", "set", node.Name(), "up"})
}

func removePodLinks(namespace string) error {
	deadline := time.Now().Add(10 * time.Second)
	for {
		output, err := exec.Command("ip", "-n", namespace, "--json", "link", "show", "type", "veth").Output()
		if err != nil {
			return fmt.Errorf("list the links in %s: %w", namespace, err)
		}
		links, err := podLinks(output)
		if err != nil || len(links) == 0 {
			return err
		}
		// One that the kernel has just removed fails here and is not listed again.
		for _, link := range links {
			err = errors.Join(err, run([]string{"-n", namespace, "link", "delete", link}))
		}
		if err != nil && time.Now().After(deadline) {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// podLinks reads the links to pods off what ip says of all.
func podLinks(output []byte) ([]string, error) {
	if len(bytes.TrimSpace(output)) == 0 {
		return nil, nil
	}
	var links []struct {
		Name string `json:"ifname"`
	}
	if err := json.Unmarshal(output, &links); err != nil {
		return nil, fmt.Errorf("read the links of a node: %w", err)
	}
	var names []string
	for _, link := range links {
		if link.Name != "" && link.Name != NodeInterface {
			names = append(names, link.Name)
		}
	}
	return names, nil
}

// CutFromNodes drops what comes from other nodes and their pods and what goes
// there; the control plane still reaches the node.
func CutFromNodes(cluster instance.Instance, node instance.NodeNumber) error {
	return nft(cluster, node, removeTable()+renderCut(cluster, node))
}

// Heal undoes both kinds of cut.
func Heal(cluster instance.Instance, node instance.NodeNumber) error {
	if err := nft(cluster, node, removeTable()); err != nil {
		return err
	}
	return run([]string{"-n", cluster.ControlNamespace(), "link", "set", node.Name(), "up"})
}

// removeTable first makes the table, so that it may be missing.
func removeTable() string {
	return fmt.Sprintf("table ip %[1]s {}\ndelete table ip %[1]s\n", cutTable)
}

func renderCut(cluster instance.Instance, node instance.NodeNumber) string {
	var others []string
	for _, other := range cluster.NodeNumbers() {
		if other != node {
			others = append(others, cluster.NodeAddress(other).String(), cluster.PodSubnet(other).String())
		}
	}
	if len(others) == 0 {
		return ""
	}
	set := strings.Join(others, ", ")
	var rules strings.Builder
	fmt.Fprintf(&rules, "table ip %s {\n", cutTable)
	for _, hook := range []string{"input", "output", "forward"} {
		// After the translation of service addresses, which comes before routing.
		fmt.Fprintf(&rules, "  chain %[1]s {\n    type filter hook %[1]s priority 10; policy accept;\n", hook)
		fmt.Fprintf(&rules, "    ip saddr { %[1]s } drop\n    ip daddr { %[1]s } drop\n  }\n", set)
	}
	rules.WriteString("}\n")
	return rules.String()
}

func nft(cluster instance.Instance, node instance.NodeNumber, rules string) error {
	line := process.InNamespace(cluster.NodeNamespace(node), "nft", "-f", "-")
	command := exec.Command(line[0], line[1:]...)
	command.Stdin = strings.NewReader(rules)
	if output, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("change the packet rules of %s: %w: %s", node.Name(), err, strings.TrimSpace(string(output)))
	}
	return nil
}

// NamespaceID tells a network namespace from all others of this machine.
func NamespaceID(namespace string) (string, error) {
	var stat syscall.Stat_t
	path := filepath.Join("/run/netns", namespace)
	if err := syscall.Stat(path, &stat); err != nil {
		return "", fmt.Errorf("look at network namespace %s: %w", path, err)
	}
	return fmt.Sprintf("net:[%d]", stat.Ino), nil
}

// IsIn says whether the process lives in the network namespace with that id.
func IsIn(process int, namespaceID string) bool {
	link, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", process))
	return err == nil && link == namespaceID
}
