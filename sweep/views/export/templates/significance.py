"""Source of the exported notebook `significance.ipynb`: every number of the report, computed anew from the tables beside it.

It shares no code with the tool whose report it checks, and imports nothing of it. As a script it runs in an exported folder.
"""

# %% [markdown]
# # Do the gains hold?
#
# Here every number of this study's report (`report.json`) is computed again from the raw tables: what each run scored on each image. The
# last cell compares the two, and names what differs. `README.md` explains the columns. Accuracies and gains are shares, not points.
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
seeds, ratios = (
    contents["confirm"]["seeds"],
    list(dict.fromkeys([*declared["endpoints"], *declared["curve"]])),
)


def split_name(arm):
    """An arm as the study names it, and the task it is run on: a study that lists tasks runs `set` as `set@wine` and so on."""
    base, _, task = arm.partition("@")
    return base, task


# %% [markdown]
# Of `comparisons.parquet` we take only who is held against whom, and from which place in the pool of seeds; its numbers are to be checked.
# What is tested follows from the study: the arms of the family over the baseline, and those of `against`
# over the arms that are named there, on the same task.

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
compared = compared.where(compared.notna(), None).to_dict(
    "records"
)  # an arm has no candidate to confirm while it is searched
written = contents["arms"]
family = declared["family"] or [
    arm for arm, it in written.items() if arm != declared["baseline"] and not it["repeat"]
]


def role(row):
    (arm, task), (reference, on) = split_name(row["arm"]), split_name(row["reference_arm"])
    if task != on or task != row["task"] or task not in (contents["tasks"] or [""]):
        raise ValueError(
            f"comparisons.parquet holds {row['arm']} against {row['reference_arm']}: not on one task of the study"
        )
    tested = (
        arm in family if reference == declared["baseline"] else reference in declared["against"].get(arm, [])
    )
    return "family" if tested else "repeat" if written[arm]["repeat"] else "control"


if wrong := [row for row in compared if role(row) != row["role"]]:
    raise ValueError(f"comparisons.parquet: what is tested is not what was declared, in {wrong}")
tests = sum(row["role"] == "family" for row in compared)

# %% [markdown]
# ## What a run scores
#
# Correctness is one bit per image, the first image in the highest bit. By the declared rule a diverged run scores 0, and any other what it
# measured, a collapsed one (its final training loss is that of a guess) too; no run is dropped. A run that has not finished scores NaN.

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
    key for key, it in bits.items() if key[1] == "test" and len(it) != runs.at[key[0], "test_rows"]
]:
    raise ValueError(f"endpoints.parquet: not as many test images as runs.parquet says at {wrong}")


def score(run_id, split, ratio):
    state = runs.at[run_id, "state"]
    if state in ("completed", "collapsed"):
        return int(bits[run_id, split, ratio].sum()) / len(bits[run_id, split, ratio])
    return 0.0 if state == "diverged" else math.nan


def spread(values):
    """Mean, standard deviation and standard error; null where there are too few values."""
    n = len(values)
    deviation = float(np.std(values, ddof=1)) if n > 1 else None
    error = deviation / math.sqrt(n) if n > 1 else None
    return {"mean": math.fsum(values) / n if n else None, "deviation": deviation, "standard_error": error}


def known(value):
    """Null for what is not a number."""
    return None if value is None or math.isnan(value) else float(value)


# %% [markdown]
# ## The confirmed candidates
#
# A candidate's runs stand by place in the pool of seeds: runs of one place are a pair. The best epoch of a run, which papers tend to
# report, is chosen by looking at the test set; the inflation is what that choice adds to the last epoch.

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
    """Candidates of an arm that are confirmed: one where nothing is searched."""
    source = written[written[split_name(arm)[0]]["repeat"] or split_name(arm)[0]]
    return (
        min(contents["search"]["finalists"], source["budget"] or contents["search"]["budget"])
        if arm in space
        else 1
    )


def count_of(ids, end):
    """Mean number of parameters in the first or last epoch of some runs; null where one does not say."""
    counts = parameters[end].reindex(ids)
    return float(counts.mean()) if len(counts) and counts.notna().all() else None


