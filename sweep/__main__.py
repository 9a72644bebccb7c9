"""`python -m sweep` is `sweep`."""

from sweep.cli.sweeping import main

if __name__ == "__main__":
    main()
