// Package instance knows what one cluster is called and which names, addresses
// and folders follow from that. It changes nothing on the machine.
package instance

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

const (
	// RecordsRoot holds one folder of records for each cluster of the machine.
	RecordsRoot = "/run/atomix-cluster"
	// DataRoot holds one folder of data (disks, images, logs) for each cluster.
	DataRoot = "/var/lib/atomix-cluster"
	// CgroupRoot is the parent of all cgroups made here.
	CgroupRoot = "atomix-cluster"
	// Slots is how many clusters can get addresses at the same time.
	Slots = 40
	// MaximumNodes is bounded by the addresses of one node subnet.
	MaximumNodes = 50
)

// Slot is the number from which all addresses of a cluster follow.
type Slot int

// NodeNumber counts nodes from 1.
type NodeNumber int

// Instance is one cluster. It is written to its records before anything is made.
type Instance struct {
	Name               string   `json:"name"`
	Slot               Slot     `json:"slot"`
	Nodes              int      `json:"nodes"`
	ControlPlaneOnly   bool     `json:"controlPlaneOnly"`
	APIServerArguments []string `json:"apiServerArguments,omitempty"`
	Kubeconfig         string   `json:"kubeconfig"`
	// StoppedNodes are those whose power is off on purpose.
	StoppedNodes []NodeNumber `json:"stoppedNodes,omitempty"`
	// Boot is the kernel's boot id: process ids of another boot mean nothing.
	Boot string `json:"boot"`
}

