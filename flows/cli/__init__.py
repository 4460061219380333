"""The pipeline's subcommands of `segvigen`: one file per group."""
