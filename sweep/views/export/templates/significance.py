"""Source of the exported notebook `significance.ipynb`, which computes every number of the report again.

It imports nothing of the tool whose report it checks. It can also be run as a script, in an exported folder.
"""

# %% [markdown]
# # Do the gains hold?
#
# Here every number of this study's report (`report.json`) is computed again from the raw tables: what each
# run scored on each image. The last cell compares the two, and names what differs. `README.md` explains
# the columns. Accuracies and gains are shares, not points.
#
# The next export into this folder writes this notebook anew: keep what you add under another name.

# %%
import json
import math
import warnings
from collections import Counter
from functools import cache
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import optuna
import pandas as pd
from scipy import optimize, special, stats

report = json.loads(Path("report.json").read_text(encoding="utf-8"))
study = json.loads(Path("study.json").read_text(encoding="utf-8"))
contents, declared, space = study["contents"], study["contents"]["analysis"], study["searched"]
seeds = contents["confirm"]["seeds"]
ratios = list(dict.fromkeys([*declared["endpoints"], *declared["curve"]]))


def split_name(arm):
    """The name and the task of an arm such as `set@wine`. The task is empty where none are listed."""
    base, _, task = arm.partition("@")
    return base, task


# %% [markdown]
# Of `comparisons.parquet` we take only who is held against whom, and from which place in the pool of
# seeds; its numbers are to be checked. What is tested follows from the study: the arms of the family over
# the baseline, and those of `against` over the arms that are named there, on the same task.

# %%
epochs = pd.read_parquet(
    "epochs.parquet", columns=["run_id", "epoch", "test_accuracy", "dense_test_accuracy", "parameters"]
)
endpoints = pd.read_parquet("endpoints.parquet")
runs = pd.read_parquet("runs.parquet").set_index("run_id").astype({"threads": "Int64"})
candidates = pd.read_parquet("candidates.parquet").to_dict("records")
identifying = [
    "arm",
    "task",
    "candidate",
    "reference_arm",
    "reference",
    "keep_ratio",
    "role",
    "overlap",
    "first_place",
]
compared = pd.read_parquet("comparisons.parquet", columns=identifying).astype(object)
# while an arm is searched, it has no candidate to confirm: null becomes None
compared = compared.where(compared.notna(), None).to_dict("records")
written = contents["arms"]
family = declared["family"] or [
    name for name, arm in written.items() if name != declared["baseline"] and not arm["repeat"]
]


def role(row):
    """What a comparison is: tested in the family, a repeat, or a control."""
    arm, task = split_name(row["arm"])
    reference, reference_task = split_name(row["reference_arm"])
    if task != reference_task or task != row["task"] or task not in (contents["tasks"] or [""]):
        pair = f"{row['arm']} against {row['reference_arm']}"
        raise ValueError(f"comparisons.parquet holds {pair}: not on one task of the study")
    if reference == declared["baseline"]:
        tested = arm in family
    else:
        tested = reference in declared["against"].get(arm, [])
    if tested:
        return "family"
    return "repeat" if written[arm]["repeat"] else "control"


if wrong := [row for row in compared if role(row) != row["role"]]:
    raise ValueError(f"comparisons.parquet: what is tested is not what was declared, in {wrong}")
tests = sum(row["role"] == "family" for row in compared)

# %% [markdown]
# ## What a run scores
#
# Correctness is one bit per image, the first image in the highest bit. By the declared rule a diverged run
# scores 0, and any other what it measured, a collapsed one (its final training loss is that of a guess)
# too; no run is dropped. A run that has not finished scores NaN.

# %%
keys = endpoints[["run_id", "split", "keep_ratio"]].itertuples(index=False, name=None)
bits = {
    key: np.unpackbits(np.frombuffer(packed, np.uint8), count=images)
    for key, packed, images in zip(keys, endpoints["correct"], endpoints["images"], strict=True)
}
if wrong := [
    key
    for key, stated in zip(bits, endpoints["accuracy"], strict=True)
    if abs(bits[key].mean() - stated) > 1e-12
]:
    raise ValueError(f"endpoints.parquet: the accuracy is not the mean of the bits at {wrong}")
