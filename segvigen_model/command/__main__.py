"""`python -m segvigen_model.command`: the `segvigen` command without its script."""

from segvigen_model.command.main import main

if __name__ == "__main__":
    main()
