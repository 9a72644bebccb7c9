"""Many runs: a study becomes a plan, the plan's runs are trained on a cluster, and a ledger keeps what came of them."""

__version__ = "0.2.0"
