"""Source of the exported notebook `significance.ipynb`, which computes every number of the report again.

It imports nothing of the tool whose report it checks. It can also be run as a script, in an exported folder.
"""

# %% [markdown]
# # Do the gains hold?
#
# Here every number of this study's report (`report.json`) is computed again from the raw tables: what each
# run scored on each image. The last cell compares the two, and names what differs. `README.md` explains
# the columns. Accuracies and gains are shares in the files, and points in what is printed and drawn here.
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

plt.rcParams["text.parse_math"] = False  # a name may hold a $
report = json.loads(Path("report.json").read_text(encoding="utf-8"))
study = json.loads(Path("study.json").read_text(encoding="utf-8"))
contents, space = study["contents"], study["searched"]
# what has its default may be left out of the file
declared = {"looks": None, "margin": None} | contents["analysis"]
searching = {"replicates": 1, "objective": "first"} | contents["search"]
seeds, searches = contents["confirm"]["seeds"], searching["replicates"]
blocks = searches if searches > 1 else seeds
looks = declared["looks"] if isinstance(declared["looks"], list) else [blocks]
ratios = list(dict.fromkeys([*declared["endpoints"], *declared["curve"]]))


def split_name(arm):
    """The name and the task of an arm such as `set@wine`. The task is empty where none are listed."""
    base, _, task = arm.partition("@")
    return base, task


# %% [markdown]
# Of `comparisons.parquet` we take only which arm is held against which; its numbers are to be checked. What
# is tested follows from the study: the arms of the family over the baseline, and those of `against` over
# the arms that are named there, on the same task.

# %%
columns = ["run_id", "epoch", "train_accuracy", "test_accuracy", "dense_test_accuracy"]
columns += ["keep_ratio", "nonzero_rate", "parameters"]
epochs = pd.read_parquet("epochs.parquet", columns=columns)
endpoints = pd.read_parquet("endpoints.parquet")
runs = pd.read_parquet("runs.parquet").set_index("run_id").astype({"threads": "Int64"})
candidates = pd.read_parquet("candidates.parquet").to_dict("records")
identifying = ["arm", "task", "rank", "reference_arm", "keep_ratio", "role", "overlap"]
compared = pd.read_parquet("comparisons.parquet", columns=identifying).to_dict("records")
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


def finished(run_id):
    """Whether a run came to an end of its own, be it a bad one."""
    return runs.at[run_id, "state"] in ("completed", "collapsed", "diverged")


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
# ## The finalists
#
# Each search picks its finalists by validation accuracy alone, among the candidates that came to the last
# rung of the ladder: by the first endpoint (`first`), by the mean rank over all endpoints (`rank`; of equals
# the one that is better at the first), or for each endpoint its own (`each`). Of equals the earlier one is
# picked, and settings that were tried before only where there are no others. What we pick has to be what
# was confirmed.

# %%
by_phase = {phase: [row for row in candidates if row["phase"] == phase] for phase in ("search", "confirm")}
confirmed = {row["candidate"]: list(row["run_ids"]) for row in by_phase["confirm"]}


def finalists(arm):
    """The number of an arm's candidates that are confirmed: one where nothing is searched."""
    return min(searching["finalists"], budget(arm)) if arm in space else 1


def original(arm):
    """What the study says of an arm, or of the arm that it repeats."""
    name = split_name(arm)[0]
    return written[written[name]["repeat"] or name]


def budget(arm):
    """The number of candidates of one search of an arm."""
    return original(arm)["budget"] or searching["budget"]


def on_task_of(arm, name):
    """Another arm, on the same task."""
    task = split_name(arm)[1]
    return f"{name}@{task}" if task else name


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
    match = original(row["arm"])["match"] or {}
    if not match.get("settings"):
        return {}
    other = (on_task_of(row["arm"], match["arm"]), row["search"])
    run = next(
        candidate["run_ids"][0]
        for candidate in by_phase["confirm"]
        if (candidate["arm"], candidate["search"]) == other
    )
    spec = json.loads(runs.at[run, "spec"])
    parts = {name: name.split(".", 1) for name in match["settings"]}
    # a run's spec may leave out a setting that has its default
    return {name: spec[part].get(key, row[name]) for name, (part, key) in parts.items()}


def validation(row, ratio):
    """A candidate's mean validation accuracy at a keep ratio; NaN while a run of it has not finished."""
    values = [score(run, "validation", ratio) for run in row["run_ids"]]
    return math.fsum(values) / len(values)


def order(tried, ratio):
    """The candidates of a search, the best one for an endpoint first."""
    chosen_by = ratio if searching["objective"] == "each" else declared["endpoints"][0]
    scores = np.array([validation(row, chosen_by) for row in tried])
    keys = [-scores]
    if searching["objective"] == "rank":
        at_each = [[-validation(row, each) for row in tried] for each in declared["endpoints"]]
        keys.append(np.mean([stats.rankdata(scores) for scores in at_each], 0))
    # lexsort is stable, and its last key counts first
    seen, first, repeated = [], [], []
    for i in np.lexsort(keys):
        own = settings(tried[i])
        (repeated if own in seen else first).append(tried[i])
        seen.append(own)
    return first + repeated


def pick(arm, search):
    """The names of a search's finalists by endpoint, the best one first; none while it is under way."""
    own = [row["candidate"] for row in by_phase["confirm"] if (row["arm"], row["search"]) == (arm, search)]
    if arm not in space:
        return dict.fromkeys(declared["endpoints"], own)
    if (repeated := written[split_name(arm)[0]]["repeat"]) and searches == 1:
        picked = pick(on_task_of(arm, repeated), search)
        return {ratio: [f"{arm}:{name}" for name in names] for ratio, names in picked.items()}
    tried = [row for row in by_phase["search"] if (row["arm"], row["search"]) == (arm, search)]
    if len(tried) < budget(arm) or any(
        math.isnan(validation(row, declared["endpoints"][0])) for row in tried
    ):
        return {ratio: [] for ratio in declared["endpoints"]}
    last_rung = [row for row in tried if len(row["run_ids"]) == max(searching["ladder"])]
    return {
        ratio: [row["candidate"] for row in order(last_rung, ratio)[: finalists(arm)]]
        for ratio in declared["endpoints"]
    }