if wrong := [
    key for key, correct in bits.items() if key[1] == "test" and len(correct) != runs.at[key[0], "test_rows"]
]:
    raise ValueError(f"endpoints.parquet: not as many test images as runs.parquet says at {wrong}")


def score(run_id, split, ratio):
    """A run's accuracy at a keep ratio; 0 where it diverged, NaN where it has not finished."""
    state = runs.at[run_id, "state"]
    if state in ("completed", "collapsed"):
        correct = bits[run_id, split, ratio]
        return int(correct.sum()) / len(correct)
    return 0.0 if state == "diverged" else math.nan


def spread(values):
    """Mean, standard deviation and standard error; null where there are too few values."""
    n = len(values)
    deviation = float(np.std(values, ddof=1)) if n > 1 else None
    error = deviation / math.sqrt(n) if n > 1 else None
    return {"mean": math.fsum(values) / n if n else None, "deviation": deviation, "standard_error": error}


def or_null(value):
    """A number, or null where it is NaN."""
    return None if value is None or math.isnan(value) else float(value)


# %% [markdown]
# ## The confirmed candidates
#
# A candidate's runs stand by place in the pool of seeds: runs of one place are a pair. The best epoch of a
# run, which papers tend to report, is chosen by looking at the test set; the inflation is what that choice
# adds to the last epoch.

# %%
confirmed = {row["candidate"]: list(row["run_ids"]) for row in candidates if row["phase"] == "confirm"}
scores = {
    (name, ratio): np.array([score(run, "test", ratio) for run in ids])
    for name, ids in confirmed.items()
    for ratio in ratios
}
by_run = epochs.sort_values("epoch", kind="stable").groupby("run_id")
best, last = by_run["test_accuracy"].max(), by_run.tail(1).set_index("run_id")["test_accuracy"]
parameters = {
    end: rows.set_index("run_id")["parameters"]
    for end, rows in (("start", by_run.head(1)), ("end", by_run.tail(1)))
}


def finalists(arm):
    """The number of an arm's candidates that are confirmed: one where nothing is searched."""
    if arm not in space:
        return 1
    name, search = split_name(arm)[0], contents["search"]
    source = written[written[name]["repeat"] or name]
    return min(search["finalists"], source["budget"] or search["budget"])


def count_of(ids, end):
    """The mean number of parameters of some runs at the start or end; null where one is not known."""
    counts = parameters[end].reindex(ids)
    return float(counts.mean()) if len(counts) and counts.notna().all() else None


def settings(row):
    """A candidate's settings that were searched or matched, with the types that the study declares."""

    def typed(value, searched):
        if "choice" in searched:
            return next(choice for choice in searched["choice"] if value in (choice, str(choice)))
        return round(float(value)) if searched["whole"] else float(value)

    own = {name: typed(row[name], searched) for name, searched in space.get(row["arm"], {}).items()}
    return own | matched(row)


def matched(row):
    """The settings that a candidate takes from another arm's first finalist, read from its first run."""
    base, task = split_name(row["arm"])
    match = written[written[base]["repeat"] or base]["match"] or {}
    if not match.get("settings"):
        return {}
    other = f"{match['arm']}@{task}" if task else match["arm"]
    run = next(
        candidate["run_ids"][0]
        for candidate in candidates
        if candidate["phase"] == "confirm" and candidate["arm"] == other
    )
    spec = json.loads(runs.at[run, "spec"])
    parts = {name: name.split(".", 1) for name in match["settings"]}
    # a run's spec may leave out a setting that has its default
    return {name: spec[part].get(key, row[name]) for name, (part, key) in parts.items()}


