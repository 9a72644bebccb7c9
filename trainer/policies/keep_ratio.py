"""Keep-ratio policies: they decide what share of each site's activations may survive in each epoch.

The policies are state machines without torch. `keep_ratio` belongs to the coming epoch, at first to epoch 1.
`after_epoch` receives the epoch's running training accuracy. Ratios are rounded to 12 decimals, so that
1 - 6 * 0.01 is 0.94.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from trainer import randomness
from trainer.policies.base import HIDDEN, BasePolicy, Survivors, Wiring
from trainer.settings import SettingError, Share, Within

Smoothing = Annotated[float, Within(at_least=0, below=1)]
Drop = Annotated[float, Within(at_least=0, at_most=1)]
Step = Annotated[float, Within(above=0, below=1)]


@dataclass
class KeepRatioPolicy(BasePolicy):
    """A policy that changes the keep ratio and no connections."""

    survivors: Survivors = field(default="largest", kw_only=True)
    """Which positive activations survive: the largest, or as many drawn at random (a control)."""
    smoothed: float | None = field(default=None, init=False)
    """The smoothed training accuracy that a controller acts on."""
    reset: bool = field(default=False, init=False)
    """Whether the ratio went back to 1 after the last epoch."""
    cycle: int = field(default=0, init=False)
    """Number of resets so far that came from a ratio under one half."""

    def after_epoch(self, train_accuracy: float) -> None:
        before = self.keep_ratio
        self.epoch += 1
        self._move(train_accuracy)
        self.cycle += self.reset and before < 0.5

    def before(self, wiring: Wiring) -> dict[str, Any]:
        return {"keep_ratio": self.keep_ratio}

    def after(self) -> dict[str, Any]:
        return {"smoothed_train_accuracy": self.smoothed, "reset": self.reset, "cycle": self.cycle}

    @abstractmethod
    def _move(self, train_accuracy: float) -> None:
        """Set `keep_ratio` for the coming epoch, and `reset`. `epoch` counts the ended epoch already."""


@dataclass
class Dense(KeepRatioPolicy):
    """The baseline, in which every activation may survive."""

    # no setting, because no activation is dropped
    survivors: Survivors = field(default="largest", kw_only=True, metadata=HIDDEN)

    def _move(self, train_accuracy: float) -> None:
        pass


@dataclass
class FixedKeep(KeepRatioPolicy):
    """A control with the same ratio in every epoch."""

    ratio: Share
    """The keep ratio of every epoch."""

    def __post_init__(self) -> None:
        self.keep_ratio = self.ratio

    def _move(self, train_accuracy: float) -> None:
        pass


@dataclass
class Controller(KeepRatioPolicy):
    """A policy that lowers the ratio every epoch and resets it to 1 when training accuracy falls too far."""

    floor: Annotated[float, Within(at_least=0, below=1)] = field(default=0.01, kw_only=True)
    """Smallest ratio. Without one, as in the paper, it reaches 0 and resets after accuracy collapses."""
    at_floor: Literal["reset", "hold"] = field(default="reset", kw_only=True)
    """What to do when the next ratio would be under the floor: reset to 1, or stay at the floor.

    `hold` can trap a controller for hundreds of epochs.
    """
    on_reset: Literal["r", "r+ema"] = field(default="r", kw_only=True)
    """Whether a reset also restarts the smoothing."""
    ema_start: Literal["first", "zero"] = field(default="first", kw_only=True)
    """Start value of the smoothing: the first accuracy, or zero."""

    def __post_init__(self) -> None:
        if self.floor == 0 and self.at_floor == "hold":
            raise SettingError(
                "floor",
                "must be above 0 where at_floor is 'hold': no activation survives a keep ratio of 0.",
            )

    def _smooth(self, ema: float, train_accuracy: float) -> tuple[float | None, float]:
        """The smoothed accuracy before (None if the smoothing starts anew) and after this epoch."""
        before = None if self.reset and self.on_reset == "r+ema" else self.smoothed
        start = before if before is not None else train_accuracy if self.ema_start == "first" else 0.0
        now = train_accuracy if start == train_accuracy else ema * start + (1 - ema) * train_accuracy
        self.smoothed = now
        return before, now

    def _compress(self, ratio: float, too_far: bool) -> None:
        ratio = round(ratio, 12)
        under = ratio < self.floor or ratio <= 0
        self.reset = too_far or (under and self.at_floor == "reset")
        self.keep_ratio = 1.0 if self.reset else max(ratio, self.floor)


@dataclass
class AdditiveReset(Controller):
    """The paper's strategy 1.

    The ratio falls by `step` each epoch. It returns to 1 when one epoch lowers the smoothed accuracy by
    `drop` or more.
    """

    step: Step = 0.01
    """What the keep ratio loses from one epoch to the next."""
    ema: Smoothing = 0.9
    """How much of its past the smoothed accuracy keeps: it remembers about 1 / (1 - ema) epochs."""
    drop: Drop = 0.01
    """The fall of the smoothed accuracy in one epoch that takes the keep ratio back to 1."""

    def _move(self, train_accuracy: float) -> None:
        before, now = self._smooth(self.ema, train_accuracy)
        self._compress(self.keep_ratio - self.step, too_far=before is not None and before - now >= self.drop)


@dataclass
class MultiplicativeReset(Controller):
    """The paper's strategy 2.

    The ratio is multiplied by `decay` each epoch. It returns to 1 when the smoothed accuracy is more than
    `drop` below the best accuracy so far.
    """

    decay: Step = 0.98
    """The factor of the keep ratio from one epoch to the next."""
    ema: Smoothing = 0.5
    """How much of its past the smoothed accuracy keeps: it remembers about 1 / (1 - ema) epochs."""
    drop: Drop = 0.2
    """How far the smoothed accuracy falls below the best so far before the keep ratio goes back to 1."""
    best_of: Literal["raw", "smoothed"] = field(default="raw", kw_only=True)
    """Accuracy that gives `best`. `raw`, the paper's choice, resets spuriously in the first epochs."""
    best: float = field(default=0.0, init=False)

    def _move(self, train_accuracy: float) -> None:
        _, now = self._smooth(self.ema, train_accuracy)
        self.best = max(self.best, train_accuracy if self.best_of == "raw" else now)
        self._compress(self.keep_ratio * self.decay, too_far=self.best - now > self.drop)


