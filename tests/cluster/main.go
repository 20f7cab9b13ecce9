// Program cluster builds and runs a real Kubernetes cluster on one Linux
// machine, without Docker and without a registry.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"

	"atomix.io/cluster/internal/cluster"
	"atomix.io/cluster/internal/process"
)

const usage = `usage: cluster COMMAND [options]

  tools   build every program of the cluster into the cache, install missing Debian packages
            --print-bin            print the folder that holds all programs
  up      start the cluster, or leave it alone when it runs
            --name NAME            instance (default: CLUSTER_NAME, or from the clone's path)
            --nodes COUNT          (default: NODES, or 2)
            --kubeconfig FILE      (default: .cluster/kubeconfig in the clone)
            --control-plane-only   etcd, API server and controller manager only
            --api-server-arg ARG   pass ARG to the API server; may be repeated
  down    stop the cluster and remove everything that it made
            --name NAME | --all-dead
  node    do to a node of a running cluster what happens to machines; --name NAME
            stop NODE              as if its power failed: every process ends, its network goes
            start NODE             its power is back
            cut NODE               its network goes; --from-nodes: only that to other nodes and pods
            heal NODE              its network is back
  list    show the clusters of this machine
  image   build an image from files and the shared libraries that they need
            --name TAG --entrypoint PATH --file SOURCE:PATH... [--env KEY=VALUE...] -o FILE
  load    import images into every node
            --name NAME FILE...
`

func main() {
	if err := run(os.Args[1:]); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return
		}
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	if len(arguments) == 0 {
		fmt.Fprint(os.Stderr, usage)
		return errors.New("name a command")
	}
	command, rest := arguments[0], arguments[1:]
	switch command {
	case "tools":
		return tools(rest)
	case "up":
		return up(rest)
	case "down":
		return down(rest)
	case "node":
		return nodeCommand(rest)
	case "list":
		return list(rest)
	case "image":
		return buildImage(rest)
	case "load":
		return load(rest)
	case process.EnterCommand:
		return process.Enter(rest)
	case cluster.ProvisionCommand:
		return provision(rest)
	case "help", "-h", "--help":
		fmt.Print(usage)
		return nil
	default:
		fmt.Fprint(os.Stderr, usage)
		return fmt.Errorf("there is no command %q", command)
	}
}
