"""A model of one's own: its name, what may run, and an error in a line for each thing that can be wrong."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from sweep.study.contents import Contents
from sweep.study.rules import check, code_problems
from tests.conftest import ROOT, run_spec, without_wall
from tests.own_models import EXAMPLES, SMALL, changed, importable
from tests.sweeps import study_values
from trainer import lending, models
from trainer.code import code_hash
from trainer.models import own
from trainer.ops import keep_count
from trainer.spec import RunSpec
from trainer.techniques import ALL
from trainer.training import Training

IMAGE, CLASSES = (1, 8, 8), 10


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder for packages that this process can import, until the test ends."""
    with importable(tmp_path):
        yield tmp_path


def written(folder: Path, source: str, name: str = "small") -> str:
    """Write a module, allow its code and return the name of its model."""
    (folder / f"{name}.py").write_text(source)
    own.allow([name])
    return f"{name}:build"


def built(model: str, seed: int = 1) -> Any:
    task = run_spec(model=model).task
    return models.build(task, IMAGE, CLASSES, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", ["a:b", "a.b:c", "_a.b1.c:_d", "Networks.Small:Build"])
def test_a_dotted_path_a_colon_and_a_name_are_a_model(name: str) -> None:
    assert models.wrong(name) is None
    assert own.package_of(name) == name.split(":")[0].split(".")[0]


@pytest.mark.parametrize(
    "name", ["a.b", ":b", "a:", "a:b:c", "a..b:c", "1a:b", "a/b.py:c", "a:b.c", "ä:b", "a:b\n"]
)
def test_nothing_else_is(name: str) -> None:
    assert "package.module:build" in (models.wrong(name) or "")
    assert own.package_of(name) is None


def test_a_spec_is_read_without_the_package_and_its_id_does_not_depend_on_it(folder: Path) -> None:
    before = run_spec(model="small:build").run_id
    trap = folder / "trap"
    for source in (f"open({str(trap)!r}, 'w').close()", "raise RuntimeError", SMALL):
        (folder / "small.py").write_text(source)
        assert run_spec(model="small:build").run_id == before
    assert not trap.exists()
    assert run_spec(model="small:other").run_id != before


def test_every_setting_of_a_task_has_a_use_in_a_model_of_ones_own() -> None:
    given: dict[str, Any] = {"dropout": 0.5, "init_scale": 0.2, "init": "fan-in", "shortcut": "raw"}
    task = run_spec(model="small:build", **given).task
    assert {key: getattr(task, key) for key in given} == given


def test_an_arm_with_such_a_model_cannot_be_matched_by_its_parameters() -> None:
    arms = {
        "dense": {"policy": {"name": "dense"}},
        "matched": {
            "policy": {"name": "dense"},
            "task": {"model": "small:build"},
            "match": {"arm": "dense", "at": "start"},
        },
    }
    problems = check(study_values(arms=arms, search={"validation": 0.1}))[1]
    reasons = dict(problems)
    assert "must be fully connected" in reasons["arms", "matched", "task", "model"]


def test_a_study_names_the_models_that_nobody_allowed_and_where(folder: Path) -> None:
    values = study_values(
        task={"model": "first:build"},
        tasks={"one": {"model": "second:build"}, "other": {}},
        arms={
            "dense": {"policy": {"name": "dense"}},
            "searched": {
                "policy": {"name": "dense"},
                "task": {"model": {"choice": ["mlp-16", "third.inner:build", "small:build"]}},
            },
        },
    )
    written(folder, SMALL)
    found = list(code_problems(Contents.read(values)))
    assert [where for where, _ in found] == [
        ("task", "model"),
        ("tasks", "one", "model"),
        ("arms", "searched", "task", "model", "choice", 1),
    ]
    assert [reason.split("--allow-code ")[1] for _, reason in found] == ["first.", "second.", "third."]


def test_code_that_was_not_allowed_is_not_run(folder: Path) -> None:
    trap = folder / "trap"
    (folder / "small.py").write_text(f"open({str(trap)!r}, 'w').close()\n{SMALL}")
    with pytest.raises(own.ModelError, match="only where the command allows it: --allow-code small"):
        built("small:build")
    own.allow(["small"])  # finds it, and runs nothing
    assert not trap.exists()
    built("small:build")
    assert trap.exists()


@pytest.mark.parametrize(
    ("package", "said"),
    [
        ("nowhere", "Python finds no such package. Install it, or name the folder that it lies in"),
        ("small.inner", "must be the first part of a model's name"),
        ("sys", "lies in no file"),
        ("bare", "Python finds no such package"),
        ("", "must be the first part"),
    ],
)
def test_only_a_package_with_sources_can_be_allowed(
    folder: Path, package: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "small.py").touch()
    monkeypatch.setitem(sys.modules, "bare", ModuleType("bare"))  # as Python's own __main__, it has no spec
    with pytest.raises(own.ModelError, match=said) as error:
        own.allow([package])
    assert str(error.value).startswith(f"--allow-code {package}: ")
    assert "\n" not in str(error.value)


def test_a_package_in_two_folders_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for part in ("one", "two"):
        (folder / part / "split").mkdir(parents=True)
        monkeypatch.syspath_prepend(folder / part)
    with pytest.raises(own.ModelError, match="lies in several folders"):
        own.allow(["split"])


CUSTOM = """
from trainer.models.sites import Site

class Own(Site):
    def forward(self, x):
        out = x.relu()
        if self.nonzero is not None:
            self.nonzero += 1
        return out

"""
MADE = "    return Small(math.prod(image), classes, generator)"
FORWARD = "        return self.last(self.site(self.first(x.flatten(1))))"
FIRST = "Layer(self.first.weight, (self.first.bias,), feeds=1)"
OWN_SITE = ("self.site = ReluSite(12)", "self.site = Own(12)")
WRONG: dict[str, tuple[str, *tuple[tuple[str, str], ...]]] = {
    "another name": ("small has no 'build'. Did you mean 'built'?", ("def build", "def built")),
    "no function": ("must be a function; it is of the type int", ("def build", "build = 3\ndef other")),
    "fewer arguments": ("raised an error: TypeError: build() takes 3", ("(task, image", "(image")),
    "a module of torch": ("Network; it returned Linear.", (MADE, "    return nn.Linear(1, 1)")),
    "no sites": ("a list `sites` with at least one Site.", ("        self.sites = [self.site]\n", "")),
    "an empty list": ("a list `sites` with at least one Site.", ("[self.site]", "[]")),
    "sites of another kind": ("a list `sites` with at least one Site.", ("[self.site]", "[nn.ReLU()]")),
    "no layers": ("a list `layers` with at least one Layer.", ("self.layers = ", "layers = ")),
    "global draws": ("does not draw first.weight from the generator", (", generator=generator", "")),
    "a weight that is none": (
        "layers[1], whose weight must be a parameter",
        ("Layer(self.last.weight)", "Layer(self.last.weight * 1)"),
    ),
    "a weight without inputs": (
        "layers[1], whose weight must be a parameter",
        ("Layer(self.last.weight)", "Layer(self.last.bias)"),
    ),
    "a vector that is none": (
        "layers[0], whose owned vectors must be parameters of 12 numbers",
        ("(self.first.bias,)", "(self.first.bias * 1,)"),
    ),
    "a vector of others": (
        "layers[0], whose owned vectors must be parameters of 12 numbers",
        ("(self.first.bias,)", "(self.last.bias,)"),
    ),
    "no such layer": ("which feeds 2; that must be the index of another", ("feeds=1", "feeds=2")),
    "itself as the next": ("which feeds 0; that must be the index of another", ("feeds=1", "feeds=0")),
    "another width": (
        "layers[0], whose 12 outputs feed layers[1] with 64 inputs.",
        (FIRST, "Layer(self.first.weight, feeds=1), Layer(self.first.weight)"),
    ),
    "too many logits": (
        "must return 10 logits for each sample; for 2 samples it returned (2, 11).",
        ("nn.Linear(12, classes)", "nn.Linear(12, classes + 1)"),
    ),
    "no tensor": ("2 samples it returned tuple.", ("self.last(self.site(", "tuple(self.site(")),
    "a site apart": ("sites[0], which takes no part in a pass.", ("self.last(self.site(", "self.last((")),
    "a site twice": (
        "sites[0], which takes part 2 times in a pass",
        (FORWARD, "        return self.last(self.site(self.site(self.first(x.flatten(1)))))"),
    ),
    "a site in no list": (
        "has a site site that is not in its list `sites`.",
        ("self.sites = [self.site]", "self.more = ReluSite(10); self.sites = [self.more]"),
    ),
    "another order": (
        "must list its `sites` in the order in which a pass comes to them.",
        ("self.sites = [self.site]", "self.more = ReluSite(10); self.sites = [self.more, self.site]"),
        (FORWARD, "        return self.more(self.last(self.site(self.first(x.flatten(1)))))"),
    ),
    "another size": ("has 12 activations a sample, and was given the size 11.", ("Site(12)", "Site(11)")),
    "a site that keeps all": (
        "activations of 2 samples where `keep` allows 4.",
        OWN_SITE,
        ("class Small", f"{CUSTOM}class Small"),
    ),
    "a site that miscounts": (
        "adds 1 to `nonzero` in a pass in which 0 activations are not zero.",
        OWN_SITE,
        ("class Small", f"{CUSTOM.replace('x.relu()', 'x * 0')}class Small"),
    ),
    "an unused parameter": (
        "has a parameter more without a gradient",
        ("self.sites =", "self.more = nn.Parameter(self.last.bias * 0)\n        self.sites ="),
    ),
    "a missing module": (
        "cannot be imported: ModuleNotFoundError",
        ("import math", "import no_such_module"),
    ),
    "a syntax error": ("cannot be imported: SyntaxError", ("def build(", "def build((")),
    "an exit": ("cannot be imported: SystemExit: 7", ("import math", "import sys; sys.exit(7)")),
    "an error": ("raised an error: RuntimeError: no room", (MADE, "    raise RuntimeError('no room')")),
    "an error in forward": (
        "raised an error in a pass of two samples: RuntimeError: no message",
        (FORWARD, "        raise RuntimeError"),
    ),
}
"""What is said, and the changes to the module that it is said of."""
TRACED = ("a missing module", "a syntax error", "an exit", "an error", "an error in forward")
"""Where the user's code raised an exception. Its part of the traceback comes with the message."""


@pytest.mark.parametrize(
    "built_by",
    [
        "wide_resnet import WideResNet as Net\nGIVEN = (10, 1, 10)\nMORE = {'image': (1, 8, 8)}",
        "mlp import Mlp as Net\nGIVEN = ([20, 30], 10)\nMORE = {'inputs': 64, 'srelu': 1, 'dropout': 0.5}",
    ],
    ids=["a wide ResNet", "an MLP"],
)
def test_the_networks_of_the_trainer_have_nothing_wrong(folder: Path, built_by: str) -> None:
    """Some of their sites add two branches, keep negative activations, or are followed by dropout."""
    function = "def build(*given):\n    return Net(*GIVEN, **MORE, generator=given[-1])\n"
    model = written(folder, f"from trainer.models.{built_by}\n\n\n{function}")
    assert len(built(model).sites) > 1


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_with_a_model_is_told_in_a_line(folder: Path, case: str) -> None:
    said, *changes = WRONG[case]
    model = written(folder, changed(*changes))
    with pytest.raises(own.ModelError) as error:
        built(model)
    message, trace = str(error.value), error.value.trace
    assert message.startswith("'small:build'")
    assert said in message
    assert "\n" not in message
    assert (str(folder / "small.py") in trace) == (case in TRACED)
    assert "trainer" not in trace


def test_a_module_that_is_not_there_is_told(folder: Path) -> None:
    (folder / "networks").mkdir()
    (folder / "networks" / "__init__.py").touch()
    own.allow(["networks"])
    with pytest.raises(own.ModelError, match=r"No module named 'networks\.residual'"):
        built("networks.residual:build")


def test_the_module_of_the_documents_is_built_as_it_says(folder: Path) -> None:
    model = written(folder, SMALL)
    one, same, other = built(model), built(model), built(model, seed=2)
    assert [(name, tuple(weight.shape)) for name, weight in one.named_parameters()] == [
        ("first.weight", (12, 64)),
        ("first.bias", (12,)),
        ("last.weight", (10, 12)),
        ("last.bias", (10,)),
    ]
    assert torch.equal(one.first.weight, same.first.weight)
    assert not torch.equal(one.first.weight, other.first.weight)
    assert all(parameter.grad is None for parameter in one.parameters())


def test_the_hash_is_that_of_the_modules_file_or_of_all_files_of_the_package(folder: Path) -> None:
    (folder / "one.py").write_text("a = 1\n")
    package = folder / "several"
    (package / "inner").mkdir(parents=True)
    (package / "__init__.py").write_text("a = 1\n")
    (package / "note.txt").write_text("not code")
    assert own.hash_of("one") == own.hash_of("several")
    (package / "inner" / "more.py").write_text("b = 2\n")
    code_hash.cache_clear()
    assert own.hash_of("one") != own.hash_of("several")


@pytest.mark.parametrize(
    ("path", "found"), [("", False), ("elsewhere", False), (".", True), ("{here}", True)]
)
def test_the_folder_that_one_stands_in_is_searched_only_where_it_is_named(
    tmp_path: Path, path: str, found: bool
) -> None:
    (tmp_path / "small.py").write_text("raise RuntimeError('run')")
    code = "from trainer.models import own; import sys; before = list(sys.path)\n"
    code += "try: own.allow(['small']); print('found')\nexcept own.ModelError as e: print(e)\n"
    code += "assert sys.path == before"
    # as `python -m` and Ray do, `-c` puts the folder first
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": f"{ROOT}:{path.format(here=tmp_path)}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert ("Python finds no such package" in done.stdout, done.stdout == "found\n") == (not found, found)


def test_runs_whose_tasks_differ_share_no_network_because_it_may_read_any_setting(folder: Path) -> None:
    source = changed(
        (
            MADE,
            "    net = Small(math.prod(image), classes, generator)\n"
            "    net.by = task.init_scale\n    return net",
        ),
        (FORWARD, f"{FORWARD} * self.by"),
    )
    model = written(folder, source)
    specs = [run_spec(model=model, init_scale=scale) for scale in (0.5, 2.0)]
    one_after_the_other = [without_wall(list(Training(spec))) for spec in specs]
    assert one_after_the_other[0][0]["train_loss"] != one_after_the_other[1][0]["train_loss"]
    for spec, rows in zip(specs, one_after_the_other, strict=True):
        lending.forget()
        assert without_wall(list(Training(spec))) == rows


MORE = """
class More(Small):
    def __init__(self, inputs, classes, generator):
        super().__init__(inputs, classes, generator)
        self.norm, self.before, self.after = nn.BatchNorm1d(12), nn.Linear(12, 12), nn.Linear(12, 12)
        nn.init.normal_(self.before.weight, std=0.3, generator=generator)
        nn.init.zeros_(self.before.bias)
        SHARED

    def forward(self, x):
        x = self.norm(self.after(self.before(self.first(x.flatten(1)))))
        return self.last(self.site(x))


"""
SHARED = "self.after.weight, self.after.bias = self.before.weight, self.before.bias"


def of_more(folder: Path, last_line: str) -> RunSpec:
    source = MORE.replace("SHARED", last_line)
    changes = ("def build", f"{source}def build"), ("return Small(", "return More(")
    return run_spec(model=written(folder, changed(*changes)), precision="bfloat16")


def test_in_bfloat16_two_modules_go_on_sharing_a_weight(folder: Path) -> None:
    training = Training(of_more(folder, SHARED))
    before = training.state()["model"]
    rows = list(training)
    after = training.state()["model"]
    assert torch.equal(after["before.weight"], after["after.weight"])
    assert not torch.equal(after["before.weight"], before["before.weight"])
    assert rows[-1].parameters == 12 * 64 + 12 + 10 * 12 + 10 + 12 * 12 + 12 + 2 * 12


def test_in_bfloat16_the_state_has_the_statistics_of_the_passes(folder: Path) -> None:
    """The copies of weights that a step reads change no number, and a run goes on with its statistics."""
    spec = of_more(folder, "del self.after; self.after = nn.Identity()")
    training = Training(spec)
    rows = without_wall(list(training))
    assert rows == without_wall(list(Training(spec, techniques=replace(ALL, copies=False))))
    assert int(training.state()["model"]["norm.num_batches_tracked"]) == 3 * 3
    broken = Training(spec)
    next(iter(broken))
    lending.forget()
    going_on = Training(spec)
    going_on.load(broken.state())
    list(going_on)
    assert without_wall(going_on.rows) == rows


@pytest.fixture
def examples() -> Iterator[None]:
    with importable(EXAMPLES):
        own.allow(["networks"])
        yield


@pytest.mark.parametrize("ratio", [0.05, 0.3])
@pytest.mark.usefixtures("examples")
def test_each_site_of_the_residual_network_keeps_the_largest_and_as_many_as_it_may(ratio: float) -> None:
    network = built("networks.residual:build").eval()
    network.set_keep(ratio)
    seen: list[tuple[Tensor, Tensor]] = []
    for site in network.sites:
        site.register_forward_hook(lambda _, given, out: seen.append((given[0], out)))
    with torch.no_grad():
        network(torch.rand(20, *IMAGE, generator=torch.Generator().manual_seed(1)))
    assert [out.shape[1] for _, out in seen] == [64, 128, 64, 128, 64, 128, 64]
    for given, out in seen:
        keep = keep_count(ratio, out.shape[1])
        for values, kept in zip(given.tolist(), out.tolist(), strict=True):
            largest = sorted((value for value in values if value > 0), reverse=True)[:keep]
            assert sorted((value for value in kept if value), reverse=True) == largest


@pytest.mark.usefixtures("examples")
def test_the_sawtooth_moves_the_residual_networks_rates_and_they_are_counted_exactly() -> None:
    spec = run_spec(
        {"name": "sawtooth", "period": 3, "decay": 0.25}, model="networks.residual:build", epochs=3
    )
    training = Training(spec)
    rows = list(training)
    assert [row.keep_ratio for row in rows] == [1, 0.25, 0.0625]
    network = training.engine.network
    counted = torch.zeros(len(network.sites), dtype=torch.int64)

    def count(index: int) -> Any:
        def hook(_: Any, __: Any, out: Tensor) -> None:
            counted[index] += int((out != 0).sum())

        return hook

    for i, site in enumerate(network.sites):
        site.register_forward_hook(count(i))
    scores = training.engine.evaluate(training.split.test, 0.0625)()
    assert rows[-1].nonzero_rate_by_site == scores.nonzero_rates
    sizes = [site.size * len(training.split.test) for site in network.sites]
    assert scores.nonzero_rates == [int(n) / size for n, size in zip(counted, sizes, strict=True)]
    assert max(scores.nonzero_rates) <= 0.0625


@pytest.mark.usefixtures("examples")
def test_set_gives_every_layer_of_the_residual_network_its_number_of_connections() -> None:
    training = Training(run_spec({"name": "set", "epsilon": 15}, model="networks.residual:build", epochs=4))
    rows = list(training)
    stem, inner, head = 15 * (64 + 64), 15 * (64 + 128), 64 * 10  # the head has no room for 15 x (64 + 10)
    assert [row.connections for row in rows] == [stem + 6 * inner + head] * 4
    assert [row.active_neurons for row in rows] == [3 * 128] * 4
    assert [row.parameters for row in rows] == [stem + 6 * inner + head + 64 + 3 * (128 + 64) + 10] * 4
    weights = [module.weight for module in training.model.modules() if isinstance(module, torch.nn.Linear)]
    assert [int(weight.count_nonzero()) for weight in weights] == [stem, *[inner] * 6, head]


@pytest.mark.parametrize("model", ["networks.residual:build", "networks.resnet:narrow"])
@pytest.mark.usefixtures("examples")
def test_npset_removes_neurons_of_the_examples_for_good(model: str) -> None:
    policy = {"name": "npset", "epsilon": 4, "start": 1, "period": 1, "percentile": 25}
    training = Training(run_spec(policy, model=model))
    rows = list(training)
    hidden = training.connections.hidden
    widths = [training.connections.layers[i].rows for i in hidden]
    assert rows[0].active_neurons == sum(widths)
    # a quarter of the neurons after the first epoch, and of those that are left after the second
    once = sum(width - math.ceil(width / 4) for width in widths)
    assert rows[1].active_neurons == once
    for i in hidden:
        layer = training.model.layers[i]
        gone = torch.from_numpy(training.connections.layers[i].removed)
        assert not layer.weight[gone].any()
        assert not any(vector[gone].any() for vector in layer.owned)


@pytest.mark.parametrize("image", [(3, 32, 32), (1, 8, 8)])
@pytest.mark.usefixtures("examples")
def test_with_all_activations_the_resnet_of_the_examples_is_torchvisions(
    image: tuple[int, int, int],
) -> None:
    torchvision = pytest.importorskip("torchvision")
    task = run_spec(model="networks.resnet:build").task
    ours: Any = models.build(task, image, 10, torch.Generator().manual_seed(1)).eval()
    theirs = torchvision.models.resnet18(num_classes=10).eval()
    theirs.conv1 = torch.nn.Conv2d(image[0], 64, 3, padding=1, bias=False)
    theirs.maxpool = torch.nn.Identity()
    theirs.load_state_dict(ours.inner.state_dict())
    samples = torch.rand(4, *image, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        assert torch.equal(ours(samples), theirs(samples))
        ours.set_keep(0.1)
        assert not torch.equal(ours(samples), theirs(samples))
    assert len(ours.sites) == 17
    assert len(ours.layers) == 21  # as many convolutions and linear maps as torchvision's has