def figures(row):
    """The report's figures of a confirmed candidate."""
    ids = list(row["run_ids"])
    states = [runs.at[run, "state"] for run in ids]
    trained = [run for run, state in zip(ids, states, strict=True) if state in ("completed", "collapsed")]
    finished = [run for run in ids if run in trained or runs.at[run, "state"] == "diverged"]
    at_best, at_last = (spread(column.reindex(trained).to_numpy())["mean"] for column in (best, last))
    measured = {
        ratio: [value for value in scores[row["candidate"], ratio] if not math.isnan(value)]
        for ratio in ratios
    }
    return {
        "arm": row["arm"],
        "task": split_name(row["arm"])[1],
        "candidate": row["candidate"],
        "finalists": finalists(row["arm"]),
        "settings": settings(row),
        "seeds": len(ids),
        "finished": len(finished),
        "parameters_start": count_of(finished, "start"),
        "parameters_end": count_of(finished, "end"),
        "diverged": states.count("diverged"),
        "collapsed": states.count("collapsed"),
        "best_epoch": or_null(at_best),
        "last_epoch": or_null(at_last),
        "inflation": or_null(at_best - at_last) if trained else None,
        "accuracy": {f"{ratio:g}": spread(values) for ratio, values in measured.items()},
    }


arms = [figures(row) for row in candidates if row["phase"] == "confirm"]
pd.json_normalize(arms)

# %% [markdown]
# Means over the seeds. Left: test accuracy over the epochs, at each epoch's own keep ratio r (thin) and of
# the same weights at r = 1 (thick). Right: the final weights at every measured r, with standard errors.

# %%
figure, (over_epochs, over_ratios) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
for i, arm in enumerate(arms):
    name, color = arm["candidate"], f"C{i % 10}"
    by_epoch = epochs[epochs["run_id"].isin(confirmed[name])].groupby("epoch")
    course = by_epoch[["test_accuracy", "dense_test_accuracy"]].mean().dropna()
    over_epochs.plot(course.index, course["test_accuracy"], color=color, lw=0.8)
    over_epochs.plot(course.index, course["dense_test_accuracy"], color=color, lw=2, label=name)
    measured = sorted(
        (float(ratio), accuracy["mean"], accuracy["standard_error"] or 0)
        for ratio, accuracy in arm["accuracy"].items()
        if accuracy["mean"] is not None
    )
    columns = ([point[k] for point in measured] for k in range(3))
    over_ratios.errorbar(*columns, color=color, marker="o", ms=4, label=name)
over_epochs.set(xlabel="epoch", ylabel="test accuracy")
over_ratios.set(xlabel="keep ratio r of the final weights", xscale="log", ylabel="test accuracy")
if arms:
    over_ratios.legend(fontsize=7)
plt.show()

# %% [markdown]
# ## The sign-flip test and the interval that inverts it
#
# Were there no gain, each pair's difference would be as likely to have the other sign: p is the share of
# all 2^n ways to flip signs whose sum is at least as far from 0 as the one observed. A gain of c is tested
# by taking c off every difference first, and the interval holds every c that is not rejected. p falls from
# 1 at the mean to both sides, so bisection finds where it crosses alpha. Beyond 20 pairs flips are drawn:
# here other ones than the report's, so that five of its Monte Carlo standard errors are allowed between
# the two.

# %%
EXACT, DRAWS, REPORTS_DRAWS = 20, 200_000, 100_000


