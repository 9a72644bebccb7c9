"""`python -m sweep` does the same as the command `sweep`."""

from sweep.cli.app import main

if __name__ == "__main__":
    main()