def settings(row):
    """What the search chose for a candidate, as it was declared: whole numbers are whole, and a choice is one of those given."""

    def typed(value, it):
        if "choice" in it:
            return next(choice for choice in it["choice"] if value in (choice, str(choice)))
        return round(float(value)) if it["whole"] else float(value)

    return {name: typed(row[name], it) for name, it in space.get(row["arm"], {}).items()} | taken(row)


def taken(row):
    """What a candidate has because another arm's first finalist on the same task has it, read from that one's first run."""
    base, task = split_name(row["arm"])
    match = written[written[base]["repeat"] or base]["match"] or {}
    if not match.get("settings"):
        return {}
    other = f"{match['arm']}@{task}" if task else match["arm"]
    run = next(it["run_ids"][0] for it in candidates if it["phase"] == "confirm" and it["arm"] == other)
    spec = json.loads(runs.at[run, "spec"])
    places = {name: name.split(".", 1) for name in match["settings"]}
    return {
        name: spec[part].get(key, row[name]) for name, (part, key) in places.items()
    }  # a default may be left out of the run's


def figures(row):
    ids, states = list(row["run_ids"]), [runs.at[run, "state"] for run in row["run_ids"]]
    ended = [run for run, state in zip(ids, states, strict=True) if state in ("completed", "collapsed")]
    top, end = (spread(it.reindex(ended).to_numpy())["mean"] for it in (best, last))
    numbers = {
        "arm": row["arm"],
        "task": split_name(row["arm"])[1],
        "candidate": row["candidate"],
        "finalists": finalists(row["arm"]),
        "settings": settings(row),
    }
    over = [
        run
        for run, state in zip(ids, states, strict=True)
        if state in ("completed", "collapsed", "diverged")
    ]
    numbers |= {"seeds": len(ids), "finished": len(over)}
    numbers |= {f"parameters_{end}": count_of(over, end) for end in ("start", "end")}
    numbers |= {state: states.count(state) for state in ("diverged", "collapsed")}
    numbers |= {
        "best_epoch": known(top),
        "last_epoch": known(end),
        "inflation": known(top - end) if ended else None,
    }
    return numbers | {
        "accuracy": {
            f"{r:g}": spread([it for it in scores[row["candidate"], r] if not math.isnan(it)])
            for r in ratios
        }
    }


arms = [figures(row) for row in candidates if row["phase"] == "confirm"]
pd.json_normalize(arms)

# %% [markdown]
# Means over the seeds. Left: test accuracy over the epochs, at each epoch's own keep ratio r (thin) and of the same weights at r = 1
# (thick). Right: the final weights at every measured r, with standard errors.

# %%
figure, (over_epochs, over_ratios) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
for i, arm in enumerate(arms):
    course = (
        epochs[epochs["run_id"].isin(confirmed[arm["candidate"]])]
        .groupby("epoch")[["test_accuracy", "dense_test_accuracy"]]
        .mean()
        .dropna()
    )
    over_epochs.plot(course.index, course["test_accuracy"], color=f"C{i % 10}", lw=0.8)
    over_epochs.plot(
        course.index, course["dense_test_accuracy"], color=f"C{i % 10}", lw=2, label=arm["candidate"]
    )
    at = sorted(
        (float(r), it["mean"], it["standard_error"] or 0)
        for r, it in arm["accuracy"].items()
        if it["mean"] is not None
    )
    over_ratios.errorbar(
        *([it[k] for it in at] for k in range(3)),
        color=f"C{i % 10}",
        marker="o",
        ms=4,
        label=arm["candidate"],
    )
over_epochs.set(xlabel="epoch", ylabel="test accuracy")
over_ratios.set(xlabel="keep ratio r of the final weights", xscale="log", ylabel="test accuracy")
if arms:
    over_ratios.legend(fontsize=7)
plt.show()

# %% [markdown]
# ## The sign-flip test and the interval that inverts it
#
# Were there no gain, each pair's difference would be as likely to have the other sign: p is the share of all 2^n ways to flip signs whose
# sum is at least as far from 0 as the one observed. A gain of c is tested by taking c off every difference first, and the interval holds
# every c that is not rejected. p falls from 1 at the mean to both sides, so bisection finds where it crosses alpha. Beyond 20 pairs flips
# are drawn: here other ones than the report's, so that five of its Monte Carlo standard errors are allowed between the two.