arm_names = [on_task_of(f"@{task}", name) for task in contents["tasks"] or [""] for name in written]
picked = {(arm, search): pick(arm, search) for arm in arm_names for search in range(1, searches + 1)}
for (arm, search), names in picked.items():
    ours, theirs = {}, {}
    for ratio, own in names.items():
        for name in own:
            ours.setdefault(name, []).append(ratio)
    for row in by_phase["confirm"]:
        if (row["arm"], row["search"]) == (arm, search):
            theirs[row["candidate"]] = list(row["endpoints"])
    if ours != theirs:
        raise ValueError(f"candidates.parquet: search {search} of {arm} picks {ours}; confirmed is {theirs}")
for row in by_phase["search"]:
    for ratio in declared["endpoints"]:
        stated = row[f"validation_accuracy_at_r_{ratio:g}"]
        if not math.isnan(stated) and abs(stated - validation(row, ratio)) > 1e-12:
            raise ValueError(f"candidates.parquet: the validation accuracy of {row['candidate']} is wrong")

# %% [markdown]
# ## The searches
#
# Scores are means over the seeds that a candidate was given, on validation images. Importances are
# Optuna's, by PED-ANOVA, over the candidates of all searches of an arm; it is asked once there are four
# scores that are not all equal.


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


def candidates_of(arm):
    """The candidates of all searches of an arm, in the order in which they were proposed."""
    return [row for row in by_phase["search"] if row["arm"] == arm]


def search_of(arm):
    """The candidates of an arm's searches with their scores, and the importances of its settings."""
    tried = [
        {
            "candidate": row["candidate"],
            "settings": settings(row),
            "seeds": len(row["run_ids"]),
            "score": or_null(validation(row, declared["endpoints"][0])),
            "search": row["search"],
            "picked_for": picked_for.get(row["candidate"], []),
        }
        for row in candidates_of(arm)
    ]
    return {
        "arm": arm,
        "candidates": tried,
        "importances": importances(arm, tried),
        "searches": searches,
    }


picked_for = {}
for by_ratio in picked.values():
    for ratio, names in by_ratio.items():
        for name in names:
            picked_for.setdefault(name, []).append(ratio)
# with one search of each arm, a repeat takes the finalists of another arm
searched = [
    arm for arm in arm_names if arm in space and (searches > 1 or not written[split_name(arm)[0]]["repeat"])
]
optuna.logging.set_verbosity(optuna.logging.WARNING)
with warnings.catch_warnings():
    # Optuna calls the evaluator experimental
    warnings.simplefilter("ignore")
    search = [search_of(arm) for arm in searched]
pd.DataFrame([{"arm": arm["arm"], **arm["importances"]} for arm in search])

# %% [markdown]
# What would smaller searches have picked? Candidates are drawn with replacement from those of all searches,
# and the best of the first b is picked, as on the first rung: its validation accuracy is on the curve at b.
# The report computes the mean and the deviation of it; here they are those of many draws. Only random
# candidates can stand for others like them: with `tpe` and `grid` there are no curves.

# %%
BOOTSTRAPS = 40_000


def tuning_of(arm):
    """The tuning curves of an arm, and how far their values may be from the report's, by path."""
    tried = [row["run_ids"][: searching["ladder"][0]] for row in candidates_of(arm)]
    tried = [ids for ids in tried if all(finished(run) for run in ids)]
    found = {"arm": arm, "budget": budget(arm), "candidates": len(tried), "curves": []}
    if searching["proposer"] != "random" or not tried:
        return found, {}
    found["why_not"] = None
    sound = [run for ids in tried for run in ids if runs.at[run, "state"] != "diverged"]
    measured = {
        ratio: np.array([np.mean([score(run, "validation", ratio) for run in ids]) for ids in tried])
        for ratio in declared["endpoints"]
        if all((run, "validation", ratio) in bits for run in sound)
    }
    allowed = {}
    for i, (ratio, values) in enumerate(measured.items()):
        by = values if searching["objective"] == "each" else measured[declared["endpoints"][0]]
        by = np.round(by, 12)
        if searching["objective"] == "rank":
            ranks = [stats.rankdata(np.round(column, 12)) for column in measured.values()]
            # of equals the better one at the first endpoint is picked; mean ranks differ by more than this
            by = np.mean(ranks, 0) + 1e-9 * ranks[0]
        drawn = best_of_draws(by, values)
        mean, deviation = drawn.mean(0), drawn.std(0)
        # what happens in fewer than 15 of all draws may not be seen
        unseen = 15 * np.ptp(values) / BOOTSTRAPS
        variance = 5 * np.sqrt(np.maximum(0, ((drawn - mean) ** 4).mean(0) - deviation**4) / BOOTSTRAPS)
        variance += unseen * np.ptp(values)
        off = {
            "mean": 5 * deviation / math.sqrt(BOOTSTRAPS) + unseen,
            "deviation": np.maximum(
                np.sqrt(deviation**2 + variance) - deviation,
                deviation - np.sqrt(np.maximum(0, deviation**2 - variance)),
            ),
        }
        found["curves"].append({"keep_ratio": ratio, "mean": mean.tolist(), "deviation": deviation.tolist()})
        allowed |= {
            f"curves > {i} > {name} > {budget}": float(most)
            for name, column in off.items()
            for budget, most in enumerate(column)
        }
    return found, allowed


