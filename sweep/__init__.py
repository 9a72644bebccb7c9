"""Many runs. A study becomes a plan, a cluster trains the plan's runs, and a ledger keeps the results."""

__version__ = "0.2.0"