class SignFlips:
    """The sums of the differences, and of the signs, under all flips of signs or under drawn ones."""

    def __init__(self, differences):
        self.differences, self.exact = differences, len(differences) <= EXACT
        self.sums, self.signs = np.zeros(1), np.zeros(1)
        if self.exact:
            for difference in differences:
                self.sums = np.append(self.sums + difference, self.sums - difference)
                self.signs = np.append(self.signs + 1, self.signs - 1)
        else:
            flips = np.random.default_rng(1908).integers(0, 2, (DRAWS, len(differences)), np.int8) * 2 - 1
            self.sums, self.signs = flips @ differences, flips.sum(1, dtype=float)

    def p_value(self, gain=0.0):
        """The p-value of a gain. Sums that differ by rounding alone are ties."""
        rest = self.differences - gain
        extreme = np.abs(self.sums - gain * self.signs) >= abs(rest.sum()) - 1e-12 * np.abs(rest).sum()
        return float(extreme.mean()) if self.exact else (int(extreme.sum()) + 1) / (DRAWS + 1)

    def bound(self, alpha, side):
        """The last gain on one side (-1 or 1) that is not rejected; infinite where none is rejected."""
        inside, outside = self.differences.mean(), side * ((side * self.differences).max() + 1e-6)
        if self.p_value(outside) > alpha * (1 + 1e-9):
            return side * math.inf
        for _ in range(60):
            middle = (inside + outside) / 2
            if self.p_value(middle) > alpha * (1 + 1e-9):
                inside = middle
            else:
                outside = middle
        return float(inside)

    def uncertain(self, alpha, side):
        """How far a bound may be from the report's, because both drew flips."""
        error = 5 * math.sqrt(alpha * (1 - alpha) * (1 / REPORTS_DRAWS + 1 / DRAWS))
        bound = self.bound(alpha, side)
        return max(abs(self.bound(max(alpha + off, 0), side) - bound) for off in (-error, error))


# %% [markdown]
# ## What else is said of a comparison
#
# Wilcoxon's test flips the signs of ranks. The two-way standard error is of a table of seeds by images,
# both taken as drawn: a diverged run has none. The detectable gain is the one that a t test finds with a
# power of 80 %, averaged, as in the report, over 20,000 quantiles of the estimated deviation (that is good
# for five digits).
#
# Where each seed draws its test rows anew from the same rows, the gains of two seeds are correlated, and
# the variance of their mean is more than s^2 / n. Nadeau and Bengio (2003) take it for (1/n + test rows /
# training rows) s^2, and t on n - 1 degrees of freedom by that. There is no table of seeds by images then:
# seeds have different images.


# %%
def wilcoxon(differences):
    """The p-value of Wilcoxon's signed-rank test; exact up to 20 differences."""
    rounded = np.round(differences, 12)
    rounded = rounded[rounded != 0]
    if len(rounded) > EXACT or not len(rounded):
        return float(stats.wilcoxon(rounded).pvalue) if len(rounded) else 1.0
    return SignFlips(np.sign(rounded) * stats.rankdata(np.abs(rounded))).p_value()


def welch(ours, theirs):
    """The p-value of Welch's t test."""
    if not (np.ptp(ours) or np.ptp(theirs)):
        return float(ours.mean() == theirs.mean())
    sides = [part for side in (ours, theirs) for part in (side.mean(), side.std(ddof=1), len(side))]
    return float(stats.ttest_ind_from_stats(*sides, equal_var=False).pvalue)


def two_way_error(ours, theirs):
    """The standard error over seeds and images, at least that over seeds; null where a run has no bits."""
    if any(correct is None for correct in (*ours, *theirs)) or len(ours) < 2:
        return None
    table = np.stack(ours).astype(float) - np.stack(theirs)
    n, images = table.shape
    by_seed, by_image = table.mean(1, keepdims=True), table.mean(0, keepdims=True)
    rest = ((table - by_seed - by_image + table.mean()) ** 2).sum() / ((n - 1) * (images - 1))
    seeds, images_too = images * by_seed.var(ddof=1), n * by_image.var(ddof=1) - rest
    return math.sqrt(max(seeds, seeds + images_too) / (n * images))


@cache
def detectable_effect(n, alpha):
    """The gain, in standard deviations, that n pairs detect with a power of 80 %."""
    deviations = np.sqrt(stats.chi2.ppf((np.arange(20_000) + 0.5) / 20_000, n - 1) / (n - 1))
    limits = stats.t.ppf(1 - alpha / 2, n - 1) * deviations

    def power(shift):
        return (stats.norm.sf(limits - shift) + stats.norm.cdf(-limits - shift)).mean()

    return optimize.brentq(lambda shift: power(shift) - 0.8, 0, 1e4) / math.sqrt(n)


