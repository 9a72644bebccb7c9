"""Every policy by its name. To add one: a class, a line here and a test (CONTRIBUTING.md walks through it)."""

from trainer.policies import keep_ratio

POLICIES: dict[str, type[keep_ratio.KeepRatioPolicy]] = {
    "dense": keep_ratio.Dense,
    "fixed": keep_ratio.FixedKeep,
    "additive-reset": keep_ratio.AdditiveReset,
    "multiplicative-reset": keep_ratio.MultiplicativeReset,
    "sawtooth": keep_ratio.Sawtooth,
    "random": keep_ratio.RandomKeep,
}
