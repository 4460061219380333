"""The `segvigen` command as the library brings it; a checkout adds the pipeline's subcommands."""
