package network

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"atomix.io/cluster/internal/instance"
	"atomix.io/cluster/internal/process"
)

// cutTable holds the rules of a cut, apart from kube-proxy's.
const cutTable = "atomix-cut"

// Unplug takes the node's only cable out. Its addresses and routes stay.
func Unplug(cluster instance.Instance, node instance.NodeNumber) error {
	return run([]string{"-n", cluster.ControlNamespace(), "link", "set", node.Name(), "down"})
}

// Plug puts the cable back into a node that boots, whose rules for packets are
// gone, kube-proxy's as well.
func Plug(cluster instance.Instance, node instance.NodeNumber) error {
	if err := nft(cluster, node, "flush ruleset\n"); err != nil {
		return err
	}
	return run([]string{"-n", cluster.ControlNamespace(), "link", "set", node.Name(), "up"})
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