def overlap(name):
    """Test rows over training rows, where each seed draws both from the same rows; otherwise 0."""
    run = confirmed[name][0]
    drawn_anew = json.loads(runs.at[run, "spec"])["task"].get("resample") is not None
    return int(runs.at[run, "test_rows"]) / int(runs.at[run, "train_rows"]) if drawn_anew else 0.0


def tested(ours, theirs, overlap):
    """The test's numbers of a complete comparison, and how far each may be from the report's."""
    differences, drawn = ours - theirs, {}
    n, gain, deviation = len(differences), differences.mean(), differences.std(ddof=1)
    deviation = deviation if deviation > 1e-12 * np.abs(differences).max() else 0.0
    ends = {
        f"{name}_{end}": (alpha, side)
        for name, alpha in alphas.items()
        for end, side in (("low", -1), ("high", 1))
    }
    error = deviation * math.sqrt(1 / n + overlap)
    p_error = 0.0
    if declared["test"] in ("paired-t", "resampled-t"):
        p = 2 * float(stats.t.sf(abs(gain) / error, n - 1)) if deviation else float(not gain)
        bounds = {
            name: gain + side * stats.t.isf(alpha / 2, n - 1) * error for name, (alpha, side) in ends.items()
        }
    else:
        flips = SignFlips(differences)
        p = flips.p_value()
        bounds = {name: flips.bound(alpha, side) for name, (alpha, side) in ends.items()}
        if not flips.exact:
            p_error = math.sqrt(p * (1 - p) / REPORTS_DRAWS)
            drawn = {name: flips.uncertain(alpha, side) for name, (alpha, side) in ends.items()}
    unbiased = math.nan
    if n > 2:
        gammas = special.gammaln((n - 1) / 2) - special.gammaln((n - 2) / 2)
        unbiased = math.exp(gammas) / math.sqrt((n - 1) / 2)
    return {
        **{name: float(bound) for name, bound in bounds.items()},
        "p_value": p,
        "p_error": p_error,
        "welch_p_value": welch(ours, theirs),
        "wilcoxon_p_value": wilcoxon(differences),
        "effect_size": or_null(gain / deviation * unbiased) if deviation else None,
        "correlation": float(np.corrcoef(ours, theirs)[0, 1]) if np.ptp(ours) and np.ptp(theirs) else None,
        "detectable_gain": detectable_effect(n, alphas["family"]) * error * math.sqrt(n),
    }, drawn


# %% [markdown]
# ## The comparisons
#
# Paired by seed, from the first place that no earlier look has seen; `family` intervals are at alpha over
# the number of tests. A comparison that lacks a pair is not tested, and shows the gain so far.

# %%
alphas = {"ci": declared["alpha"], "family": declared["alpha"] / max(tests, 1)}
of_test = [
    "effect_size",
    "welch_p_value",
    "wilcoxon_p_value",
    "correlation",
    "detectable_gain",
    "two_way_standard_error",
]
of_test += ["p_value", "p_error", "p_holm", "ci_low", "ci_high", "family_low", "family_high"]


def compare(row, seeds=seeds):
    """A comparison's numbers over so many seeds, and how far each may be from the report's."""
    names, ratio = [row["candidate"], row["reference"]], row["keep_ratio"]
    wanted = range(row["first_place"], seeds)
    places = [
        place
        for place in wanted
        if all(name and not math.isnan(scores[name, ratio][place]) for name in names)
    ]
    ids = [[confirmed[name][place] for place in places] if places else [] for name in names]
    ours, theirs = (np.array([score(run, "test", ratio) for run in side]) for side in ids)
    states = [[runs.at[run, "state"] for run in side] for side in ids]
    sound = [ours[i] - theirs[i] for i in range(len(places)) if states[0][i] == states[1][i] == "completed"]
    total, without = spread(ours - theirs), spread(sound)
    share = overlap(row["candidate"]) if row["candidate"] else row["overlap"]
    for gains, n in ((total, len(places)), (without, len(sound))):
        gains["standard_error"] = gains["deviation"] * math.sqrt(1 / n + share) if n > 1 else None
    numbers = row | dict.fromkeys(of_test)
    numbers |= {
        "overlap": share,
        "finalists": finalists(row["arm"]),
        "pairs": len(places),
        "pairs_without": len(sound),
        "accuracy": spread(ours)["mean"],
        "reference_accuracy": spread(theirs)["mean"],
        "gain": total["mean"],
        "standard_error": total["standard_error"],
        "gain_without": without["mean"],
        "standard_error_without": without["standard_error"],
    }
    for prefix, run_ids, ended in zip(("", "reference_"), ids, states, strict=True):
        numbers[f"{prefix}parameters"] = count_of(run_ids, "end")
        numbers |= {f"{prefix}{state}": ended.count(state) for state in ("diverged", "collapsed")}
    if len(places) < len(wanted) or not all(names):
        return numbers | {"state": "incomplete"}, {}
    more, drawn = tested(ours, theirs, share)
    images = [[bits.get((run, "test", ratio)) for run in side] for side in ids]
    error = None if share else two_way_error(*images)
    return numbers | {"state": "complete", "two_way_standard_error": error} | more, drawn


