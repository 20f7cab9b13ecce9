// Package controlplane issues the cluster's certificates and starts etcd, the
// API server, the controller manager and the scheduler in the namespace of the
// control plane.
package controlplane

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"atomix.io/cluster/internal/certificates"
	"atomix.io/cluster/internal/instance"
	"atomix.io/cluster/internal/process"
)

const (
	authorityFile         = "ca"
	adminFile             = "admin"
	serverFile            = "kube-apiserver"
	serverAsClientFile    = "kube-apiserver-kubelet-client"
	serviceAccountFile    = "service-account"
	controllerManagerFile = "kube-controller-manager"
	schedulerFile         = "kube-scheduler"
	frontProxyFile        = "front-proxy"

	etcdURL     = "http://127.0.0.1:2379"
	etcdPeerURL = "http://127.0.0.1:2380"
)

// AdminFiles are the certificate files of the cluster's administrator.
func AdminFiles(cluster instance.Instance) (authority, admin certificates.Files) {
	folder := cluster.CertificateFolder()
	return certificates.FilesIn(folder, authorityFile), certificates.FilesIn(folder, adminFile)
}

// IssueCertificates makes the authority and all that the control plane needs.
func IssueCertificates(cluster instance.Instance) (*certificates.Authority, error) {
	authority, err := certificates.NewAuthority(cluster.CertificateFolder())
	if err != nil {
		return nil, err
	}
	requests := []certificates.Request{
		{File: adminFile, User: "admin", Groups: []string{"system:masters"}},
		{
			File:      serverFile,
			User:      "kube-apiserver",
			Names:     []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"},
			Addresses: []netip.Addr{cluster.ControlAddress(), cluster.KubernetesServiceAddress(), netip.MustParseAddr("127.0.0.1")},
		},
		{File: serverAsClientFile, User: "kube-apiserver-kubelet-client", Groups: []string{"system:masters"}},
		{File: frontProxyFile, User: "front-proxy-client"},
		{File: serviceAccountFile, User: "service-account"},
		{File: controllerManagerFile, User: "system:kube-controller-manager"},
		{File: schedulerFile, User: "system:kube-scheduler"},
	}
	for _, request := range requests {
		if _, err := authority.Issue(request); err != nil {
			return nil, err
		}
	}
	for _, name := range []string{controllerManagerFile, schedulerFile} {
		if err := WriteKubeconfig(cluster, authority.Files(authorityFile), authority.Files(name), kubeconfigPath(cluster, name)); err != nil {
			return nil, err
		}
	}
	return authority, nil
}

// WriteKubeconfig writes a kubeconfig for the holder of the client certificate.
func WriteKubeconfig(cluster instance.Instance, authority, client certificates.Files, path string) error {
	content, err := certificates.Kubeconfig("atomix-"+cluster.Name, cluster.APIServer(), authority, client)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, content, 0o600)
}

// AdminKubeconfig is the kubeconfig that the cluster's users get.
func AdminKubeconfig(cluster instance.Instance) ([]byte, error) {
	authority, admin := AdminFiles(cluster)
	return certificates.Kubeconfig("atomix-"+cluster.Name, cluster.APIServer(), authority, admin)
}

// StartStore starts etcd. The cluster's data is thrown away with the cluster, so
// etcd need not wait for the disk.
func StartStore(cluster instance.Instance, binaries string) error {
	return process.Start(cluster, process.Spec{
		Name:      "etcd",
		Namespace: cluster.ControlNamespace(),
		Program:   filepath.Join(binaries, "etcd"),
		Arguments: []string{
			"--name=etcd",
			"--data-dir=" + filepath.Join(cluster.DataFolder(), "etcd"),
			"--unsafe-no-fsync",
			"--listen-client-urls=" + etcdURL,
			"--advertise-client-urls=" + etcdURL,
			"--listen-peer-urls=" + etcdPeerURL,
			"--initial-advertise-peer-urls=" + etcdPeerURL,
			"--initial-cluster=etcd=" + etcdPeerURL,
			"--log-level=warn",
		},
	})
}

