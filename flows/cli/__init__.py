"""The `segvigen` command: one file per group of subcommands."""
