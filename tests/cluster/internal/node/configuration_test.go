package node

import (
	"encoding/json"
	"strings"
	"testing"

	"atomix.io/cluster/internal/certificates"
	"atomix.io/cluster/internal/instance"
)

// Two nodes of one machine must not meet in any file, socket or cgroup.
func TestConfigurationsOfTwoNodesShareNoPath(t *testing.T) {
	cluster := instance.Instance{Name: "example", Slot: 3, Nodes: 2}
	first, second := pathsOf(t, cluster, 1), pathsOf(t, cluster, 2)
	if len(first) < 8 {
		t.Fatalf("only these paths were found: %v", first)
	}
	for path := range first {
		if second[path] {
			t.Errorf("both nodes use %s", path)
		}
	}
}

func TestConfigurationsOfTwoInstancesShareNoPath(t *testing.T) {
	first := pathsOf(t, instance.Instance{Name: "one", Slot: 0, Nodes: 1}, 1)
	second := pathsOf(t, instance.Instance{Name: "two", Slot: 1, Nodes: 1}, 1)
	for path := range first {
		if second[path] {
			t.Errorf("both instances use %s", path)
		}
	}
}

// pathsOf collects what is quoted and below one of the clusters' roots.
func pathsOf(t *testing.T, cluster instance.Instance, node instance.NodeNumber) map[string]bool {
	t.Helper()
	kubelet, err := renderKubelet(cluster, node,
		certificates.FilesIn("/shared", "ca"), certificates.FilesIn(cluster.CertificateFolder(), node.Name()))
	if err != nil {
		t.Fatal(err)
	}
	network, err := renderNetwork(cluster, node)
	if err != nil {
		t.Fatal(err)
	}
	for _, content := range [][]byte{kubelet, network} {
		if !json.Valid(content) {
			t.Fatalf("not JSON: %s", content)
		}
	}
	containerd := renderContainerd(cluster, node, "/binaries", "/usr/sbin/runc", "overlayfs")
	if strings.Contains(containerd, "%!") {
		t.Fatalf("a value is missing in the configuration of containerd:\n%s", containerd)
	}
	paths := map[string]bool{}
	for _, text := range []string{containerd, string(kubelet), string(network)} {
		for index, part := range strings.Split(text, `"`) {
			isQuoted := index%2 == 1
			part = strings.TrimPrefix(part, "unix://")
			ours := strings.HasPrefix(part, instance.RecordsRoot) || strings.HasPrefix(part, instance.DataRoot) ||
				strings.HasPrefix(part, "/"+instance.CgroupRoot)
			if isQuoted && ours {
				paths[part] = true
			}
		}
	}
	return paths
}
