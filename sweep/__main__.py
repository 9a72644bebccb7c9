"""`python -m sweep` is `sweep`."""

from sweep.cli.app import main

if __name__ == "__main__":
    main()