# %%
EXACT, DRAWS, REPORTS_DRAWS = 20, 200_000, 100_000


class SignFlips:
    def __init__(self, differences):
        self.differences, self.exact = differences, len(differences) <= EXACT
        self.sums, self.signs = np.zeros(1), np.zeros(1)
        for it in differences if self.exact else ():
            self.sums, self.signs = (
                np.append(self.sums + it, self.sums - it),
                np.append(self.signs + 1, self.signs - 1),
            )
        if not self.exact:
            flips = np.random.default_rng(1908).integers(0, 2, (DRAWS, len(differences)), np.int8) * 2 - 1
            self.sums, self.signs = flips @ differences, flips.sum(1, dtype=float)

    def p_value(self, gain=0.0):
        """Of the null that the gain is this one. Sums that agree but for rounding are ties."""
        rest = self.differences - gain
        extreme = np.abs(self.sums - gain * self.signs) >= abs(rest.sum()) - 1e-12 * np.abs(rest).sum()
        return float(extreme.mean()) if self.exact else (int(extreme.sum()) + 1) / (DRAWS + 1)

    def bound(self, alpha, side):
        """The last gain on one side (-1 or 1) that is not rejected; infinite where none ever is."""
        inside, outside = self.differences.mean(), side * ((side * self.differences).max() + 1e-6)
        if self.p_value(outside) > alpha * (1 + 1e-9):
            return side * math.inf
        for _ in range(60):
            middle = (inside + outside) / 2
            inside, outside = (
                (middle, outside) if self.p_value(middle) > alpha * (1 + 1e-9) else (inside, middle)
            )
        return float(inside)

    def uncertain(self, alpha, side):
        """How far a bound may lie from the report's because both drew flips."""
        off = 5 * math.sqrt(alpha * (1 - alpha) * (1 / REPORTS_DRAWS + 1 / DRAWS))
        return max(abs(self.bound(max(alpha + it, 0), side) - self.bound(alpha, side)) for it in (-off, off))


# %% [markdown]
# ## What else is said of a comparison
#
# Wilcoxon's test flips the signs of ranks. The two-way standard error is of a table of seeds by images, both taken as drawn: a diverged
# run has none. The detectable gain is the one that a t test finds with a power of 80 %, averaged, as in
# the report, over 20,000 quantiles of the estimated deviation (that is good for five digits).
#
# Where each seed draws its test rows anew from the same rows, the gains of two seeds are correlated, and the variance of their mean is more
# than s^2 / n. Nadeau and Bengio (2003) take it for (1/n + test rows / training rows) s^2, and t on n - 1 degrees of freedom by that. There
# is no table of seeds by images then: seeds have different images.


# %%
def wilcoxon(differences):
    rounded = np.round(differences, 12)
    rounded = rounded[rounded != 0]
    if len(rounded) > EXACT or not len(rounded):
        return float(stats.wilcoxon(rounded).pvalue) if len(rounded) else 1.0
    return SignFlips(np.sign(rounded) * stats.rankdata(np.abs(rounded))).p_value()


def welch(ours, theirs):
    if not (np.ptp(ours) or np.ptp(theirs)):
        return float(ours.mean() == theirs.mean())
    sides = [part for side in (ours, theirs) for part in (side.mean(), side.std(ddof=1), len(side))]
    return float(stats.ttest_ind_from_stats(*sides, equal_var=False).pvalue)


def two_way_error(ours, theirs):
    """Never less than what the seeds alone give; null where a run has no bits, as a diverged one."""
    if any(it is None for it in (*ours, *theirs)) or len(ours) < 2:
        return None
    table = np.stack(ours).astype(float) - np.stack(theirs)
    n, images = table.shape
    by_seed, by_image = table.mean(1, keepdims=True), table.mean(0, keepdims=True)
    rest = ((table - by_seed - by_image + table.mean()) ** 2).sum() / ((n - 1) * (images - 1))
    seeds, images_too = images * by_seed.var(ddof=1), n * by_image.var(ddof=1) - rest
    return math.sqrt(max(seeds, seeds + images_too) / (n * images))


