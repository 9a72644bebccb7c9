"""The table of policies. A new policy is a class, a line here and a test (see CONTRIBUTING.md)."""

from trainer.policies import connectivity, keep_ratio
from trainer.policies.base import BasePolicy

POLICIES: dict[str, type[BasePolicy]] = {
    "dense": keep_ratio.Dense,
    "fixed": keep_ratio.FixedKeep,
    "additive-reset": keep_ratio.AdditiveReset,
    "multiplicative-reset": keep_ratio.MultiplicativeReset,
    "sawtooth": keep_ratio.Sawtooth,
    "random": keep_ratio.RandomKeep,
    "static-sparse": connectivity.StaticSparse,
    "set": connectivity.Set,
    "npset": connectivity.Npset,
    "npset-frozen": connectivity.NpsetFrozen,
}