// StartAPIServer starts the API server with the instance's own arguments last.
func StartAPIServer(cluster instance.Instance, binaries string) error {
	folder := cluster.CertificateFolder()
	authority := certificates.FilesIn(folder, authorityFile)
	server := certificates.FilesIn(folder, serverFile)
	kubelet := certificates.FilesIn(folder, serverAsClientFile)
	frontProxy := certificates.FilesIn(folder, frontProxyFile)
	serviceAccount := certificates.FilesIn(folder, serviceAccountFile)
	arguments := []string{
		"--etcd-servers=" + etcdURL,
		"--advertise-address=" + cluster.ControlAddress().String(),
		"--bind-address=0.0.0.0",
		"--secure-port=6443",
		"--service-cluster-ip-range=" + cluster.ServiceNetwork().String(),
		"--allow-privileged=true",
		"--authorization-mode=Node,RBAC",
		"--enable-admission-plugins=NodeRestriction",
		"--client-ca-file=" + authority.Certificate,
		"--tls-cert-file=" + server.Certificate,
		"--tls-private-key-file=" + server.Key,
		// Without these, kubectl logs and exec answer Unauthorized.
		"--kubelet-certificate-authority=" + authority.Certificate,
		"--kubelet-client-certificate=" + kubelet.Certificate,
		"--kubelet-client-key=" + kubelet.Key,
		"--kubelet-preferred-address-types=InternalIP",
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-account-key-file=" + serviceAccount.Key,
		"--service-account-signing-key-file=" + serviceAccount.Key,
		"--proxy-client-cert-file=" + frontProxy.Certificate,
		"--proxy-client-key-file=" + frontProxy.Key,
		"--requestheader-client-ca-file=" + authority.Certificate,
		"--requestheader-allowed-names=front-proxy-client",
		"--requestheader-username-headers=X-Remote-User",
		"--requestheader-group-headers=X-Remote-Group",
		"--requestheader-extra-headers-prefix=X-Remote-Extra-",
		// No kube-proxy serves this namespace: webhooks are reached by the
		// addresses of their pods, whatever becomes of the first node.
		"--enable-aggregator-routing=true",
	}
	return process.Start(cluster, process.Spec{
		Name:      "kube-apiserver",
		Namespace: cluster.ControlNamespace(),
		Program:   filepath.Join(binaries, "kube-apiserver"),
		Arguments: append(arguments, cluster.APIServerArguments...),
	})
}

// StartControllerManager starts the controllers.
func StartControllerManager(cluster instance.Instance, binaries string) error {
	folder := cluster.CertificateFolder()
	authority := certificates.FilesIn(folder, authorityFile)
	kubeconfig := kubeconfigPath(cluster, controllerManagerFile)
	return process.Start(cluster, process.Spec{
		Name:      "kube-controller-manager",
		Namespace: cluster.ControlNamespace(),
		Program:   filepath.Join(binaries, "kube-controller-manager"),
		Arguments: []string{
			"--kubeconfig=" + kubeconfig,
			"--authentication-kubeconfig=" + kubeconfig,
			"--authorization-kubeconfig=" + kubeconfig,
			"--bind-address=127.0.0.1",
			"--root-ca-file=" + authority.Certificate,
			"--cluster-signing-cert-file=" + authority.Certificate,
			"--cluster-signing-key-file=" + authority.Key,
			"--service-account-private-key-file=" + certificates.FilesIn(folder, serviceAccountFile).Key,
			"--use-service-account-credentials=true",
			"--leader-elect=false",
			// The default of 20 requests/s makes each namespace's end take seconds, of many at once minutes.
			"--kube-api-qps=200",
			"--kube-api-burst=400",
			"--allocate-node-cidrs=false",
			"--flex-volume-plugin-dir=" + filepath.Join(cluster.DataFolder(), "volume-plugins"),
		},
	})
}

// StartScheduler starts the scheduler.
func StartScheduler(cluster instance.Instance, binaries string) error {
	kubeconfig := kubeconfigPath(cluster, schedulerFile)
	return process.Start(cluster, process.Spec{
		Name:      "kube-scheduler",
		Namespace: cluster.ControlNamespace(),
		Program:   filepath.Join(binaries, "kube-scheduler"),
		Arguments: []string{
			"--kubeconfig=" + kubeconfig,
			"--authentication-kubeconfig=" + kubeconfig,
			"--authorization-kubeconfig=" + kubeconfig,
			"--bind-address=127.0.0.1",
			"--leader-elect=false",
		},
	})
}

// CheckArguments refuses API server arguments that are not options.
func CheckArguments(arguments []string) error {
	for _, argument := range arguments {
		if !strings.HasPrefix(argument, "--") {
			return fmt.Errorf("API server argument %q does not begin with --", argument)
		}
	}
	return nil
}

func kubeconfigPath(cluster instance.Instance, name string) string {
	return filepath.Join(cluster.CertificateFolder(), name+".kubeconfig")
}
