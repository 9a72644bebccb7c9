"""Which folder holds which kind: README.md."""