@cache
def detectable_effect(n, alpha):
    limits = stats.t.ppf(1 - alpha / 2, n - 1) * np.sqrt(
        stats.chi2.ppf((np.arange(20_000) + 0.5) / 20_000, n - 1) / (n - 1)
    )
    return optimize.brentq(
        lambda at: (stats.norm.sf(limits - at) + stats.norm.cdf(-limits - at)).mean() - 0.8, 0, 1e4
    ) / math.sqrt(n)


def overlap(name):
    """Test rows over rows trained on, where each seed of a candidate draws both from the same rows; else 0."""
    run = confirmed[name][0]
    drawn_anew = json.loads(runs.at[run, "spec"])["task"].get("resample") is not None
    return int(runs.at[run, "test_rows"]) / int(runs.at[run, "train_rows"]) if drawn_anew else 0.0


def tested(ours, theirs, overlap):
    """The numbers of a complete comparison, and how far each may lie from the report's because flips were drawn."""
    differences, drawn = ours - theirs, {}
    n, gain, deviation = len(differences), differences.mean(), differences.std(ddof=1)
    deviation = deviation if deviation > 1e-12 * np.abs(differences).max() else 0.0
    ends = {
        (name, end): (alpha, side)
        for name, alpha in alphas.items()
        for end, side in (("low", -1), ("high", 1))
    }
    error = deviation * math.sqrt(1 / n + overlap)
    if declared["test"] in ("paired-t", "resampled-t"):
        p, p_error = 2 * float(stats.t.sf(abs(gain) / error, n - 1)) if deviation else float(not gain), 0.0
        ends = {
            at: gain + side * stats.t.isf(alpha / 2, n - 1) * error for at, (alpha, side) in ends.items()
        }
    else:
        flips = SignFlips(differences)
        p = flips.p_value()
        p_error = 0.0 if flips.exact else math.sqrt(p * (1 - p) / REPORTS_DRAWS)
        drawn = {} if flips.exact else {"_".join(at): flips.uncertain(*it) for at, it in ends.items()}
        ends = {at: flips.bound(*it) for at, it in ends.items()}
    unbiased = (
        math.exp(special.gammaln((n - 1) / 2) - special.gammaln((n - 2) / 2)) / math.sqrt((n - 1) / 2)
        if n > 2
        else math.nan
    )
    return {
        **{"_".join(at): float(value) for at, value in ends.items()},
        "p_value": p,
        "p_error": p_error,
        "welch_p_value": welch(ours, theirs),
        "wilcoxon_p_value": wilcoxon(differences),
        "effect_size": known(gain / deviation * unbiased) if deviation else None,
        "correlation": float(np.corrcoef(ours, theirs)[0, 1]) if np.ptp(ours) and np.ptp(theirs) else None,
        "detectable_gain": detectable_effect(n, alphas["family"]) * error * math.sqrt(n),
    }, drawn


# %% [markdown]
# ## The comparisons
#
# Paired by seed, from the first place that no earlier look has seen; `family` intervals are at alpha over the number of tests. A comparison
# that lacks a pair is not tested, and shows the gain so far.

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
    names, ratio, whole = (
        [row["candidate"], row["reference"]],
        row["keep_ratio"],
        range(row["first_place"], seeds),
    )
    places = [
        place
        for place in whole
        if all(name and not math.isnan(scores[name, ratio][place]) for name in names)
    ]
    ids = [[confirmed[name][place] for place in places] if places else [] for name in names]
    ours, theirs = (np.array([score(run, "test", ratio) for run in side]) for side in ids)
    states = [[runs.at[run, "state"] for run in side] for side in ids]
    sound = [ours[i] - theirs[i] for i in range(len(places)) if states[0][i] == states[1][i] == "completed"]
    total, without = spread(ours - theirs), spread(sound)
    share = overlap(row["candidate"]) if row["candidate"] else row["overlap"]
    for it, n in ((total, len(places)), (without, len(sound))):
        it["standard_error"] = it["deviation"] * math.sqrt(1 / n + share) if n > 1 else None
    numbers = (
        row
        | {"overlap": share}
        | {
            "finalists": finalists(row["arm"]),
            "pairs": len(places),
            "pairs_without": len(sound),
            **dict.fromkeys(of_test),
        }
    )
    numbers |= {"accuracy": spread(ours)["mean"], "reference_accuracy": spread(theirs)["mean"]}
    numbers |= {
        name: count_of(side, "end")
        for name, side in zip(("parameters", "reference_parameters"), ids, strict=True)
    }
    numbers |= {"gain": total["mean"], "standard_error": total["standard_error"]}
    numbers |= {"gain_without": without["mean"], "standard_error_without": without["standard_error"]}
    for side, prefix in zip(states, ("", "reference_"), strict=True):
        numbers |= {f"{prefix}{state}": side.count(state) for state in ("diverged", "collapsed")}
    if len(places) < len(whole) or not all(names):
        return numbers | {"state": "incomplete"}, {}
    more, drawn = tested(ours, theirs, share)
    error = (
        None if share else two_way_error(*([bits.get((run, "test", ratio)) for run in side] for side in ids))
    )
    return numbers | {"state": "complete", "two_way_standard_error": error} | more, drawn


