package main

import (
	"errors"
	"flag"
	"fmt"
	"os"

	"atomix.io/cluster/internal/build"
	"atomix.io/cluster/internal/packages"
	"atomix.io/cluster/internal/step"
)

func tools(arguments []string) error {
	flags := flag.NewFlagSet("tools", flag.ContinueOnError)
	printBinaryFolder := flags.Bool("print-bin", false, "print the folder that holds all programs")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	// Progress goes to standard error, so that --print-bin leaves one line to read.
	printer := step.NewPrinter(os.Stderr)
	folder, err := ensureTools(printer)
	if err != nil {
		return err
	}
	if *printBinaryFolder {
		fmt.Println(folder)
	}
	return nil
}

// ensureTools builds and installs what is missing and returns the folder that
// holds all programs.
func ensureTools(printer *step.Printer) (string, error) {
	if err := packages.Ensure(printer); err != nil {
		return "", err
	}
	cache, err := cacheFromEnvironment()
	if err != nil {
		return "", err
	}
	for _, tool := range build.Tools() {
		if _, err := cache.Ensure(tool, printer); err != nil {
			return "", err
		}
	}
	return cache.BinaryFolder(build.Tools())
}

func cacheFromEnvironment() (build.Cache, error) {
	cache := build.Cache{Root: os.Getenv("ATOMIX_CACHE"), Source: os.Getenv("CLUSTER_SOURCE")}
	if cache.Root == "" || cache.Source == "" {
		return build.Cache{}, errors.New("ATOMIX_CACHE or CLUSTER_SOURCE is not set; run the script tests/cluster/cluster")
	}
	return cache, nil
}