def best_of_draws(by, values):
    """What the best of the first b draws is worth, for every b. Of equals the earlier candidate is best."""
    order = np.lexsort([-np.arange(len(by)), by])
    places = np.random.default_rng(1908).integers(0, len(by), (BOOTSTRAPS, len(by)))
    return values[order][np.maximum.accumulate(places, 1)]


tuning, off_curve = zip(*map(tuning_of, searched), strict=True) if searched else ((), ())
figure, axis = plt.subplots(figsize=(6, 4), layout="constrained")
for arm in tuning:
    for curve in arm["curves"]:
        budgets = range(1, len(curve["mean"]) + 1)
        label = f"{arm['arm']}, r = {curve['keep_ratio']:g}"
        axis.plot(budgets, 100 * np.array(curve["mean"]), label=label)
axis.set(xlabel="candidates of a search", ylabel="validation accuracy of its pick, points")
if axis.lines:
    axis.legend(fontsize=7)
plt.show()

# %% [markdown]
# ## The confirmed arms
#
# A finalist's runs stand by place in the pool of seeds: runs of one place are a pair. With several searches
# an arm has a finalist of each, and where a search decides its settings, each search counts once. The best
# epoch of a run is chosen by looking at the test set; the inflation is what that choice adds to the last
# epoch, both at r = 1. Papers tend to report the best epoch at that epoch's own r. The limits of the share
# of runs that failed are those of Clopper and Pearson.

# %%
by_run = epochs.sort_values("epoch", kind="stable")
# without a keep ratio there is no second column: the accuracy is that at r = 1
measured_dense = by_run.groupby("run_id")["dense_test_accuracy"].transform("count") > 0
by_run["at_1"] = by_run["dense_test_accuracy"].where(measured_dense, by_run["test_accuracy"])
by_run = by_run.groupby("run_id")
best, best_own = by_run["at_1"].max(), by_run["test_accuracy"].max()
last = by_run.tail(1).set_index("run_id")["at_1"]
parameters = {
    end: rows.set_index("run_id")["parameters"]
    for end, rows in (("start", by_run.head(1)), ("end", by_run.tail(1)))
}


def count_of(ids, end):
    """The mean number of parameters of some runs at the start or end; null where one is not known."""
    counts = parameters[end].reindex(ids)
    return float(counts.mean()) if len(counts) and counts.notna().all() else None


def is_drawn(arm):
    """Whether another search would give an arm other settings, or those of the arm that it follows."""
    match = original(arm)["match"]
    return arm in space or (bool(match) and on_task_of(arm, match["arm"]) in space)


def limits(failed, total):
    """The exact limits of the chance that a run fails."""
    alpha = declared["alpha"]
    low = stats.beta.ppf(alpha / 2, failed, total - failed + 1) if failed else 0.0
    return float(low), float(
        stats.beta.isf(alpha / 2, failed + 1, total - failed) if failed < total else 1.0
    )


def accuracy_of(arm, names, ratio):
    """The accuracy of some finalists at a keep ratio: over the searches that pick them, or over runs."""
    at = [[score(run, "test", ratio) for run in confirmed[name] if finished(run)] for name in names]
    if searches > 1 and is_drawn(arm):
        return spread([math.fsum(own) / len(own) for own in at if own])
    return spread([value for own in at for value in own])


def figures(arm, rank):
    """The report's figures of an arm's finalists of one rank; null where no search is done."""
    by_search = [
        {ratio: names[rank - 1] for ratio, names in picked[arm, search].items() if rank <= len(names)}
        for search in range(1, searches + 1)
    ]
    by_ratio = {ratio: [own[ratio] for own in by_search if ratio in own] for ratio in declared["endpoints"]}
    if not any(by_ratio.values()):
        return None
    primary = by_ratio[declared["endpoints"][0]]
    ids = list(
        dict.fromkeys(run for names in by_ratio.values() for name in names for run in confirmed[name])
    )
    ended = [runs.at[run, "state"] for run in ids if finished(run)]
    failed = len(ended) - ended.count("completed")
    low, high = limits(failed, len(ended)) if ended else (None, None)
    of_first = [run for name in primary for run in confirmed[name] if finished(run)]
    trained = [run for run in dict.fromkeys(of_first) if runs.at[run, "state"] != "diverged"]
    trained_runs[arm, rank] = trained
    at_best, at_last, at_own = (
        spread(column.reindex(trained).to_numpy())["mean"] for column in (best, last, best_own)
    )
    return {
        "arm": arm,
        "task": split_name(arm)[1],
        "rank": rank,
        "candidate": primary[0] if searches == 1 else None,
        "finalists": finalists(arm),
        "searches": searches,
        "settings": settings(confirmed_rows[primary[0]]) if searches == 1 else {},
        "settings_by_search": [
            {f"{ratio:g}": settings(confirmed_rows[name]) for ratio, name in own.items()}
            for own in by_search
        ],
        "seeds": len(ids),
        "finished": len(ended),
        "diverged": ended.count("diverged"),
        "collapsed": ended.count("collapsed"),
        "failure_rate": failed / len(ended) if ended else None,
        "failure_low": low,
        "failure_high": high,
        "accuracy": {
            f"{ratio:g}": accuracy_of(arm, by_ratio.get(ratio, primary), ratio) for ratio in ratios
        },
        "best_epoch": or_null(at_best),
        "last_epoch": or_null(at_last),
        "inflation": or_null(at_best - at_last) if trained else None,
        "best_epoch_own_ratio": or_null(at_own),
        "parameters_start": count_of(of_first, "start"),
        "parameters_end": count_of(of_first, "end"),
    }


def in_points(rows, columns, shares):
    """Some columns of some rows as a table, with shares as points."""
    table = pd.DataFrame(rows, columns=columns)
    return table.assign(**{name: (100 * table[name].astype(float)).round(2) for name in shares})


