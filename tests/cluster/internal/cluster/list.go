package cluster

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"

	"atomix.io/cluster/internal/records"
)

// List prints every cluster of this machine and whether it runs.
func List(ctx context.Context, out io.Writer) error {
	clusters, err := records.AllInstances()
	if err != nil {
		return err
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "NAME\tSTATE\tSIZE\tAPI SERVER\tKUBECONFIG")
	for _, cluster := range clusters {
		state := "running"
		if illness := Examine(ctx, cluster); illness != nil {
			state = "dead: " + illness.Error()
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", cluster.Name, state, describe(cluster), cluster.APIServer(), cluster.Kubeconfig)
	}
	return table.Flush()
}