var validName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$`)

// CheckName says what is wrong with an instance name, if anything.
func CheckName(name string) error {
	if !validName.MatchString(name) {
		return fmt.Errorf("instance name %q is not valid; use at most 40 lower-case letters, digits and inner hyphens", name)
	}
	return nil
}

// DefaultName is derived from the clone's path, so that each clone has its own cluster.
func DefaultName(clone string) string {
	base := strings.Map(func(char rune) rune {
		switch {
		case char >= 'a' && char <= 'z', char >= '0' && char <= '9':
			return char
		case char >= 'A' && char <= 'Z':
			return char + 'a' - 'A'
		default:
			return '-'
		}
	}, filepath.Base(clone))
	base = strings.Trim(base, "-")
	if len(base) > 20 {
		base = strings.TrimRight(base[:20], "-")
	}
	if base == "" {
		base = "clone"
	}
	return base + "-" + shortHash(clone)
}

// NodeNumbers lists the nodes; a control plane alone has none.
func (i Instance) NodeNumbers() []NodeNumber {
	if i.ControlPlaneOnly {
		return nil
	}
	numbers := make([]NodeNumber, i.Nodes)
	for index := range numbers {
		numbers[index] = NodeNumber(index + 1)
	}
	return numbers
}

// NodeNamed finds a node by its Kubernetes name.
func (i Instance) NodeNamed(name string) (NodeNumber, error) {
	for _, node := range i.NodeNumbers() {
		if node.Name() == name {
			return node, nil
		}
	}
	if i.ControlPlaneOnly {
		return 0, fmt.Errorf("cluster %s has no nodes", i.Name)
	}
	return 0, fmt.Errorf("cluster %s has no node %q; its nodes are %s to %s", i.Name, name, NodeNumber(1).Name(), NodeNumber(i.Nodes).Name())
}

// IsStopped says whether the node's power is off on purpose.
func (i Instance) IsStopped(node NodeNumber) bool { return slices.Contains(i.StoppedNodes, node) }

// WithPower is the cluster with the node switched on or off.
func (i Instance) WithPower(node NodeNumber, isOn bool) Instance {
	others := slices.DeleteFunc(slices.Clone(i.StoppedNodes), func(stopped NodeNumber) bool { return stopped == node })
	if !isOn {
		others = append(others, node)
		slices.Sort(others)
	}
	i.StoppedNodes = others
	return i
}

// RecordsFolder holds the records, sockets and other state of the running cluster.
func (i Instance) RecordsFolder() string { return filepath.Join(RecordsRoot, i.Name) }

// DataFolder holds what is large: etcd's data, images, volumes, logs.
func (i Instance) DataFolder() string { return filepath.Join(DataRoot, i.Name) }

// LogFolder holds one log for each process.
func (i Instance) LogFolder() string { return filepath.Join(i.DataFolder(), "logs") }

// CertificateFolder holds keys, certificates and the components' kubeconfigs.
func (i Instance) CertificateFolder() string { return filepath.Join(i.DataFolder(), "certificates") }

// NodeRecordsFolder holds the sockets and mounts of one node.
func (i Instance) NodeRecordsFolder(node NodeNumber) string {
	return filepath.Join(i.RecordsFolder(), node.Name())
}

// NodeDataFolder holds the images, pods and volumes of one node.
func (i Instance) NodeDataFolder(node NodeNumber) string {
	return filepath.Join(i.DataFolder(), node.Name())
}

// VolumeFolder holds the persistent volumes of one node.
func (i Instance) VolumeFolder(node NodeNumber) string {
	return filepath.Join(i.NodeDataFolder(node), "volumes")
}

// ContainerdSocket is the address of a node's containerd.
func (i Instance) ContainerdSocket(node NodeNumber) string {
	return filepath.Join(i.NodeRecordsFolder(node), "containerd.sock")
}

// Cgroup is the parent of all cgroups of this cluster.
func (i Instance) Cgroup() string { return CgroupRoot + "/" + i.Name }

// ProcessCgroup holds the cluster's own processes.
func (i Instance) ProcessCgroup() string { return i.Cgroup() + "/processes" }

// NodeCgroup holds the pods of one node.
func (i Instance) NodeCgroup(node NodeNumber) string { return i.Cgroup() + "/" + node.Name() }

// ControlNamespace is the network namespace of the control plane and of the bridge.
func (i Instance) ControlNamespace() string { return "atx-" + i.Name + "-control" }

// NodeNamespace is the network namespace of one node.
func (i Instance) NodeNamespace(node NodeNumber) string { return "atx-" + i.Name + "-" + node.Name() }

// HostInterface is the machine's own end of the link to the cluster.
// Interface names have at most 15 characters, so the name is hashed.
func (i Instance) HostInterface() string { return "atx-" + shortHash(i.Name) }

// CNINetwork is the name under which the CNI plugins file what they keep.
func (i Instance) CNINetwork(node NodeNumber) string {
	return "atx-" + shortHash(i.Name) + "-" + node.Name()
}

// NodeSubnet holds the control plane, the nodes and the machine itself.
func (i Instance) NodeSubnet() netip.Prefix { return i.Slot.nodeSubnet() }

// ControlAddress is where the API server listens.
func (i Instance) ControlAddress() netip.Addr { return hostOf(i.NodeSubnet(), 1) }

// HostAddress is the machine's own address in the node subnet.
func (i Instance) HostAddress() netip.Addr { return hostOf(i.NodeSubnet(), 254) }

// NodeAddress is the address of one node.
func (i Instance) NodeAddress(node NodeNumber) netip.Addr {
	return hostOf(i.NodeSubnet(), byte(10+node))
}

// PodNetwork holds the pod subnets of all nodes.
func (i Instance) PodNetwork() netip.Prefix { return i.Slot.podNetwork() }

// PodSubnet holds the pods of one node.
func (i Instance) PodSubnet(node NodeNumber) netip.Prefix {
	bytes := i.PodNetwork().Addr().As4()
	bytes[2] = byte(node)
	return netip.PrefixFrom(netip.AddrFrom4(bytes), 24)
}

// ServiceNetwork holds the cluster addresses of services.
func (i Instance) ServiceNetwork() netip.Prefix { return i.Slot.serviceNetwork() }

// KubernetesServiceAddress is the cluster address of the API server.
func (i Instance) KubernetesServiceAddress() netip.Addr { return hostOf(i.ServiceNetwork(), 1) }

// DNSServiceAddress is the cluster address of CoreDNS.
func (i Instance) DNSServiceAddress() netip.Addr { return hostOf(i.ServiceNetwork(), 10) }

// APIServer is the URL of the API server.
func (i Instance) APIServer() string {
	return fmt.Sprintf("https://%s:6443", i.ControlAddress())
}

// Name is the Kubernetes name of the node.
func (n NodeNumber) Name() string { return fmt.Sprintf("node-%d", n) }

// Prefixes are all networks that a slot takes.
func (s Slot) Prefixes() []netip.Prefix {
	return []netip.Prefix{s.nodeSubnet(), s.podNetwork(), s.serviceNetwork()}
}

func (s Slot) nodeSubnet() netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 99, byte(s), 0}), 24)
}

func (s Slot) podNetwork() netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 160 + byte(s), 0, 0}), 16)
}

func (s Slot) serviceNetwork() netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 200 + byte(s), 0, 0}), 16)
}

func hostOf(prefix netip.Prefix, last byte) netip.Addr {
	bytes := prefix.Addr().As4()
	bytes[3] = last
	return netip.AddrFrom4(bytes)
}

func shortHash(text string) string {
	digest := sha256.Sum256([]byte(text))
	return hex.EncodeToString(digest[:])[:6]
}
