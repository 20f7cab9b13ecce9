package node

import (
	"encoding/json"
	"fmt"
	"path/filepath"

	"atomix.io/cluster/internal/certificates"
	"atomix.io/cluster/internal/instance"
	"atomix.io/cluster/internal/packages"
)

// PauseImage is the image of every pod's sandbox.
const PauseImage = "atomix.local/pause:1"

const containerdConfiguration = `version = 3
root = %[1]q
state = %[2]q
disabled_plugins = [
  "io.containerd.nri.v1.nri",
  "io.containerd.internal.v1.tracing",
  "io.containerd.tracing.processor.v1.otlp",
  "io.containerd.snapshotter.v1.blockfile",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.erofs",
  "io.containerd.snapshotter.v1.zfs",
]

[grpc]
  address = %[3]q

[plugins.'io.containerd.internal.v1.opt']
  path = %[4]q

[plugins.'io.containerd.cri.v1.images']
  snapshotter = %[5]q
  [plugins.'io.containerd.cri.v1.images'.pinned_images]
    sandbox = %[6]q

[plugins.'io.containerd.cri.v1.runtime']
  disable_apparmor = true
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  [plugins.'io.containerd.cri.v1.runtime'.containerd]
    default_runtime_name = "runc"
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      runtime_path = %[7]q
      [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
        BinaryName = %[8]q
        Root = %[9]q
        SystemdCgroup = false
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = [%[10]q]
    conf_dir = %[11]q
    use_internal_loopback = true
`

func renderContainerd(cluster instance.Instance, node instance.NodeNumber, binaries, runc, snapshotter string) string {
	data, state := cluster.NodeDataFolder(node), cluster.NodeRecordsFolder(node)
	return fmt.Sprintf(containerdConfiguration,
		filepath.Join(data, "containerd"),
		filepath.Join(state, "containerd"),
		cluster.ContainerdSocket(node),
		filepath.Join(data, "opt"),
		snapshotter,
		PauseImage,
		filepath.Join(binaries, "containerd-shim-runc-v2"),
		runc,
		filepath.Join(state, "runc"),
		packages.CNIPlugins,
		cniFolder(cluster, node),
	)
}

type object = map[string]any

// renderNetwork gives each pod a link of its own to its node. Every packet is
// routed there, so kube-proxy sees also those between two pods of one node,
// without any setting for bridges.
func renderNetwork(cluster instance.Instance, node instance.NodeNumber) ([]byte, error) {
	return json.MarshalIndent(object{
		// The newest that the plugins of all supported distributions speak.
		"cniVersion": "0.4.0",
		"name":       cluster.CNINetwork(node),
		"plugins": []object{{
			"type":   "ptp",
			"ipMasq": false,
			"mtu":    1500,
			"ipam": object{
				"type":    "host-local",
				"dataDir": filepath.Join(cluster.NodeRecordsFolder(node), "addresses"),
				"ranges":  [][]object{{{"subnet": cluster.PodSubnet(node).String()}}},
				"routes":  []object{{"dst": "0.0.0.0/0"}},
			},
		}},
	}, "", "  ")
}

func renderKubelet(cluster instance.Instance, node instance.NodeNumber, authority, own certificates.Files) ([]byte, error) {
	data := cluster.NodeDataFolder(node)
	return json.MarshalIndent(object{
		"apiVersion": "kubelet.config.k8s.io/v1beta1",
		"kind":       "KubeletConfiguration",
		"address":    cluster.NodeAddress(node).String(),
		"authentication": object{
			"anonymous": object{"enabled": false},
			"webhook":   object{"enabled": true},
			"x509":      object{"clientCAFile": authority.Certificate},
		},
		"authorization":            object{"mode": "Webhook"},
		"tlsCertFile":              own.Certificate,
		"tlsPrivateKeyFile":        own.Key,
		"clusterDNS":               []string{cluster.DNSServiceAddress().String()},
		"clusterDomain":            "cluster.local",
		"resolvConf":               filepath.Join(data, "resolv.conf"),
		"containerRuntimeEndpoint": "unix://" + cluster.ContainerdSocket(node),
		"cgroupDriver":             "cgroupfs",
		"cgroupRoot":               "/" + cluster.NodeCgroup(node),
		"failCgroupV1":             false,
		"failSwapOn":               false,
		"enforceNodeAllocatable":   []string{},
		// The nodes share the machine's memory and disk, which belong to others, too.
		"evictionHard":                object{"memory.available": "50Mi", "nodefs.available": "1%", "nodefs.inodesFree": "1%", "imagefs.available": "1%"},
		"imageGCHighThresholdPercent": 100,
		"imageGCLowThresholdPercent":  99,
		"volumePluginDir":             filepath.Join(data, "volume-plugins"),
		"podLogsDir":                  filepath.Join(data, "pod-logs"),
	}, "", "  ")
}

func cniFolder(cluster instance.Instance, node instance.NodeNumber) string {
	return filepath.Join(cluster.NodeDataFolder(node), "cni")
}
