"""Every policy by its name. To add one: a class, a line here and a test (CONTRIBUTING.md walks through it)."""

from trainer.policies.keep_ratio import AdditiveReset, Dense, FixedKeep, KeepRatioPolicy, MultiplicativeReset, RandomKeep, Sawtooth

POLICIES: dict[str, type[KeepRatioPolicy]] = {
    "dense": Dense,
    "fixed": FixedKeep,
    "additive-reset": AdditiveReset,
    "multiplicative-reset": MultiplicativeReset,
    "sawtooth": Sawtooth,
    "random": RandomKeep,
}