comparisons, drawn = zip(*map(compare, compared), strict=True)

# %% [markdown]
# Holm's correction, once the whole family is complete: the smallest p times the number of tests, the next
# times one fewer, and so on; never less than the one before, and never more than 1.


# %%
def correct(rows, tests=tests):
    """Fill in p_holm, where all tests of the family are there."""
    family = [row for row in rows if row["role"] == "family"]
    if len(family) == tests and all(row["p_value"] is not None for row in family):
        so_far = 0.0
        for i, row in enumerate(sorted(family, key=lambda row: row["p_value"])):
            so_far = row["p_holm"] = max(so_far, min(1.0, (tests - i) * row["p_value"]))
    return rows


def before(look):
    """The comparisons as they were at an earlier look."""
    rows = [
        compare({name: row[name] for name in identifying}, look["pairs"])[0] for row in look["comparisons"]
    ]
    return {"pairs": look["pairs"], "comparisons": correct(rows)}


correct(comparisons)
# what was tested before more seeds were added
earlier = [before(look) for look in report["earlier"]]
pd.DataFrame(comparisons)[
    [*identifying[:6], "pairs", "gain", "ci_low", "ci_high", "p_value", "p_holm", "two_way_standard_error"]
]

# %% [markdown]
# ## Across tasks
#
# Where the study lists several tasks, each counts once, by its mean gain: the seeds of different tasks are
# no sample of anything. Wilcoxon's test of the tasks' gains is corrected over the arms of the family. With
# n tasks its p cannot be less than 2 / 2^n, so that few tasks can claim nothing; fewer than six never do.


# %%
def smallest_p(pairs):
    """The smallest p-value that an exact test of so many pairs can give."""
    return min(1.0, 2.0 ** (1 - pairs))


def over_tasks(rows, tests):
    """The comparison across tasks of an arm with a reference, from its comparison on each task."""
    gains = np.round([row["gain"] for row in rows if row["state"] == "complete"], 12)
    p = wilcoxon(gains) if len(gains) == len(contents["tasks"]) else None
    return {
        "arm": split_name(rows[0]["arm"])[0],
        "reference_arm": split_name(rows[0]["reference_arm"])[0],
        "keep_ratio": rows[0]["keep_ratio"],
        "role": rows[0]["role"],
        "tasks": len(gains),
        "median_gain": float(np.median(gains)) if len(gains) else None,
        "wins": int((gains > 0).sum()),
        "ties": int((gains == 0).sum()),
        "p_value": p,
        "p_holm": None,
        "claimable": len(gains) >= 6 and smallest_p(len(gains)) <= declared["alpha"] / max(tests, 1),
    }


by_pair = {}
for row in comparisons if len(contents["tasks"]) > 1 else ():
    arm, reference = split_name(row["arm"])[0], split_name(row["reference_arm"])[0]
    if arm != reference:
        # the first finalist of each task counts
        by_pair.setdefault((arm, reference, row["keep_ratio"]), {}).setdefault(row["task"], row)
