package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"atomix.io/cluster/internal/cluster"
	"atomix.io/cluster/internal/image"
	"atomix.io/cluster/internal/step"
)

func buildImage(arguments []string) error {
	flags := flag.NewFlagSet("image", flag.ContinueOnError)
	description := image.Image{}
	var entrypoint, files, environment values
	flags.StringVar(&description.Name, "name", "", "reference with a tag, such as atomix.local/node:dev")
	flags.Var(&entrypoint, "entrypoint", "program in the image; repeat it for first arguments")
	flags.Var(&files, "file", "SOURCE:PATH to put into the image; may be repeated")
	flags.Var(&environment, "env", "KEY=VALUE; may be repeated")
	output := flags.String("o", "", "archive to write")
	if err := parse(flags, arguments); err != nil {
		return err
	}
	if *output == "" {
		return errors.New("name the archive to write with -o")
	}
	description.Entrypoint = entrypoint
	description.Environment = environment
	for _, file := range files {
		colon := strings.LastIndexByte(file, ':')
		if colon < 0 {
			return fmt.Errorf("--file %q is not SOURCE:PATH", file)
		}
		description.Files = append(description.Files, image.File{Source: file[:colon], Destination: file[colon+1:]})
	}
	printer := step.NewPrinter(os.Stderr)
	return printer.Do("image "+description.Name, func() error { return image.Build(description, *output) })
}

func load(arguments []string) error {
	clone, err := cloneFolder()
	if err != nil {
		return err
	}
	flags := flag.NewFlagSet("load", flag.ContinueOnError)
	name := flags.String("name", defaultName(clone), "instance")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	if flags.NArg() == 0 {
		return errors.New("name the archives to load")
	}
	if err := needRoot(); err != nil {
		return err
	}
	files := make([]string, flags.NArg())
	for index, argument := range flags.Args() {
		if files[index], err = filepath.Abs(argument); err != nil {
			return err
		}
	}
	printer := step.NewPrinter(os.Stderr)
	binaries, err := ensureTools(printer)
	if err != nil {
		return err
	}
	return printer.Do("load into "+*name, func() error {
		return cluster.Load(context.Background(), *name, binaries, files)
	})
}