comparisons, drawn = zip(*map(compare, compared), strict=True)

# %% [markdown]
# Holm's correction, once the whole family is complete: the smallest p times the number of tests, the next times one fewer, and so on; never
# less than the one before, and never more than 1.


# %%
def correct(rows, tests=tests):
    family = [row for row in rows if row["role"] == "family"]
    if len(family) == tests and all(row["p_value"] is not None for row in family):
        so_far = 0.0
        for i, row in enumerate(sorted(family, key=lambda row: row["p_value"])):
            so_far = row["p_holm"] = max(so_far, min(1.0, (tests - i) * row["p_value"]))
    return rows


def before(look):
    rows = [
        compare({name: row[name] for name in identifying}, look["pairs"])[0] for row in look["comparisons"]
    ]
    return {"pairs": look["pairs"], "comparisons": correct(rows)}


correct(comparisons)
earlier = [before(look) for look in report["earlier"]]  # what was tested before more seeds were added
pd.DataFrame(comparisons)[
    [*identifying[:6], "pairs", "gain", "ci_low", "ci_high", "p_value", "p_holm", "two_way_standard_error"]
]

# %% [markdown]
# ## Across tasks
#
# Where the study lists several tasks, each counts once, by its mean gain: the seeds of different tasks are no sample of anything.
# Wilcoxon's test of the tasks' gains is corrected over the arms of the family. With n tasks its p cannot be less than 2 / 2^n, so that
# few tasks can claim nothing; fewer than six never do.


# %%
def smallest_p(pairs):
    return min(1.0, 2.0 ** (1 - pairs))


def over_tasks(rows, tests):
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


of_several = {}
for row in comparisons if len(contents["tasks"]) > 1 else ():
    at = (split_name(row["arm"])[0], split_name(row["reference_arm"])[0], row["keep_ratio"])
    if at[0] != at[1]:
        of_several.setdefault(at, {}).setdefault(row["task"], row)  # of each task the first finalist
corrected = sum(next(iter(it.values()))["role"] == "family" for it in of_several.values())
across = correct([over_tasks(list(it.values()), corrected) for it in of_several.values()], corrected)
pd.DataFrame(across)

# %% [markdown]
# The gains with their intervals (thick: each by itself; thin: all of the family together). Blue is tested, grey a control, orange a
# repeat; an open dot lacks pairs.

# %%
shown = [row for row in comparisons[::-1] if row["gain"] is not None]
figure, axis = plt.subplots(figsize=(9, 1 + 0.3 * len(shown)), layout="constrained")
for y, row in enumerate(shown):
    color = {"family": "C0", "control": "0.5", "repeat": "C1"}[row["role"]]
    for name, width in (("family", 1), ("ci", 3)):
        ends = [row[f"{name}_low"], row[f"{name}_high"]]
        if None not in ends and np.isfinite(ends).all():
            axis.plot(100 * np.array(ends), [y, y], color=color, lw=width)
    axis.plot(100 * row["gain"], y, "o", color=color, mfc=color if row["state"] == "complete" else "white")
axis.set_yticks(
    range(len(shown)),
    [f"{row['candidate']} over {row['reference_arm']}, r = {row['keep_ratio']:g}" for row in shown],
)
axis.axvline(0, color="0.7", lw=1, zorder=0)
axis.set_xlabel("gain in test accuracy, points")
plt.show()

# %% [markdown]
# ## The search
#
# Scores are means over the seeds that a candidate was given, on validation images. Importances are Optuna's, by PED-ANOVA; it is asked once
# there are four scores that are not all equal.