trained_runs = {}
confirmed_rows = {row["candidate"]: row for row in by_phase["confirm"]}
every = [figures(arm, rank) for arm in arm_names for rank in range(1, finalists(arm) + 1)]
arms = [row for row in every if row]
shown = ["last_epoch", "inflation", "failure_rate", "failure_low", "failure_high"]
in_points(arms, ["arm", "rank", "candidate", "searches", "seeds", "finished", *shown], shown)

# %% [markdown]
# Means over the runs. Left: test accuracy over the epochs, at each epoch's own keep ratio r (thin) and of
# the same weights at r = 1 (thick). Right: the final weights at every measured r, with standard errors.

# %%
figure, (over_epochs, over_ratios) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
for i, arm in enumerate(arms):
    name, color = arm["arm"] + (f", finalist {arm['rank']}" if arm["rank"] > 1 else ""), f"C{i % 10}"
    own = [picked[arm["arm"], search][declared["endpoints"][0]] for search in range(1, searches + 1)]
    ids = [run for names in own for finalist in names[arm["rank"] - 1 :][:1] for run in confirmed[finalist]]
    by_epoch = epochs[epochs["run_id"].isin(ids)].groupby("epoch")
    course = 100 * by_epoch[["test_accuracy", "dense_test_accuracy"]].mean().dropna()
    over_epochs.plot(course.index, course["test_accuracy"], color=color, lw=0.8)
    over_epochs.plot(course.index, course["dense_test_accuracy"], color=color, lw=2, label=name)
    measured = sorted(
        (float(ratio), 100 * accuracy["mean"], 100 * (accuracy["standard_error"] or 0))
        for ratio, accuracy in arm["accuracy"].items()
        if accuracy["mean"] is not None
    )
    columns = ([point[k] for point in measured] for k in range(3))
    over_ratios.errorbar(*columns, color=color, marker="o", ms=4, label=name)
over_epochs.set(xlabel="epoch", ylabel="test accuracy, points")
over_ratios.set(xlabel="keep ratio r of the final weights", xscale="log", ylabel="test accuracy, points")
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

    @property
    def p_error(self):
        """The Monte Carlo standard error of the report's p-value."""
        p = self.p_value()
        return 0.0 if self.exact else math.sqrt(p * (1 - p) / REPORTS_DRAWS)

    def uncertain(self, alpha, side):
        """How far a bound may be from the report's, because both drew flips."""
        if self.exact:
            return 0.0
        error = 5 * math.sqrt(alpha * (1 - alpha) * (1 / REPORTS_DRAWS + 1 / DRAWS))
        bound = self.bound(alpha, side)
        return max(abs(self.bound(max(alpha + off, 0), side) - bound) for off in (-error, error))


# %% [markdown]
# ## What else is said of a comparison
#
# Wilcoxon's test flips the signs of ranks. The two-way standard error is of a table of seeds by images,
# both taken as drawn: a diverged run has none.
#
# Where each seed draws its test rows anew from the same rows, the gains of two seeds are correlated, and
# the variance of their mean is more than s^2 / n. Nadeau and Bengio (2003) take it for (1/n + test rows /
# other rows) s^2, and t on n - 1 degrees of freedom by that. There is no table of seeds by images then:
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


class StudentT:
    """A t test of the mean difference, with the variance that overlapping splits add."""

    def __init__(self, differences, overlap):
        self.freedom, self.gain = len(differences) - 1, differences.mean()
        self.error, self.p_error = deviation_of(differences) * math.sqrt(1 / len(differences) + overlap), 0.0

    def p_value(self):
        """The p-value; 1 where no difference varies."""
        return 2 * float(stats.t.sf(abs(self.gain) / self.error, self.freedom)) if self.error else 1.0

    def bound(self, alpha, side):
        """One end of the interval; infinite where no difference varies."""
        size = stats.t.isf(alpha / 2, self.freedom) * self.error if self.error else math.inf
        return float(self.gain + side * size)

    def uncertain(self, alpha, side):
        """How far a bound may be from the report's: not at all."""
        return 0.0


def deviation_of(values):
    """The standard deviation; 0 where values differ in their last bits alone."""
    deviation = float(np.std(values, ddof=1))
    return deviation if deviation > 1e-12 * np.abs(values).max() else 0.0


def test_of(differences, overlap):
    """The declared test. Equal differences have no error for a t test, so that their signs are flipped."""
    if declared["test"] == "sign-flip" or not (overlap or deviation_of(differences)):
        return SignFlips(differences)
    return StudentT(differences, overlap)


def overlap(name):
    """Test rows over all others, where each seed draws its test rows anew; otherwise 0."""
    run = confirmed[name][0]
    drawn_anew = json.loads(runs.at[run, "spec"])["task"].get("resample") is not None
    return int(runs.at[run, "test_rows"]) / int(runs.at[run, "other_rows"]) if drawn_anew else 0.0


# %% [markdown]
# ## Looks
#
# A study may declare at how many pairs it is tested. Each look tests all pairs so far; p is the number of
# declared looks times the smallest p so far, and the intervals are those of the last look at alpha over
# that number. Where looks are free at any time, or the study grew after a look, a bet is tested instead.
# Six gamblers stake on the sign of each next difference, three on gains and three on losses. Without a gain
# none of them wins on average, so that their mean wealth ever exceeds 1 / p with a chance of at most p. The
# difference x (in units of the root mean square of those before it, the first one of itself) multiplies the
# wealth of slope s by 2 / (1 + exp(-2 s x)). The interval reaches from the least to the greatest gain that
# is not rejected. Where finalists may have been picked anew after a look, the bet has a tenth of alpha.

# %%
PICKED_ANEW = 0.1
SLOPES = (0.4, 0.8, 1.6, -0.4, -0.8, -1.6)