by_task = [list(rows.values()) for rows in by_pair.values()]
corrected = sum(rows[0]["role"] == "family" for rows in by_task)
across = correct([over_tasks(rows, corrected) for rows in by_task], corrected)
pd.DataFrame(across)

# %% [markdown]
# The gains with their intervals (thick: each by itself; thin: all of the family together). Blue is tested,
# grey a control, orange a repeat; an open dot lacks pairs.

# %%
with_gain = [row for row in comparisons[::-1] if row["gain"] is not None]
figure, axis = plt.subplots(figsize=(9, 1 + 0.3 * len(with_gain)), layout="constrained")
for y, row in enumerate(with_gain):
    color = {"family": "C0", "control": "0.5", "repeat": "C1"}[row["role"]]
    for name, width in (("family", 1), ("ci", 3)):
        ends = [row[f"{name}_low"], row[f"{name}_high"]]
        if None not in ends and np.isfinite(ends).all():
            axis.plot(100 * np.array(ends), [y, y], color=color, lw=width)
    axis.plot(100 * row["gain"], y, "o", color=color, mfc=color if row["state"] == "complete" else "white")
axis.set_yticks(
    range(len(with_gain)),
    [f"{row['candidate']} over {row['reference_arm']}, r = {row['keep_ratio']:g}" for row in with_gain],
)
axis.axvline(0, color="0.7", lw=1, zorder=0)
axis.set_xlabel("gain in test accuracy, points")
plt.show()

# %% [markdown]
# ## The search
#
# Scores are means over the seeds that a candidate was given, on validation images. Importances are
# Optuna's, by PED-ANOVA; it is asked once there are four scores that are not all equal.


# %%
def distribution(searched):
    """The values of a searched setting, as Optuna wants them."""
    if "choice" in searched:
        return optuna.distributions.CategoricalDistribution(searched["choice"])
    low, high, step, log = (searched[key] for key in ("low", "high", "step", "log"))
    high = round(low + math.floor((high - low) / step + 1e-9) * step, 12) if step else high
    if searched["whole"]:
        return optuna.distributions.IntDistribution(int(low), int(high), log=log, step=int(step or 1))
    return optuna.distributions.FloatDistribution(low, high, log=log, step=step)


def importances(arm, tried):
    """The share that each searched setting has in the scores of an arm's candidates."""
    scored = [candidate for candidate in tried if candidate["score"] is not None]
    if len(scored) < 4 or len({candidate["score"] for candidate in scored}) < 2:
        return {}
    distributions = {name: distribution(searched) for name, searched in sorted(space[arm].items())}
    memory = optuna.create_study(direction="maximize")
    for candidate in scored:
        params, value = {name: candidate["settings"][name] for name in distributions}, candidate["score"]
        trial = optuna.trial.create_trial(params=params, distributions=distributions, value=value)
        memory.add_trial(trial)
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    return optuna.importance.get_param_importances(memory, evaluator=evaluator)


def search_of(arm):
    """The candidates of an arm's search with their scores, and the importances of its settings."""
    tried = []
    for row in candidates:
        if row["phase"] == "search" and row["arm"] == arm:
            values = [score(run, "validation", declared["endpoints"][0]) for run in row["run_ids"]]
            mean = or_null(math.fsum(values) / len(values))
            candidate = {"candidate": row["candidate"], "settings": settings(row)}
            tried.append(candidate | {"seeds": len(values), "score": mean})
    return {"arm": arm, "candidates": tried, "importances": importances(arm, tried)}


optuna.logging.set_verbosity(optuna.logging.WARNING)
with warnings.catch_warnings():
    # Optuna calls the evaluator experimental
    warnings.simplefilter("ignore")
    search = [search_of(arm) for arm in space if not written[split_name(arm)[0]]["repeat"]]
pd.DataFrame([{"arm": arm["arm"], **arm["importances"]} for arm in search])

# %% [markdown]
# ## What the runs ran on
#
# `runs.parquet` has the last attempt of each run. The report reads earlier attempts too, so that it may
# name more as mixed, but never less.