# %%
def distribution(it):
    if "choice" in it:
        return optuna.distributions.CategoricalDistribution(it["choice"])
    low, high, step = it["low"], it["high"], it["step"]
    high = round(low + math.floor((high - low) / step + 1e-9) * step, 12) if step else high
    if it["whole"]:
        return optuna.distributions.IntDistribution(int(low), int(high), log=it["log"], step=int(step or 1))
    return optuna.distributions.FloatDistribution(low, high, log=it["log"], step=step)


def importances(arm, found):
    told = [it for it in found if it["score"] is not None]
    if len(told) < 4 or len({it["score"] for it in told}) < 2:
        return {}
    distributions = {name: distribution(it) for name, it in sorted(space[arm].items())}
    memory = optuna.create_study(direction="maximize")
    for it in told:
        params = {name: it["settings"][name] for name in distributions}
        memory.add_trial(
            optuna.trial.create_trial(params=params, distributions=distributions, value=it["score"])
        )
    return optuna.importance.get_param_importances(
        memory, evaluator=optuna.importance.PedAnovaImportanceEvaluator()
    )


def searched(arm):
    found = []
    for row in candidates:
        if row["phase"] == "search" and row["arm"] == arm:
            values = [score(run, "validation", declared["endpoints"][0]) for run in row["run_ids"]]
            average = known(math.fsum(values) / len(values))
            found.append(
                {
                    "candidate": row["candidate"],
                    "settings": settings(row),
                    "seeds": len(values),
                    "score": average,
                }
            )
    return {"arm": arm, "candidates": found, "importances": importances(arm, found)}


optuna.logging.set_verbosity(optuna.logging.WARNING)
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Optuna calls the evaluator experimental
    search = [searched(arm) for arm in space if not written[split_name(arm)[0]]["repeat"]]
pd.DataFrame([{"arm": it["arm"], **it["importances"]} for it in search])

# %% [markdown]
# ## What the runs ran on
#
# `runs.parquet` has the last attempt of each run. The report reads earlier attempts too, so that it may name more as mixed, but never less.

# %%
environment = ["torch", "device", "threads", "code"]
tried = runs[runs["attempts"] > 0]
confirming = tried[tried["phase"] == "confirm"]
mixed = [name for name in environment if confirming[name].nunique(dropna=False) > 1]
if (confirming["attempts"] > 1).any() and set(mixed) <= set(report["mixed"]):
    mixed = report["mixed"]


def by_version(rows):
    counts = Counter()
    for row in rows:
        counts[
            " ".join(
                "unknown" if pd.isna(row[name]) else str(row[name])
                for name in [*environment, "device_name", "commit"]
            )
        ] += row.get("runs", 1)
    return counts


# %% [markdown]
# ## Do we agree?
#
# Every number of `report.json`: counts exactly, the others to nine digits. Left out is what cannot follow from tables: earlier looks and
# extensions of the study, published figures, and the records of failures.


# %%
def leaves(value, path=""):
    """Every value in a tree by its path."""
    if not isinstance(value, dict | list | tuple):
        return {path: {"inf": math.inf, "-inf": -math.inf}.get(value, value)}
    parts = value.items() if isinstance(value, dict) else enumerate(value)
    return {
        at: leaf
        for key, part in parts
        for at, leaf in leaves(part, f"{path} > {key}" if path else key).items()
    }


def agree(theirs, ours, allowed):
    if isinstance(theirs, float) and isinstance(ours, float):
        return math.isclose(theirs, ours, rel_tol=1e-9, abs_tol=1e-9) or abs(theirs - ours) <= allowed
    return theirs == ours


analysis = {name: value for name, value in declared.items() if name != "family"} | {
    "comparisons": tests,
    "pairs": seeds,
}
exact = declared["test"] == "sign-flip"  # the others have no least p
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
theirs = {name: part for name, part in report.items() if name not in left_out} | {
    "versions": by_version(report["versions"])
}
theirs = {
    path: leaf for path, leaf in leaves(theirs).items() if path in ours or not isinstance(leaf, str | bool)
}

allowed = {}  # where flips were drawn, and the report states the errors
errors = [report["comparisons"][i]["p_error"] or 0 if it else 0 for i, it in enumerate(drawn)]
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