def bets(columns):
    """The p-value of each column of differences, by the highest mean wealth so far."""
    wealth, highest = np.zeros((len(SLOPES), columns.shape[1])), np.zeros(columns.shape[1])
    squares = np.zeros(columns.shape[1])
    for i, rest in enumerate(columns):
        unit = np.sqrt(squares / i) if i else np.abs(rest)
        x = np.divide(rest, unit, out=np.zeros_like(rest), where=unit > 0)
        wealth += [math.log(2) - np.logaddexp(0, -2 * slope * x) for slope in SLOPES]
        highest = np.maximum(highest, special.logsumexp(wealth, 0) - math.log(len(SLOPES)))
        squares += rest**2
    return np.exp(-highest)


def bet(differences, gains):
    """The p-value at each of some gains."""
    return bets(differences[:, None] - gains)


def bet_bound(differences, alpha, side):
    """The outermost gain on a side that is not rejected; NaN where all are, infinite if none is far out."""
    width = float(np.ptp(differences)) or float(np.abs(differences).max()) or 1.0
    if bet(-side * np.ones(len(differences)), np.zeros(1))[0] > alpha:
        return side * math.inf
    near = np.geomspace(1e-11, 1e11, 801) * width
    evenly = np.linspace(differences.min() - 2 * width, differences.max() + 2 * width, 2401)
    gains = np.unique(np.concatenate([differences, evenly, differences[0] - near, differences[0] + near]))
    kept = np.flatnonzero(bet(differences, gains) > alpha)
    if not len(kept):
        return math.nan
    at = kept[-1 if side > 0 else 0]
    inside, outside = gains[at], gains[at + side]
    for _ in range(80):
        middle = (inside + outside) / 2
        if bet(differences, np.array([middle]))[0] > alpha:
            inside = middle
        else:
            outside = middle
    return float(inside)


# %% [markdown]
# ## The gain that could be found
#
# The detectable gain is the one that the test finds with a chance of 80 %, at the strictest step of the
# correction and at the last look alone. Up to 20 pairs the sign-flip test is simulated: in a made-up study
# without a gain, whose differences are normal, a gain would be found once it lifts the lower end of the
# interval above 0; so 80 % of the lower ends lie within the detectable gain. We draw other studies than the
# report's 20,000, and allow five standard errors of both: with 20 pairs a hundred studies have to do, and
# the check is a coarse one. What the bet finds is simulated for any number of pairs. Otherwise the gain is
# that of a t test, averaged, as in the report, over 20,000 quantiles of the estimated deviation (that is
# good for five digits).

# %%
POWER, REPORTS_STUDIES, SUMS, AT_ONCE = 0.8, 20_000, 2**27, 2**21


