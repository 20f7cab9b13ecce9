package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"

	"atomix.io/cluster/internal/cluster"
	"atomix.io/cluster/internal/step"
)

// nodeCommand does what happens to a machine: `cluster node stop node-2`.
func nodeCommand(arguments []string) error {
	if len(arguments) < 2 {
		return errors.New("say what happens to which node: cluster node stop|start|cut|heal NODE")
	}
	action, nodeName, options := arguments[0], arguments[1], arguments[2:]
	clone, err := cloneFolder()
	if err != nil {
		return err
	}
	flags := flag.NewFlagSet("node "+action, flag.ContinueOnError)
	name := flags.String("name", defaultName(clone), "instance")
	fromNodes := flags.Bool("from-nodes", false, "cut only the links to the other nodes and their pods")
	if err := parse(flags, options); err != nil {
		return err
	}
	if *fromNodes && action != "cut" {
		return fmt.Errorf("--from-nodes belongs to `cluster node cut`, not to %q", action)
	}
	if err := needRoot(); err != nil {
		return err
	}
	printer := step.NewPrinter(os.Stderr)
	switch action {
	case "stop":
		return cluster.StopNode(*name, nodeName, printer)
	case "start":
		binaries, err := ensureTools(printer)
		if err != nil {
			return err
		}
		return cluster.StartNode(context.Background(), *name, nodeName, binaries, printer)
	case "cut":
		return cluster.CutNode(*name, nodeName, *fromNodes, printer)
	case "heal":
		return cluster.HealNode(*name, nodeName, printer)
	default:
		return fmt.Errorf("nothing is called %q that happens to nodes; use stop, start, cut or heal", action)
	}
}