# %%
environment = ["torch", "device", "threads", "code"]
tried = runs[runs["attempts"] > 0]
confirming = tried[tried["phase"] == "confirm"]
mixed = [name for name in environment if confirming[name].nunique(dropna=False) > 1]
if (confirming["attempts"] > 1).any() and set(mixed) <= set(report["mixed"]):
    mixed = report["mixed"]


def by_version(rows):
    """The number of runs by what they ran on."""
    counts = Counter()
    for row in rows:
        values = [row[name] for name in [*environment, "device_name", "commit"]]
        version = " ".join("unknown" if pd.isna(value) else str(value) for value in values)
        counts[version] += row.get("runs", 1)
    return counts


# %% [markdown]
# ## Do we agree?
#
# Every number of `report.json`: counts exactly, the others to nine digits. Left out is what cannot follow
# from tables: earlier looks and extensions of the study, published figures, and the records of failures.


# %%
def leaves(value, path=""):
    """Every value in a tree of lists and dicts, by its path."""
    if not isinstance(value, dict | list | tuple):
        return {path: {"inf": math.inf, "-inf": -math.inf}.get(value, value)}
    parts = value.items() if isinstance(value, dict) else enumerate(value)
    return {
        at: leaf
        for key, part in parts
        for at, leaf in leaves(part, f"{path} > {key}" if path else key).items()
    }


def agree(theirs, ours, allowed):
    """Whether two values agree: numbers to nine digits or within what is allowed, others exactly."""
    if isinstance(theirs, float) and isinstance(ours, float):
        return math.isclose(theirs, ours, rel_tol=1e-9, abs_tol=1e-9) or abs(theirs - ours) <= allowed
    return theirs == ours


analysis = {name: value for name, value in declared.items() if name != "family"}
analysis |= {"comparisons": tests, "pairs": seeds}
# the other tests have no smallest p
exact = declared["test"] == "sign-flip"
least = next(n for n in range(1, 10_000) if smallest_p(n) <= alphas["family"])
analysis |= {"smallest_p": smallest_p(seeds) if exact else None, "pairs_needed": least if exact else None}
states = {
    state: int((runs["state"] == state).sum())
    for state in ("completed", "collapsed", "diverged", "failed", "unfinished")
}
here = {
    "runs": states,
    "analysis": analysis,
    "arms": arms,
    "comparisons": comparisons,
    "across": across,
    "search": search,
    "mixed": mixed,
    "earlier": earlier,
}
ours = leaves({**here, "versions": by_version(tried.to_dict("records"))})
left_out = ("looks", "extensions", "published", "failures")
theirs = {name: part for name, part in report.items() if name not in left_out}
theirs |= {"versions": by_version(report["versions"])}
theirs = {
    path: leaf for path, leaf in leaves(theirs).items() if path in ours or not isinstance(leaf, str | bool)
}

# numbers may differ by more where flips were drawn; the report states its errors
allowed = {}
errors = [report["comparisons"][i]["p_error"] or 0 if bounds else 0 for i, bounds in enumerate(drawn)]
for i, (error, bounds) in enumerate(zip(errors, drawn, strict=True)):
    more = {
        "p_value": 5 * error,
        "p_error": math.sqrt(5 * error / REPORTS_DRAWS),
        "p_holm": 5 * tests * max(errors),
    }
    allowed |= {f"comparisons > {i} > {name}": off for name, off in (bounds | more).items()}
missing = object()
differ = [
    f"{path}: the report says {theirs.get(path, 'nothing')}, here it is {ours.get(path, 'not computed')}"
    for path in sorted({*theirs, *ours})
    if not agree(theirs.get(path, missing), ours.get(path, missing), allowed.get(path, 0))
]
numbers = sum(isinstance(leaf, int | float) for leaf in theirs.values())
if differ:
    raise ValueError(f"{len(differ)} of {numbers} numbers do not agree:\n" + "\n".join(differ))
print(f"all {numbers} numbers of the report agree")
