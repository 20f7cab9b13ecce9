package build

// Tool is a set of programs built from one module under tools/.
type Tool struct {
	// Name is the folder under tools/.
	Name string
	// Package is what `go build` is asked for: "tool" for the module's tool lines.
	Package string
	// LinkerFlags are passed by -ldflags.
	LinkerFlags string
	// Programs maps the name that `go build` gives a program to the one it gets here.
	Programs map[string]string
	// Expectation says how long a cold build takes on two cores.
	Expectation string
}

// The Kubernetes build must tell the programs their version, else they report v0.0.0.
const kubernetesLinkerFlags = "-s -w" +
	" -X k8s.io/component-base/version.gitVersion=v1.36.3" +
	" -X k8s.io/component-base/version.gitMajor=1" +
	" -X k8s.io/component-base/version.gitMinor=36"

// Tools lists everything that the cluster is made of, the slowest build first.
func Tools() []Tool {
	return []Tool{
		{
			Name:        "kubernetes",
			Package:     "tool",
			LinkerFlags: kubernetesLinkerFlags,
			Programs: map[string]string{
				"kube-apiserver":          "kube-apiserver",
				"kube-controller-manager": "kube-controller-manager",
				"kube-scheduler":          "kube-scheduler",
				"kube-proxy":              "kube-proxy",
				"kubelet":                 "kubelet",
				"kubectl":                 "kubectl",
			},
			Expectation: "about 5 minutes",
		},
		{
			Name:        "containerd",
			Package:     "tool",
			LinkerFlags: "-s -w -X github.com/containerd/containerd/v2/version.Version=v2.2.1",
			Programs: map[string]string{
				"containerd":              "containerd",
				"containerd-shim-runc-v2": "containerd-shim-runc-v2",
				"ctr":                     "ctr",
			},
			Expectation: "about 1.5 minutes",
		},
		{
			Name:        "etcd",
			Package:     "tool",
			LinkerFlags: "-s -w",
			Programs: map[string]string{
				"server":    "etcd",
				"etcdctl":   "etcdctl",
				"benchmark": "etcd-benchmark",
			},
			Expectation: "about 1 minute",
		},
		{
			Name:        "coredns",
			Package:     ".",
			LinkerFlags: "-s -w",
			Programs:    map[string]string{"coredns": "coredns"},
			Expectation: "about 1 minute",
		},
		{
			Name:        "pause",
			Package:     ".",
			LinkerFlags: "-s -w",
			Programs:    map[string]string{"pause": "pause"},
			Expectation: "a second",
		},
		{
			Name:        "helm",
			Package:     "tool",
			LinkerFlags: "-s -w -X helm.sh/helm/v3/internal/version.version=v3.19.2",
			Programs:    map[string]string{"helm": "helm"},
			Expectation: "about 2 minutes",
		},
	}
}
