package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"atomix.io/cluster/internal/api"
	"atomix.io/cluster/internal/controlplane"
	"atomix.io/cluster/internal/instance"
	"atomix.io/cluster/internal/process"
	"atomix.io/cluster/internal/records"
)

// startPatience is for each step of a start; a busy machine needs seconds.
const startPatience = 2 * time.Minute

// Examine says what is wrong with a recorded cluster; nil means that it runs.
func Examine(ctx context.Context, cluster instance.Instance) error {
	boot, err := records.BootID()
	if err != nil {
		return err
	}
	if cluster.Boot != boot {
		return errors.New("the machine was restarted")
	}
	if !records.IsReady(cluster) {
		return errors.New("its start did not finish")
	}
	dead, err := process.Dead(cluster)
	if err != nil {
		return err
	}
	if len(dead) > 0 {
		return fmt.Errorf("these processes ended: %s", strings.Join(dead, ", "))
	}
	client, err := AdminClient(cluster)
	if err != nil {
		return err
	}
	// A busy machine may answer late; only an answer that stays away means death.
	return poll(ctx, 15*time.Second, func(ctx context.Context) error {
		return client.Get(ctx, "/readyz", nil)
	})
}

// AdminClient is a client with all rights.
func AdminClient(cluster instance.Instance) (*api.Client, error) {
	authority, admin := controlplane.AdminFiles(cluster)
	return api.NewClient(cluster.APIServer(), authority, admin)
}

func waitForAPI(ctx context.Context, cluster instance.Instance) error {
	client, err := AdminClient(cluster)
	if err != nil {
		return err
	}
	return waitFor(ctx, cluster, "the API server is ready", func(ctx context.Context) error {
		return client.Get(ctx, "/readyz", nil)
	})
}

// waitForServiceAccount shows that the controllers work.
func waitForServiceAccount(ctx context.Context, cluster instance.Instance) error {
	client, err := AdminClient(cluster)
	if err != nil {
		return err
	}
	return waitFor(ctx, cluster, "the controller manager made the default service account", func(ctx context.Context) error {
		return client.Get(ctx, "/api/v1/namespaces/default/serviceaccounts/default", nil)
	})
}

func waitForNodes(ctx context.Context, cluster instance.Instance) error {
	client, err := AdminClient(cluster)
	if err != nil {
		return err
	}
	return waitFor(ctx, cluster, "all nodes are ready", func(ctx context.Context) error {
		var nodes nodeList
		if err := client.Get(ctx, "/api/v1/nodes", &nodes); err != nil {
			return err
		}
		if ready := nodes.countReady(); ready < cluster.Nodes {
			return fmt.Errorf("%d of %d nodes are ready", ready, cluster.Nodes)
		}
		return nil
	})
}

type nodeList struct {
	Items []struct {
		Status struct {
			Conditions []struct {
				Type   string `json:"type"`
				Status string `json:"status"`
			} `json:"conditions"`
		} `json:"status"`
	} `json:"items"`
}

func (l nodeList) countReady() int {
	count := 0
	for _, item := range l.Items {
		for _, condition := range item.Status.Conditions {
			if condition.Type == "Ready" && condition.Status == "True" {
				count++
			}
		}
	}
	return count
}

// waitForDNS asks CoreDNS by its service address for the API server's name. The
// answer comes by way of kube-proxy, the pod network and CoreDNS's own access to
// the API server.
func waitForDNS(ctx context.Context, cluster instance.Instance) error {
	server := net.JoinHostPort(cluster.DNSServiceAddress().String(), "53")
	resolver := net.Resolver{
		PreferGo: true,
		Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			dialer := net.Dialer{Timeout: time.Second}
			return dialer.DialContext(ctx, network, server)
		},
	}
	expected := cluster.KubernetesServiceAddress().String()
	return waitFor(ctx, cluster, "CoreDNS answers", func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		addresses, err := resolver.LookupHost(ctx, "kubernetes.default.svc.cluster.local.")
		if err != nil {
			return err
		}
		if len(addresses) != 1 || addresses[0] != expected {
			return fmt.Errorf("CoreDNS answered %v instead of %s", addresses, expected)
		}
		return nil
	})
}

// waitFor polls until the check succeeds. It gives up early when one of the
// cluster's processes ends, and shows the end of that process's log, since
// scripts remove the cluster, and its logs, when its start fails.
func waitFor(ctx context.Context, cluster instance.Instance, what string, check func(context.Context) error) error {
	var ended error
	err := poll(ctx, startPatience, func(ctx context.Context) error {
		dead, err := process.Dead(cluster)
		if err != nil {
			return err
		}
		if len(dead) > 0 {
			ended = fmt.Errorf("%s ended; its log ended with:\n%s", dead[0], process.LastWords(cluster, dead[0]))
			return nil
		}
		return check(ctx)
	})
	if ended != nil {
		return ended
	}
	if err != nil {
		return fmt.Errorf("waited until %s: %w", what, err)
	}
	return nil
}

func poll(ctx context.Context, patience time.Duration, check func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := check(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not within %s: %w", patience, err)
		case <-ticker.C:
		}
	}
}