def lower_ends(n, rank):
    """The lower ends of the intervals of made-up studies without a gain, by the rank of a subset's mean."""
    drawn, found = np.random.default_rng(1908), []
    left = min(REPORTS_STUDIES, SUMS // 2**n)
    while left:
        size = min(left, AT_ONCE // 2**n)
        sums, sizes = np.zeros((size, 1), np.float32), np.zeros(1, np.float32)
        for difference in drawn.standard_normal((n, size, 1), np.float32):
            sums, sizes = np.hstack([sums, sums + difference]), np.append(sizes, sizes + 1)
        # the first subset is the empty one, which has no mean
        found.append(np.partition(sums[:, 1:] / sizes[1:], rank - 1, 1)[:, rank - 1])
        left -= size
    return np.concatenate(found)


@cache
def effect_of_bet(n, alpha):
    """The gain, in standard deviations, that a bet on n pairs detects, and how far it may be off."""
    if bets(np.ones((n, 1)))[0] > alpha:
        return math.inf, 0.0
    rows = np.random.default_rng(1908).standard_normal((n, min(REPORTS_STUDIES, 200_000 // n)))
    error = 5 * math.sqrt(POWER * (1 - POWER) * (1 / REPORTS_STUDIES + 1 / rows.shape[1]))
    found, highest = [], 1.0
    while (bets(rows + highest) <= alpha).mean() < POWER + error:
        highest *= 2
    for share in (POWER - error, POWER, POWER + error):
        low, high = 0.0, highest
        for _ in range(14):
            middle = (low + high) / 2
            low, high = (low, middle) if (bets(rows + middle) <= alpha).mean() >= share else (middle, high)
        found.append(high)
    low, effect, high = found
    return effect, max(high - effect, effect - low) + highest / 2**12


@cache
def detectable_effect(n, alpha, overlap):
    """The gain, in standard deviations, that n pairs detect, and how far it may be from the report's."""
    if declared["test"] == "sign-flip" and n <= EXACT:
        rank = math.floor(alpha * 2 ** (n - 1) + 1e-9)
        if not rank:
            return math.inf, 0.0
        sizes = -lower_ends(n, rank)
        error = 5 * math.sqrt(POWER * (1 - POWER) * (1 / REPORTS_STUDIES + 1 / len(sizes)))
        low, effect, high = np.quantile(sizes, [POWER - error, POWER, min(1, POWER + error)])
        return float(effect), float(max(high - effect, effect - low))
    deviations = np.sqrt(stats.chi2.ppf((np.arange(20_000) + 0.5) / 20_000, n - 1) / (n - 1))
    limits = stats.t.ppf(1 - alpha / 2, n - 1) * deviations

    def power(shift):
        return (stats.norm.sf(limits - shift) + stats.norm.cdf(-limits - shift)).mean()

    shift = optimize.brentq(lambda shift: power(shift) - POWER, 0, 1e4)
    return shift * math.sqrt(1 / n + overlap), 0.0


# %% [markdown]
# ## From search to search, and from seed to seed
#
# Where several searches were confirmed with several seeds each, the variance of the gains is split in two,
# by analysis of variance. The limits of the seeds' part are exact; those of the searches' part are the ones
# of Williams (1962) and Tukey. What would be a variance below 0 counts as 0.


# %%
def deviations(gains):
    """The deviations from search to search and from seed to seed, from a table of searches by seeds."""
    searches, seeds = gains.shape
    freedom, rest = searches - 1, searches * (seeds - 1)
    between = seeds * gains.mean(1).var(ddof=1)
    within = gains.var(axis=1, ddof=1).mean()
    alpha = declared["alpha"]

    def limit(share):
        by_seeds_alone = within * stats.f.isf(share, freedom, rest)
        variance = freedom * (between - by_seeds_alone) / stats.chi2.isf(share, freedom) / seeds
        return math.sqrt(max(0.0, variance))

    return {
        "search_deviation": math.sqrt(max(0.0, (between - within) / seeds)),
        "search_deviation_low": limit(alpha / 2),
        "search_deviation_high": limit(1 - alpha / 2),
        "seed_deviation": math.sqrt(within),
        "seed_deviation_low": math.sqrt(within * rest / stats.chi2.isf(alpha / 2, rest)),
        "seed_deviation_high": math.sqrt(within * rest / stats.chi2.ppf(alpha / 2, rest)),
    }


# %% [markdown]
# ## The test of one comparison


# %%
def tested(ours, theirs, overlap, looks):
    """The test's numbers of a complete comparison, and how far each may be from the report's."""
    differences, n, paid = ours - theirs, len(ours), 1 if looks == "any" else len(looks)
    share = PICKED_ANEW if looks == "any" and report["grew_after_look"] == "picks" else 1.0
    gain, deviation = differences.mean(), deviation_of(differences)
    ends = {
        f"{name}_{end}": (alpha / paid, side)
        for name, alpha in alphas.items()
        for end, side in (("low", -1), ("high", 1))
    }
    if looks == "any":
        rounded = np.round(differences, 12)
        p, p_error, drawn = min(1.0, float(bet(rounded, np.zeros(1))[0]) / share), 0.0, {}
        bounds = {
            name: or_null(bet_bound(rounded, share * alpha, side)) for name, (alpha, side) in ends.items()
        }
    else:
        at_looks = [test_of(differences[:look], overlap) for look in looks if look <= n]
        best = min(at_looks, key=lambda test: test.p_value())
        p, p_error = min(1.0, paid * best.p_value()), paid * best.p_error
        bounds = {name: at_looks[-1].bound(*end) for name, end in ends.items()}
        drawn = {name: at_looks[-1].uncertain(*end) for name, end in ends.items()}
    unbiased = math.nan
    if n > 2:
        gammas = special.gammaln((n - 1) / 2) - special.gammaln((n - 2) / 2)
        unbiased = math.exp(gammas) / math.sqrt((n - 1) / 2)
    if looks == "any":
        effect, uncertain = effect_of_bet(n, share * alphas["family"])
    else:
        effect, uncertain = detectable_effect(n, alphas["family"] / declared_looks, overlap)
    return {
        **bounds,
        "p_value": p,
        "p_error": p_error,
        "welch_p_value": welch(ours, theirs),
        "wilcoxon_p_value": wilcoxon(differences),
        "effect_size": or_null(gain / deviation * unbiased) if deviation else None,
        "correlation": float(np.corrcoef(ours, theirs)[0, 1]) if np.ptp(ours) and np.ptp(theirs) else None,
        "detectable_gain": effect * deviation if math.isfinite(effect) else math.inf,
    }, drawn | {"detectable_gain": uncertain * deviation}


# %% [markdown]
# ## The comparisons
#
# With one search a pair is a seed, and the gain is that of the settings that this search picked. With
# several, the finalists of the k-th search of one arm are held against those of the k-th of the other, and a
# pair is the mean gain over that search's seeds; only arms that no search decides are paired seed by seed.
# `family` intervals are at alpha over the number of tests. A comparison that lacks a run is not tested, and
# shows the gain so far.

# %%
alphas = {"ci": declared["alpha"], "family": declared["alpha"] / max(tests, 1)}
declared_looks = len(looks)
of_test = ["effect_size", "welch_p_value", "wilcoxon_p_value", "correlation", "detectable_gain"]
of_test += ["two_way_standard_error", "p_value", "p_error", "p_holm", "verdict", "pick_deviation"]
of_test += ["ci_low", "ci_high", "family_low", "family_high"]
of_test += [f"{part}_deviation{end}" for part in ("search", "seed") for end in ("", "_low", "_high")]


def sides(row):
    """The finalists of both sides, search by search; null where a search is under way."""
    at = [(row["arm"], row["rank"]), (row["reference_arm"], 1)]
    names = [[picked[arm, search][row["keep_ratio"]] for search in range(1, searches + 1)] for arm, _ in at]
    return [
        [own[rank - 1] if rank <= len(own) else None for own in side]
        for side, (_, rank) in zip(names, at, strict=True)
    ]


def places(count, first=0):
    """The search and the place in the pool of each run of a comparison over so many blocks, from 0."""
    if searches == 1:
        return [(0, place) for place in range(first, count)]
    return [(search, place) for search in range(first, count) for place in range(seeds)]


def run_at(name, place):
    """A finalist's run at a place in the pool; null where it has not finished."""
    ids = confirmed.get(name, [])
    run = ids[place] if place < len(ids) else None
    return run if run and finished(run) else None


def is_complete(row, count, first=0):
    """Whether a comparison has all its runs in some blocks."""
    return all(run_at(side[at], place) for at, place in places(count, first) for side in sides(row))


def stage():
    """The number of blocks that are compared, the number of the look, and whether any look is free."""
    rows = [row for row in compared if row["role"] == "family"]
    done = 0
    while done < blocks and all(is_complete(row, done + 1, done) for row in rows):
        done += 1
    if declared["looks"] == "any" or report["grew_after_look"] or done > looks[-1]:
        return max(done, 2), 0, True
    reached = [look for look in looks if look <= done]
    return (reached or looks[:1])[-1], len(reached), False


def pick_deviation(row):
    """How far another search would move a gain, and how far that may be from the report's."""
    drawn = [arm for arm in (row["arm"], row["reference_arm"]) if is_drawn(arm)]
    curves = [
        (own["deviation"][at], off[f"curves > {i} > deviation > {at}"])
        for arm, off in zip(tuning, off_curve, strict=True)
        for i, own in enumerate(arm["curves"])
        for at in [min(arm["budget"], arm["candidates"]) - 1]
        if arm["arm"] in drawn and own["keep_ratio"] == row["keep_ratio"]
    ]
    if searches > 1 or row["rank"] > 1 or not drawn or len(curves) < len(drawn):
        return None, 0.0
    return math.hypot(*(deviation for deviation, _ in curves)), sum(off for _, off in curves)


def compare(row, count, look, at_any_time):
    """A comparison's numbers over so many blocks, and how far each may be from the report's."""
    names, ratio = sides(row), row["keep_ratio"]
    pairs = {search: [] for search in range(searches)}
    for search, place in places(count):
        pair = [run_at(side[search], place) for side in names]
        if all(pair):
            pairs[search].append(pair)
    gained = {
        search: np.array([[score(run, "test", ratio) for run in pair] for pair in own])
        for search, own in pairs.items()
        if own
    }
    by_search = searches > 1 and (is_drawn(row["arm"]) or is_drawn(row["reference_arm"]))
    units = [[own.mean(0)] if by_search else own for own in gained.values()]
    ours, theirs = np.concatenate([np.empty((0, 2)), *units]).T
    ids = [[pair[side] for own in pairs.values() for pair in own] for side in (0, 1)]
    ends = [[runs.at[run, "state"] for run in side] for side in ids]
    by_run = np.concatenate([np.empty((0, 2)), *gained.values()]) @ [1, -1]
    sound = [by_run[i] for i, pair in enumerate(zip(*ends, strict=True)) if set(pair) == {"completed"}]
    total, without = spread(ours - theirs), spread(sound)
    # of a study that ended early, only so many searches are compared
    known = [[] if None in side[:count] else side[:count] for side in names]
    share = overlap(known[0][0]) if known[0] else row["overlap"]
    for gains, n in ((total, len(ours)), (without, len(sound))):
        gains["standard_error"] = gains["deviation"] * math.sqrt(1 / n + share) if n > 1 else None
    rounded = np.round(ours - theirs, 12)
    margins = dict(zip(declared["endpoints"], declared["margin"] or [], strict=False))
    numbers = row | dict.fromkeys(of_test)
    numbers |= {
        "candidates": known[0],
        "references": known[1],
        "overlap": share,
        "finalists": finalists(row["arm"]),
        "unit": "search" if by_search else "seed",
        "pairs": len(ours),
        "seeds": len(by_run),
        "searches": min(searches, count),
        "look": look,
        "looks": 0 if at_any_time else len(looks),
        "better": int((rounded > 0).sum()),
        "equal": int((rounded == 0).sum()),
        "pairs_without": len(sound),
        "accuracy": spread(ours)["mean"],
        "reference_accuracy": spread(theirs)["mean"],
        "gain": total["mean"],
        "standard_error": total["standard_error"],
        "gain_without": without["mean"],
        "standard_error_without": without["standard_error"],
        "margin": margins[ratio] / 100 if margins else None,
    }
    for prefix, side, run_ids, ended in zip(("", "reference_"), known, ids, ends, strict=True):
        name = side[0] if side and searches == 1 else None
        arm = row[f"{prefix}arm"]
        numbers[prefix.removesuffix("_") or "candidate"] = name
        numbers[f"{prefix}settings"] = settings(confirmed_rows[name]) if name and is_drawn(arm) else None
        numbers[f"{prefix}parameters"] = count_of(run_ids, "end")
        numbers |= {f"{prefix}{state}": ended.count(state) for state in ("diverged", "collapsed")}
    if not is_complete(row, count):
        return numbers | {"state": "incomplete"}, {}
    in_pairs = [seen * (seeds if searches > 1 and not by_search else 1) for seen in [*looks, count]]
    # a look before the study grew was the only one
    paid = in_pairs[:-1] if count in looks else in_pairs[-1:]
    more, drawn = tested(ours, theirs, share, "any" if at_any_time else paid)
    if by_search and seeds > 1 and len(gained) > 1:
        more |= deviations(np.stack(list(gained.values())) @ [1, -1])
    images = [[bits.get((run, "test", ratio)) for run in side] for side in ids]
    error = None if share or (by_search and seeds > 1) else two_way_error(*images)
    return numbers | {"state": "complete", "two_way_standard_error": error} | more, drawn


now = stage()
comparisons, off = zip(*(compare(row, *now) for row in compared), strict=True)
for numbers, may_differ in zip(comparisons, off, strict=True):
    numbers["pick_deviation"], may_differ["pick_deviation"] = pick_deviation(numbers)

# %% [markdown]
# Holm's correction, once the whole family is complete: the smallest p times the number of tests, the next
# times one fewer, and so on; never less than the one before, and never more than 1. With a margin, the
# largest difference that was declared not to matter, the verdict is read off the family's interval: on which
# side of 0 it lies, or whether within the margin. Without one it goes by the corrected p.


# %%
def verdict(row):
    """What a tested comparison shows."""
    low, high, margin = row["family_low"], row["family_high"], row["margin"]
    if margin is None:
        found = row["p_holm"] <= declared["alpha"]
        return ("better" if row["gain"] > 0 else "worse") if found else "inconclusive"
    if low is None or high is None:
        return "inconclusive"
    if low > 0 or high < 0:
        return "better" if low > 0 else "worse"
    return "equivalent" if max(-low, high) < margin else "inconclusive"


def correct(rows, tests=tests):
    """Fill in p_holm, where all tests of the family are there."""
    family = [row for row in rows if row["role"] == "family"]
    if len(family) == tests and all(row["p_value"] is not None for row in family):
        so_far = 0.0
        for i, row in enumerate(sorted(family, key=lambda row: row["p_value"])):
            so_far = row["p_holm"] = max(so_far, min(1.0, (tests - i) * row["p_value"]))
    return rows


def judge(rows):
    """Fill in p_holm and the verdicts of the comparisons on one task."""
    for row in correct(rows):
        if row["p_holm"] is not None:
            row["verdict"] = verdict(row)
    return rows


def before(look):
    """The comparisons as they were at a look before the study grew, and how far they may be off."""
    rows = [{name: row[name] for name in identifying} for row in look["comparisons"]]
    found, off = zip(*(compare(row, look["pairs"], 1, False) for row in rows), strict=True)
    return {"pairs": look["pairs"], "comparisons": judge(found)}, off


judge(comparisons)
earlier, off_before = zip(*map(before, report["earlier"]), strict=True) if report["earlier"] else ((), ())
shown = ["gain", "family_low", "family_high"]
in_points(
    comparisons,
    ["arm", "rank", "reference_arm", "keep_ratio", "role", "better", "pairs", *shown, "p_holm", "verdict"],
    shown,
)

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
    complete = [row for row in rows if row["state"] == "complete"]
    failed = sum(row["seeds"] - row["pairs_without"] for row in complete)
    without = [row["gain_without"] for row in complete if row["gain_without"] is not None]
    said = failed > 0 and len(without) == len(complete)
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
        "run_pairs": sum(row["seeds"] for row in complete),
        "failed_pairs": failed,
        "median_gain_without": float(np.median(without)) if said else None,
        "wins_without": sum(gain > 0 for gain in without) if said else None,
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
    [
        f"{row['candidate'] or row['arm']} over {row['reference_arm']}, r = {row['keep_ratio']:g}"
        for row in with_gain
    ],
)
axis.axvline(0, color="0.7", lw=1, zorder=0)
axis.set_xlabel("gain in test accuracy, points")
plt.show()

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
own_code = confirming["own_code"].dropna().unique()
if len(own_code) > len({code.split()[0] for code in own_code}):  # two hashes of one package
    mixed.append("own_code")
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
# from tables: earlier looks and extensions of the study, published figures, GPU-hours, and the records of
# failures.


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


def beside_the_paper(arm, published):
    """An arm's figures at each run's best epoch, at that epoch's own r, as a paper reports them."""
    own = epochs[epochs["run_id"].isin(trained_runs[arm["arm"], arm["rank"]])]
    own = own.sort_values("epoch", kind="stable")
    best, last = own.loc[own.groupby("run_id")["test_accuracy"].idxmax()], own.groupby("run_id").tail(1)
    return {
        "arm": arm["arm"],
        "rank": arm["rank"],
        "published": published.get(arm["arm"]),
        "best": float(best["test_accuracy"].mean()),
        "epoch": float(best["epoch"].mean()),
        "keep_ratio": or_null(best["keep_ratio"].mean(skipna=False)),
        "nonzero_rate": or_null(best["nonzero_rate"].mean(skipna=False)),
        "last": arm["last_epoch"],
        "gap": float((last["train_accuracy"] - last["test_accuracy"]).mean()),
    }


analysis = {name: value for name, value in declared.items() if name != "family"}
analysis |= {"comparisons": tests, "pairs": blocks}
analysis |= {"searches": searches, "objective": searching["objective"]}
# the other tests have no smallest p
exact = declared["test"] == "sign-flip"
least = next(n for n in range(1, 10_000) if smallest_p(n) <= alphas["family"] / len(looks))
analysis |= {"smallest_p": smallest_p(blocks) if exact else None, "pairs_needed": least if exact else None}
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
    "tuning": tuning,
    "mixed": mixed,
    "earlier": earlier,
}
if published := contents.get("published"):
    here["replication"] = [
        beside_the_paper(row, published["accuracy"]) for row in arms if trained_runs[row["arm"], row["rank"]]
    ]
taken = runs.loc[list(dict.fromkeys(run for row in candidates for run in row["run_ids"]))]
here["taken"] = {
    study: {phase: int((own["phase"] == phase).sum()) for phase in ("search", "confirm")}
    for study, own in taken.groupby("taken_from")
}
ours = leaves({**here, "versions": by_version(tried.to_dict("records"))})
left_out = ("looks", "extensions", "published", "failures", "gpu_hours")
theirs = {name: part for name, part in report.items() if name not in left_out}
theirs |= {"versions": by_version(report["versions"])}
theirs = {
    path: leaf for path, leaf in leaves(theirs).items() if path in ours or not isinstance(leaf, str | bool)
}

# numbers may differ by more where they were drawn; the report states the errors of its p-values
allowed = {
    f"tuning > {i} > {path}": most for i, paths in enumerate(off_curve) for path, most in paths.items()
}


def allow(path, rows, off):
    """Note how far the numbers of some comparisons may be from the report's."""
    errors = [row["p_error"] or 0 if may_differ else 0 for row, may_differ in zip(rows, off, strict=True)]
    for i, (error, may_differ) in enumerate(zip(errors, off, strict=True)):
        of_p = {"p_value": 5 * error, "p_error": len(looks) * math.sqrt(5 * error / REPORTS_DRAWS)}
        of_p["p_holm"] = 5 * tests * max(errors)
        allowed.update({f"{path} > {i} > {name}": most for name, most in (may_differ | of_p).items()})


allow("comparisons", report["comparisons"], off)
for i, (look, may_differ) in enumerate(zip(report["earlier"], off_before, strict=True)):
    allow(f"earlier > {i} > comparisons", look["comparisons"], may_differ)
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
