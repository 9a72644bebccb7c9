"""The cost of a study before it runs: runs, hours, what its comparisons can detect, and warnings."""
