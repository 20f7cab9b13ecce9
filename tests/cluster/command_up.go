package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"atomix.io/cluster/internal/cluster"
	"atomix.io/cluster/internal/instance"
	"atomix.io/cluster/internal/step"
)

// values is an option that may be given several times.
type values []string

func (v *values) String() string { return fmt.Sprint(*v) }

func (v *values) Set(value string) error {
	*v = append(*v, value)
	return nil
}

func up(arguments []string) error {
	nodes, err := defaultNodes()
	if err != nil {
		return err
	}
	clone, err := cloneFolder()
	if err != nil {
		return err
	}
	flags := flag.NewFlagSet("up", flag.ContinueOnError)
	request := cluster.Request{}
	var apiServerArguments values
	flags.StringVar(&request.Name, "name", defaultName(clone), "instance")
	flags.IntVar(&request.Nodes, "nodes", nodes, "count of nodes")
	flags.StringVar(&request.Kubeconfig, "kubeconfig", filepath.Join(clone, ".cluster", "kubeconfig"), "file to write")
	flags.BoolVar(&request.ControlPlaneOnly, "control-plane-only", false, "start no nodes")
	flags.Var(&apiServerArguments, "api-server-arg", "argument for the API server; may be repeated")
	if err := parse(flags, arguments); err != nil {
		return err
	}
	request.APIServerArguments = apiServerArguments
	if request.Kubeconfig, err = filepath.Abs(request.Kubeconfig); err != nil {
		return err
	}
	if err := request.Check(); err != nil {
		return err
	}
	if err := needRoot(); err != nil {
		return err
	}
	printer := step.NewPrinter(os.Stderr)
	if request.Binaries, err = ensureTools(printer); err != nil {
		return err
	}
	return cluster.Up(context.Background(), request, printer)
}

func down(arguments []string) error {
	clone, err := cloneFolder()
	if err != nil {
		return err
	}
	flags := flag.NewFlagSet("down", flag.ContinueOnError)
	name := flags.String("name", defaultName(clone), "instance")
	allDead := flags.Bool("all-dead", false, "remove every cluster that does not run")
	if err := parse(flags, arguments); err != nil {
		return err
	}
	if err := needRoot(); err != nil {
		return err
	}
	printer := step.NewPrinter(os.Stderr)
	if *allDead {
		return cluster.DownAllDead(context.Background(), printer)
	}
	return cluster.Down(*name, printer)
}

func list(arguments []string) error {
	if err := parse(flag.NewFlagSet("list", flag.ContinueOnError), arguments); err != nil {
		return err
	}
	if err := needRoot(); err != nil {
		return err
	}
	return cluster.List(context.Background(), os.Stdout)
}

func provision(arguments []string) error {
	if len(arguments) != 1 {
		return fmt.Errorf("%s needs the name of a cluster", cluster.ProvisionCommand)
	}
	return cluster.Provision(context.Background(), arguments[0])
}

// parse refuses arguments that are not options.
func parse(flags *flag.FlagSet, arguments []string) error {
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("%s does not take %q", flags.Name(), flags.Arg(0))
	}
	return nil
}

// cloneFolder is the work tree that this program's sources lie in.
func cloneFolder() (string, error) {
	source := os.Getenv("CLUSTER_SOURCE")
	if source == "" {
		return "", errors.New("CLUSTER_SOURCE is not set; run the script tests/cluster/cluster")
	}
	return filepath.Dir(filepath.Dir(source)), nil
}

func defaultName(clone string) string {
	if name := os.Getenv("CLUSTER_NAME"); name != "" {
		return name
	}
	return instance.DefaultName(clone)
}

func defaultNodes() (int, error) {
	text := os.Getenv("NODES")
	if text == "" {
		return 2, nil
	}
	nodes, err := strconv.Atoi(text)
	if err != nil {
		return 0, fmt.Errorf("NODES=%q is not a number", text)
	}
	return nodes, nil
}

func needRoot() error {
	if os.Geteuid() != 0 {
		return errors.New("the cluster makes network namespaces, mounts and cgroups; run this as root")
	}
	return nil
}
