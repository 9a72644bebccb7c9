"""Bad studies, given to the real command: exit 2, one screen, no traceback, and the right line and word."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sweep.cli.app import app
from tests.conftest import ROOT

GOOD = """\
description: a good one
seed: 1
task:
  data: digits
  model: wrn-10-1
  epochs: 2
  train_size: 96
arms:
  dense:
    policy: {name: dense}
  additive:
    policy: {name: additive-reset, step: 0.3}
    task:
      learning_rate: {low: 0.03, high: 0.3, log: true}
  again: {repeat: dense}
search:
  proposer: random
  budget: 4
  ladder: [1, 2]
confirm:
  seeds: 10
  include: [3407]
analysis:
  baseline: dense
  endpoints: [1.0, 0.05]
"""
SCREEN = 24
POLICY = "{name: additive-reset, step: 0.3}"
RATE = "learning_rate: {low: 0.03, high: 0.3, log: true}"
SPACE = "{low: 0.03, high: 0.3, log: true}"
DATA = "cifar10, digits, synthetic-cifar, breast-cancer, wine"
POLICIES = (
    "dense, fixed, additive-reset, multiplicative-reset, sawtooth, random, static-sparse, set, npset,"
    " npset-frozen"
)


@dataclass(frozen=True)
class Case:
    """One mistake: `old` becomes `new`, and the command says `message` and nothing else.

    The message names the line where `new` begins, unless `line` says another.
    """

    kind: str
    old: str
    new: str
    message: str
    line: int | None = None

    @property
    def text(self) -> str:
        assert GOOD.count(self.old) == 1, self.old
        return GOOD.replace(self.old, self.new)

    @property
    def where(self) -> int:
        lines = zip(GOOD.splitlines(), self.text.splitlines(), strict=False)
        return self.line or next(n for n, (before, after) in enumerate(lines, 1) if before != after)


CASES = [
    Case("unknown top key", "task:\n  data", "sed: 3\ntask:\n  data",
         "sed: no such setting. Did you mean 'seed'?\n    a study takes: description, published, seed"),
    Case("a paper's figure for no arm", "task:\n  data",
         "published: {source: a paper, accuracy: {addtive: 0.9}}\ntask:\n  data",
         "published.accuracy.addtive: must be one of the arms dense, additive, again; it is 'addtive'. Did "
         "you mean 'additive'?"),
    Case("a paper's figure in percent", "task:\n  data",
         "published: {source: a paper, accuracy: {additive: 87.97}}\ntask:\n  data",
         "published.accuracy.additive: must be above 0 and at most 1; it is 87.97."),
    Case("unknown key in search", "budget", "buget",
         "search.buget: no such setting. Did you mean 'budget'?\n    search takes: proposer, budget"),
    Case("unknown key in an arm", "repeat:", "repet:",
         "arms.again.repet: no such setting. Did you mean 'repeat'?\n"
         "    arm takes: policy, task, budget, repeat, match."),
    Case("setting to take that is none", "again: {repeat: dense}",
         "again: {policy: {name: sawtooth, period: 2}, match: {arm: additive, settings: [policy.stp]}}",
         "arms.again.match.settings.0: must be a setting that 'again' and 'additive' both have: "
         "policy.step, policy.survivors, or one of the task; it is 'policy.stp'. Did you mean "
         "'policy.step'?"),
    Case("setting to take that the arm has", "again: {repeat: dense}",
         "again: {policy: {name: sawtooth, period: 2, step: 0.1}, match: "
         "{arm: additive, settings: [policy.step]}}",
         "arms.again.policy.step: follows from match: it is what 'additive' has. Leave it out here."),
    Case("no setting to take", "again: {repeat: dense}",
         "again: {policy: {name: sawtooth, period: 2, step: 0.1}, match: {arm: additive, settings: []}}",
         "arms.again.match.settings: must have at least 1; it has 0."),
    Case("taken setting that does not go with the arm's own", "again: {repeat: dense}",
         "again: {policy: {name: sawtooth, period: 13}, match: "
         "{arm: additive, settings: [policy.step]}}",
         "arms.again.policy.period: of 13 epochs takes the ratio to 0; shorten it or take a smaller "
         "step."),
    Case("unknown policy setting", "step:", "stp:",
         "arms.additive.policy.stp: no such setting. Did you mean 'step'?\n"
         "    additive-reset takes: step, ema, drop"),
    Case("unknown policy", "additive-reset", "additive-rest",
         f"arms.additive.policy.name: must be one of {POLICIES}; it is 'additive-rest'. Did you mean "
         "'additive-reset'?"),
    Case("unknown task key", "epochs: 2", "epoch: 2",
         "task.epoch: no such setting. Did you mean 'epochs'?\n    task takes: data, model, epochs"),
    Case("unknown task key in an arm", RATE, f"{RATE}\n      momentm: 0.5",
         "arms.additive.task.momentm: no such setting. Did you mean 'momentum'?\n    task takes: data"),
    Case("unknown searched task key", "learning_rate", "learnin_rate",
         "arms.additive.task.learnin_rate: no such setting. Did you mean 'learning_rate'?\n"
         "    task takes: data"),
    Case("unknown data", "digits", "digit",
         f"task.data: must be one of {DATA}; it is 'digit'. Did you mean 'digits'?"),
    Case("unknown model", "wrn-10-1", "wrn-28",
         "task.model: no such model: 'wrn-28'. Models are named wrn-DEPTH-WIDEN, as in wrn-28-4; "
         "mlp-WIDTH-WIDTH-... (with SReLU: mlp-srelu-...), as in mlp-1000-1000-1000; "
         "package.module:build, a function of one's own."),
    Case("missing task.epochs", "  epochs: 2\n", "", "task.epochs: is missing; task needs it.", 3),
    Case("missing arms", GOOD[GOOD.index("arms:") : GOOD.index("search:")], "",
         "arms: is missing; a study needs it.", 1),
    Case("missing baseline", "  baseline: dense\n", "",
         "analysis.baseline: is missing; analysis needs it.", 23),
    Case("misspelt arms", "arms:", "arm:",
         "arm: no such setting. Did you mean 'arms'?\n    a study takes: description, published"),
    Case("text for a whole number", "budget: 4", "budget: four",
         "search.budget: must be a whole number; it is 'four'."),
    Case("quoted number", "budget: 4", "budget: '4'",
         "search.budget: must be a whole number; it is '4'. Write it without quotes."),
    Case("quoted number in the task", "epochs: 2", "epochs: '2'",
         "task.epochs: must be a whole number; it is '2'. Write it without quotes."),
    Case("fraction for a whole number", "budget: 4", "budget: 4.5",
         "search.budget: must be a whole number; it is 4.5."),
    Case("decimal point in a whole number", "budget: 4", "budget: 4.0",
         "search.budget: must be a whole number; it is 4.0. Write it as 4."),
    Case("truth for a number", "budget: 4", "budget: true",
         "search.budget: must be a whole number; it is True."),
    Case("YAML 1.1's truth", "log: true", "log: yes",
         "arms.additive.task.learning_rate.log: must be true or false; it is 'yes'."),
    Case("number for a text", "repeat: dense", "repeat: 3",
         "arms.again.repeat: must be a text; it is 3."),
    Case("list for a number", SPACE, "[0.03, 0.3]",
         "arms.additive.task.learning_rate: must be a number; it is [0.03, 0.3]."),
    Case("number for a list", "[1, 2]", "2", "search.ladder: must be a list; it is 2."),
    Case("text for a mapping", POLICY, "additive-reset",
         "arms.additive.policy: must be an object; it is 'additive-reset'."),
    Case("nothing for a mapping", "again: {repeat: dense}", "again:",
         "arms.again: must be an object with the keys policy, task, budget, repeat, match; it is None."),
    Case("low not below high", "low: 0.03", "low: 0.3",
         "arms.additive.task.learning_rate: low must be below high; they are 0.3 and 0.3."),
    Case("logarithm of 0", "low: 0.03", "low: 0",
         "arms.additive.task.learning_rate: with log, low must be above 0; it is 0."),
    Case("log and step", "log: true", "log: true, step: 0.1",
         "arms.additive.task.learning_rate: takes log or step, not both."),
    Case("misspelt low", SPACE, "{lo: 0.03, high: 0.3}",
         "arms.additive.task.learning_rate.lo: no such setting. Did you mean 'low'?\n"
         "    a searched setting takes: low, high, log, step."),
    Case("no high", SPACE, "{low: 0.03}",
         "arms.additive.task.learning_rate.high: is missing; a searched setting needs it."),
    Case("empty choice", SPACE, "{choice: []}",
         "arms.additive.task.learning_rate.choice: must have at least 1; it has 0."),
    Case("choice twice", SPACE, "{choice: [0.1, 0.2, 1e-1]}",
         "arms.additive.task.learning_rate: names 0.1 twice."),
    Case("choice of lists", SPACE, "{choice: [[1]]}",
         "arms.additive.task.learning_rate.choice.0: must be a finite number, a text, true or false; "
         "it is [1]."),
    Case("illegal choice", RATE,
         "data: {choice: [digits,\n                      digit]}",
         f"arms.additive.task.data.choice.1: must be one of {DATA}; it is 'digit'. Did you mean "
         "'digits'?", 15),
    Case("fractions of a whole number", RATE, "epochs: {low: 1.5, high: 3}",
         "arms.additive.task.epochs: takes whole numbers; low, high and step must be whole."),
    Case("range outside what is legal", RATE,
         "momentum: {low: 0.5,\n                 high: 1.5}",
         "arms.additive.task.momentum.high: must be at least 0 and below 1; it is 1.5.", 15),
    Case("ends that do not go together", POLICY,
         "{name: sawtooth, step: {low: 0.05, high: 0.2}, period: {low: 5, high: 13}}",
         "arms.additive.policy.period.high: of 13 epochs takes the ratio to 0; shorten it or take a "
         "smaller step."),
    Case("step too small", "log: true", "step: 1e-300",
         "arms.additive.task.learning_rate: has more than 10,000 values; take a larger step."),
    Case("NaN as a bound", "low: 0.03", "low: .nan",
         "arms.additive.task.learning_rate.low: must be a finite number; it is nan."),
    Case("infinity as a bound", "high: 0.3", "high: .inf",
         "arms.additive.task.learning_rate.high: must be a finite number; it is inf."),
    Case("overflow as a bound", "high: 0.3", "high: 1e999",
         "arms.additive.task.learning_rate.high: must be a finite number; it is inf."),
    Case("searched at the top", "epochs: 2", "epochs: {low: 1, high: 3}",
         "task.epochs: is searched, and every arm starts from it. Search it in the task of an arm."),
    Case("validation in the task", "epochs: 2", "epochs: 2\n  validation: 0.2",
         "task.validation: is declared in search.validation."),
    Case("endpoints in an arm", RATE, "endpoints: [1.0]",
         "arms.additive.task.endpoints: is declared in analysis.endpoints."),
    Case("arm without policy", f"    policy: {POLICY}\n", "",
         f"arms.additive: needs a policy: {POLICIES}.", 11),
    Case("policy without name", POLICY, "{step: 0.3}",
         f"arms.additive.policy: needs a name: {POLICIES}."),
    Case("list as a policy's name", POLICY,
         "{name: [dense], step: {low: 0.1, high: 0.2}}",
         f"arms.additive.policy.name: must be one of {POLICIES}; it is ['dense']. Did you mean "
         "'dense'?"),
    Case("searched policy name", POLICY, "{name: {choice: [dense, fixed]}}",
         "arms.additive.policy.name: cannot be searched; write an arm for each policy."),
    Case("bad arm name", "again:", "My Arm:",
         "arms.My Arm: an arm's name has small letters, digits, - and _; it is 'My Arm'."),
    Case("control codes in a name", "again:", '"\\e[2J":',
         "arms.\\x1b[2J: an arm's name has small letters, digits, - and _; it is '\\x1b[2J'."),
    Case("budget without a search", "    policy: {name: dense}\n",
         "    policy: {name: dense}\n    budget: 3\n",
         "arms.dense.budget: has no use: nothing is searched in this arm."),
    Case("repeat of an unknown arm", "repeat: dense", "repeat: dens",
         "arms.again.repeat: must be one of the arms dense, additive; it is 'dens'. Did you mean "
         "'dense'?"),
    Case("repeat of itself", "repeat: dense", "repeat: again",
         "arms.again.repeat: must be one of the arms dense, additive; it is 'again'."),
    Case("repeat beside a policy", "{repeat: dense}", "{repeat: dense, policy: {name: dense}}",
         "arms.again.policy: has no use beside repeat: the arm takes everything from 'dense'."),
    Case("baseline that is no arm", "baseline: dense", "baseline: dens",
         "analysis.baseline: must be one of the arms dense, additive, again; it is 'dens'. Did you "
         "mean 'dense'?"),
    Case("baseline that is a repeat", "baseline: dense", "baseline: again",
         "analysis.baseline: must be an arm of its own, and not another one's repeat."),
    Case("baseline in the family", "baseline: dense",
         "baseline: dense\n  family: [dense, additive]",
         "analysis.family.0: 'dense' is the baseline; it is what the others are compared with."),
    Case("stranger in the family", "baseline: dense", "baseline: dense\n  family: [addtive]",
         "analysis.family.0: must be one of the arms dense, additive, again; it is 'addtive'. Did you "
         "mean 'additive'?"),
    Case("tested arm that is none", "baseline: dense",
         "baseline: dense\n  against: {addtive: [additive]}",
         "analysis.against.addtive: must be one of the arms dense, additive, again; it is 'addtive'. "
         "Did you mean 'additive'?"),
    Case("tested over no arm", "baseline: dense",
         "baseline: dense\n  against: {additive: [agian]}",
         "analysis.against.additive.0: must be one of the arms dense, additive, again; it is 'agian'. "
         "Did you mean 'again'?"),
    Case("tested over a repeat", "baseline: dense",
         "baseline: dense\n  against: {additive: [again]}",
         "analysis.against.additive.0: 'again' only repeats another arm; name that one."),
    Case("tested over the baseline", "baseline: dense",
         "baseline: dense\n  against: {additive: [dense]}",
         "analysis.against.additive.0: 'dense' is the baseline; gains over it are those of "
         "analysis.family."),
    Case("tested over itself", "baseline: dense",
         "baseline: dense\n  against: {additive: [additive]}",
         "analysis.against.additive.0: is the arm itself."),
    Case("tested over nothing", "baseline: dense", "baseline: dense\n  against: {additive: []}",
         "analysis.against.additive: names no arm to be tested over."),
    Case("tested over one arm twice", "baseline: dense",
         "baseline: dense\n  against: {additive: [again, again]}",
         "analysis.against.additive: names again twice."),
    Case("repeat that is tested", "baseline: dense",
         "baseline: dense\n  against: {again: [additive]}",
         "analysis.against.again: 'again' only repeats another arm; name that one."),
    Case("empty family", "baseline: dense", "baseline: dense\n  family: []",
         "analysis.family: is empty: nothing would be tested. Leave it out to test every arm but the "
         "repeats."),
    Case("nothing but a repeat to test", GOOD[GOOD.index("  additive:") : GOOD.index("  again:")], "",
         "analysis.family: is left out, and every arm but the baseline is a repeat: nothing would be "
         "tested. Name one.", 19),
    Case("endpoint above 1", "0.05]", "1.5]",
         "analysis.endpoints.1: must be above 0 and at most 1; it is 1.5."),
    Case("endpoint of 0", "0.05]", "0]", "analysis.endpoints.1: must be above 0 and at most 1; it is 0.0."),
    Case("endpoint twice", "0.05]", "1]", "analysis.endpoints: names 1.0 twice."),
    Case("ladder that falls", "[1, 2]", "[2, 1]",
         "search.ladder: must rise from rung to rung; it is [2, 1]."),
    Case("empty ladder", "[1, 2]", "[]", "search.ladder: must have at least 1; it has 0."),
    Case("seed included twice", "[3407]", "[3407, 3407]", "confirm.include: names 3407 twice."),
    Case("more included than wanted", "[3407]", "[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]",
         "confirm.include: names 11 seeds; confirm.seeds is 10."),
    Case("too few seeds", "seeds: 10", "seeds: 6",
         "confirm.seeds: an exact sign-flip test of 6 pairs cannot go below p = 0.031, and 2 "
         "comparisons under Holm at 0.05 need 0.025. It takes at least 7 seeds, or fewer comparisons."),
    Case("one seed", "seeds: 10", "seeds: 1", "confirm.seeds: a paired test needs at least 2; it is 1."),
    Case("alpha beyond what a float holds of 2 ** pairs", "baseline: dense",
         "baseline: dense\n  alpha: 1e-320",
         "confirm.seeds: an exact sign-flip test of 10 pairs cannot go below p = 0.002, and 2 "
         "comparisons under Holm at 9.99989e-321 need 5e-321. It takes at least 1066 seeds, or "
         "fewer comparisons.", 21),
    Case("negative seed", "seed: 1\n", "seed: -1\n",
         "seed: must be at least 0 and below 9.22337e+18; it is -1."),
    Case("one arm only", GOOD[GOOD.index("  additive:") : GOOD.index("search:")], "",
         "arms: must have at least 2; it has 1.", 8),
    Case("misspelt proposer", "random", "randm",
         "search.proposer: must be one of tpe, random, grid; it is 'randm'. Did you mean 'random'?"),
    Case("grid without a step", "random", "grid",
         "arms.additive.task.learning_rate: needs a step, or a choice, for the proposer 'grid'.", 14),
    Case("grid of another size",
         f"{SPACE}\n  again: {{repeat: dense}}\nsearch:\n  proposer: random",
         "{choice: [0.1, 0.2]}\n  again: {repeat: dense}\nsearch:\n  proposer: grid",
         "arms.additive.budget: must be 2, the points of this arm's grid; it is 4.", 11),
    Case("images held out and trained on", "train_size: 96", "train_size: 1200",
         "task.train_size: asks for 1,200 images beside the 120 held out; there are 1,200 in all."),
    Case("huge seed", "seed: 1\n", "seed: 9223372036854775808\n",
         "seed: must be at least 0 and below 9.22337e+18; it is 9223372036854775808."),
    Case("number of thousands of digits", "seed: 1\n", f"seed: {'9' * 5000}\n",
         "seed: has 5,000 digits; that is no number for a study."),
    Case("more seeds than memory", "seeds: 10", "seeds: 10000000000",
         "confirm.seeds: must be at least 1 and at most 10000; it is 10000000000."),
    Case("more epochs than a life", "epochs: 2", "epochs: 10000000000",
         "task.epochs: must be at most 1,000,000; it is 10,000,000,000."),
    Case("fraction above one GPU", "analysis:\n", "resources: {gpus: 1.5}\nanalysis:\n",
         "resources.gpus: above 1 it must be whole; it is 1.5."),
    Case("too many runs on one GPU", "analysis:\n", "resources: {gpus: 0.05}\nanalysis:\n",
         "resources.gpus: must be 0 or at least 0.1, which is ten runs on a GPU; it is 0.05."),
    Case("key twice", "seed: 1\n", "seed: 1\nseed: 2\n", "seed: stands twice; first in line 2."),
    Case("key that is a list", "seed: 1\n", "? [seed]\n: 1\n", "a key must be a plain word."),
    Case("YAML tag", "a good one",
         "!!python/object/apply:os.system [touch harm]",
         "tags ('tag:yaml.org,2002:python/object/apply:os.system') are not read here. Write plain "
         "values."),
    Case("billion laughs", "description: a good one", "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]",
         "anchors and aliases (& and *) are not read here. Write the values out."),
    Case("tab", "  data", "\tdata", "is not YAML: found character '\\t' that cannot start any token."),
    Case("bracket not closed", "[1, 2]", "[1, 2", "is not YAML: expected ',' or ']', but got ':'.", 20),
    Case("control character", "a good one", "a \x07 one",
         "is not YAML: a control character (number 7) stands in it."),
    Case("escape beyond Unicode", "a good one", '"\\UFFFFFFFF"',
         ": is not YAML: a number in an escape or a directive is out of range.", 0),
    Case("half a character", "a good one", '"\\uD800"',
         "an escape stands for half a character (a surrogate). Write the character itself."),
    Case("10,000 deep", "a good one", "[" * 10_000, "is nested too deeply."),
    Case("second document", "search:", "---\nsearch:", "a second document begins here; a study is one."),
]  # fmt: skip
WHOLE_FILES = [
    ("empty file", "bad.yaml", b"",
     "bad.yaml:1  must be an object with the keys description, published, seed, task, tasks, arms, "
     "search, confirm, analysis, resources, notify; it is None."),
    ("list at the top", "bad.yaml", b"- task\n- arms\n",
     "bad.yaml:1  must be an object with the keys description"),
    ("nothing but a word", "bad.yaml", b"dense",
     "bad.yaml:1  must be an object with the keys description"),
    ("too large", "bad.yaml", b"#" * 262_145,
     "bad.yaml: cannot be read: it has 262,145 bytes, and at most 262,144 are read."),
    ("not UTF-8", "bad.yaml", b"seed: 1\ndescription: caf\xe9\n", "bad.yaml:2  is not UTF-8 text."),
    ("bad file name", "My Study.yaml", GOOD.encode(),
     "My Study.yaml: a study is named after its file; use small letters, digits, - and _ ('My Study' "
     "is not)."),
    ("not there", "bad.yaml", None, "bad.yaml: cannot be read: No such file or directory."),
    ("unknown name", "quikstart", None, "quikstart: no such study. Give a YAML file, or one of "),
    ("folder", ".", None, ".: is a folder; a study is a YAML file."),
]  # fmt: skip


def plan(study: str) -> str:
    """Return what the command says of a study that it refuses; two slots, so that it asks no cluster."""
    done = CliRunner().invoke(app(), ["plan", study, "--workers", "2"])
    assert done.exit_code == 2, (done.output, done.exception)
    assert isinstance(done.exception, SystemExit)
    assert "Traceback" not in done.output
    assert len(done.output.splitlines()) <= SCREEN
    return done.output


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.kind)
def test_a_bad_study_is_told_in_the_line_and_the_words_of_what_is_wrong_and_nothing_else(
    folder: Path, case: Case
) -> None:
    (folder / "bad.yaml").write_text(case.text)
    said = plan("bad.yaml")
    assert said.startswith(
        "bad.yaml" + case.message if case.line == 0 else f"bad.yaml:{case.where}  {case.message}"
    ), said
    assert said.count("bad.yaml") == 1, said
    assert sorted(path.name for path in folder.iterdir()) == ["bad.yaml"]


@pytest.mark.parametrize(
    ("kind", "name", "content", "message"), WHOLE_FILES, ids=[kind for kind, *_ in WHOLE_FILES]
)
def test_what_is_no_study_at_all_is_told_in_one_line(
    folder: Path, kind: str, name: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        (folder / name).write_bytes(content)
    said = plan(name)
    assert said.startswith(message), (kind, said)
    assert len(said.splitlines()) == 1


def test_the_study_that_the_bad_ones_are_made_of_is_good(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweep.estimate.pace.CALIBRATION_SECONDS", 0.0)
    (folder / "good.yaml").write_text(GOOD)
    assert CliRunner().invoke(app(), ["plan", "good.yaml", "--workers", "2"]).exit_code == 0


@pytest.mark.parametrize(("seeds", "needed"), [(2, 8), (7, 8)])
@pytest.mark.parametrize("command", ["plan", "run"])
def test_too_few_seeds_to_find_anything_are_refused_on_stderr_with_the_number_that_can(
    folder: Path, command: str, seeds: int, needed: int
) -> None:
    """Two arms in the family at two endpoints are 4 comparisons: 2 / 2**7 > 0.05 / 4 >= 2 / 2**8."""
    text = GOOD.replace("seeds: 10", f"seeds: {seeds}").replace(
        "baseline: dense", "baseline: dense\n  family: [additive, again]"
    )
    (folder / "bad.yaml").write_text(text)
    done = CliRunner().invoke(app(), [command, "bad.yaml"])
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith("bad.yaml:21  confirm.seeds: ")
    assert f"It takes at least {needed} seeds" in done.stderr
    assert [path.name for path in folder.iterdir()] == ["bad.yaml"]


def test_what_cannot_find_anything_is_told_only_once_it_is_clear_what_is_compared(folder: Path) -> None:
    (folder / "bad.yaml").write_text(
        GOOD.replace("seeds: 10", "seeds: 2").replace("baseline: dense", "baseline: dens")
    )
    assert [line.split()[1] for line in plan("bad.yaml").splitlines()] == ["analysis.baseline:"]


def test_everything_that_is_wrong_is_told_at_once_in_the_order_of_the_lines(folder: Path) -> None:
    """Shapes, settings, ranges and references, though each kind is found by other code."""
    wrong = {
        "seed: 1\n": "sed: 1\n",
        "epochs: 2": "epochs: 0",
        "step: 0.3": "stp: 0.3",
        "low: 0.03": "low: 3",
        "repeat: dense": "repeat: dens",
        "budget: 4": "budget: four",
        "[3407]": "[3407, 3407]",
        "baseline: dense": "baseline: dens",
    }
    text = GOOD
    for old, new in wrong.items():
        text = text.replace(old, new)
    (folder / "bad.yaml").write_text(text)
    said = [line for line in plan("bad.yaml").splitlines() if not line.startswith("    ")]
    assert [line.split("  ")[0] for line in said] == [
        f"bad.yaml:{n}" for n in (2, 6, 12, 14, 15, 18, 22, 24)
    ]


def test_a_screen_is_enough_however_much_is_wrong(folder: Path) -> None:
    (folder / "bad.yaml").write_text(GOOD + "".join(f"wrong{i}: {'x' * 3000}\n" for i in range(60)))
    said = plan("bad.yaml").splitlines()
    assert said[-1] == "... and 50 more."
    assert max(map(len, said)) < 600


@pytest.mark.parametrize("kind", ["unknown policy setting", "YAML tag", "10,000 deep"])
def test_the_command_as_a_process_says_it_on_stderr_and_exits_with_2(folder: Path, kind: str) -> None:
    case = next(case for case in CASES if case.kind == kind)
    path = folder / "bad.yaml"
    path.write_text(case.text)
    done = subprocess.run(
        [sys.executable, "-m", "sweep", "plan", str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"{path}:{case.where}  {case.message}")
    assert len(done.stderr.splitlines()) <= SCREEN