@dataclass
class Sawtooth(KeepRatioPolicy):
    """A control with the cycle of the controllers, but with a fixed period and without feedback."""

    period: Annotated[int, Within(at_least=1)]
    """Number of epochs from one r = 1 to the next."""
    step: Step | None = None
    """What the keep ratio loses from one epoch to the next."""
    decay: Step | None = None
    """The factor of the keep ratio from one epoch to the next."""

    def __post_init__(self) -> None:
        if (self.step is None) == (self.decay is None):
            raise SettingError("step", "exactly one of step and decay must be given.")
        if self._ratio(self.period - 1) <= 0:
            raise SettingError(
                "period", f"of {self.period} epochs takes the ratio to 0; shorten it or take a smaller step."
            )

    def _ratio(self, since_reset: int) -> float:
        ratio = 1 - self.step * since_reset if self.step is not None else (self.decay or 1.0) ** since_reset
        return round(ratio, 12)

    def _move(self, train_accuracy: float) -> None:
        since_reset = self.epoch % self.period
        self.reset = since_reset == 0
        self.keep_ratio = self._ratio(since_reset)


@dataclass
class RandomKeep(KeepRatioPolicy):
    """A control that draws the ratio of every epoch uniformly from `low` to `high`."""

    low: Share = 0.05
    """The smallest keep ratio that is drawn."""
    high: Share = 1.0
    """The largest keep ratio that is drawn."""

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise SettingError("low", f"must not be above high, {self.high:g}; it is {self.low:g}.")
        self._move(0.0)

    def _move(self, train_accuracy: float) -> None:
        self.keep_ratio = round(
            self.low + (self.high - self.low) * randomness.uniform(self.seed, "keep-ratio", self.epoch + 1),
            12,
        )
