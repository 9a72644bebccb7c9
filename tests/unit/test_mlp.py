"""Fully connected networks: their names, their sizes, and what they compute, beside torch's own layers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.conftest import run_spec
from trainer import models
from trainer.models import names
from trainer.models.mlp import Mlp
from trainer.settings import SpecError

pytestmark = pytest.mark.numeric


def drawn(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def plain(model: Mlp, activation: nn.Module) -> nn.Sequential:
    """The same weights in torch's own layers."""
    made: list[nn.Module] = [nn.Flatten()]
    for layer in model.layers:
        outside, inside = layer.weight.shape
        linear = nn.Linear(inside, outside)
        linear.weight.data, linear.bias.data = layer.weight.detach(), layer.owned[0].detach()
        made += [linear, activation]
    return nn.Sequential(*made[:-1])


def test_at_r_1_it_is_linear_layers_and_relus() -> None:
    model, x = Mlp([20, 12], 5, inputs=18, generator=drawn(1)), torch.randn(7, 2, 3, 3, generator=drawn(2))
    torch.testing.assert_close(model(x), plain(model, nn.ReLU())(x))


def test_at_a_small_r_only_the_largest_activations_of_each_layer_go_on() -> None:
    class Largest(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            x = x.relu()
            return torch.zeros_like(x).scatter(1, (top := x.topk(3, 1)).indices, top.values)

    model, x = Mlp([12, 12], 5, inputs=6, generator=drawn(1)), torch.randn(7, 6, generator=drawn(2))
    model.set_keep(0.25)
    counts = torch.zeros(2, dtype=torch.int64)
    model.count_nonzero(counts)
    torch.testing.assert_close(model(x), plain(model, Largest())(x))
    assert counts.tolist() == [21, 21]


def test_an_srelu_is_three_lines_and_learns_the_outer_ones() -> None:
    model = Mlp([1], 2, inputs=1, srelu=True)
    (site,) = model.sites
    for name, value in {"left": -1.0, "left_slope": 0.5, "right": 2.0, "right_slope": 0.25}.items():
        getattr(site, name).data.fill_(value)
    x = torch.tensor([[-3.0], [-1.0], [0.5], [2.0], [6.0]])
    assert site(x).flatten().tolist() == [-2, -1, 0.5, 2, 3]
    site(x).sum().backward()
    # of each line: the end takes one less the slope, the slope the distance from the end
    assert {name: it.grad.item() for name, it in site.named_parameters() if it.grad is not None} == {
        "left": pytest.approx(2 * (1 - 0.5)),
        "left_slope": pytest.approx(-2),
        "right": pytest.approx(2 * (1 - 0.25)),
        "right_slope": pytest.approx(4),
    }


def test_an_srelu_begins_as_a_relu_and_keeps_what_is_largest_in_size() -> None:
    model, x = Mlp([9], 3, inputs=4, srelu=True, generator=drawn(3)), torch.randn(5, 4, generator=drawn(4))
    torch.testing.assert_close(model(x), plain(model, nn.ReLU())(x))
    (site,) = model.sites
    site.left_slope.data.fill_(0.5)  # type: ignore[union-attr]
    model.set_keep(2 / 9)
    shaped = torch.tensor([[-8.0, 1, 3, -1, 0, 0, 0.5, -0.5, 2]])
    assert site(shaped).tolist() == [[-4, 0, 3, 0, 0, 0, 0, 0, 0]]


def test_weights_have_the_scale_that_is_asked_for_and_biases_are_zero() -> None:
    model = Mlp([400], 10, inputs=300, init_scale=0.2, generator=drawn(5))
    assert model.layers[0].weight.std().item() == pytest.approx(0.2, rel=0.02)
    assert not model.layers[0].owned[0].any()


def test_dropout_is_for_training_alone_and_keeps_the_mean() -> None:
    model, x = (
        Mlp([2_000], 1, inputs=4, dropout=0.5, generator=drawn(6)),
        torch.randn(1, 4, generator=drawn(7)),
    )
    assert torch.equal(model.eval()(x), model.eval()(x))
    whole = model.eval()(x).item()
    torch.manual_seed(8)
    means = torch.cat([model.train()(x) for _ in range(300)])
    assert means.std() > 0
    assert means.mean().item() == pytest.approx(whole, abs=4 * means.std().item() / 300**0.5)


@pytest.mark.parametrize("name", ["mlp-30", "mlp-1000-1000-1000", "mlp-srelu-20-10"])
def test_the_count_of_parameters_is_that_of_the_network(name: str) -> None:
    spec = run_spec(model=name)
    model = models.build(spec.task, (1, 8, 8), 10, drawn(1))
    assert sum(parameter.numel() for parameter in model.parameters()) == names.parameters(name, 64, 10)


def test_the_paper_s_network_on_digits() -> None:
    assert names.parameters("mlp-1000-1000-1000", 64, 10) == 65 * 1000 + 2 * 1001 * 1000 + 1001 * 10


@given(
    widths=st.lists(st.integers(1, 40), min_size=1, max_size=3),
    inputs=st.integers(1, 30),
    classes=st.integers(2, 10),
    srelu=st.booleans(),
    share=st.floats(0.01, 3),
)
def test_a_matched_network_has_the_same_depth_and_no_neighbour_is_nearer(
    widths: list[int], inputs: int, classes: int, srelu: bool, share: float
) -> None:
    name = f"mlp-{'srelu-' if srelu else ''}{'-'.join(map(str, widths))}"
    target = round(share * names.parameters(name, inputs, classes))
    found = names.matched(name, inputs, classes, target)
    parsed = names.mlp(found)
    assert parsed
    assert parsed[1] == srelu
    assert len(parsed[0]) == len(widths)

    def away(some: list[int]) -> int:
        return abs(
            names.parameters(f"mlp-{'srelu-' if srelu else ''}{'-'.join(map(str, some))}", inputs, classes)
            - target
        )

    more = [[w + (i == j) for j, w in enumerate(parsed[0])] for i in range(len(widths))]
    assert all(away(parsed[0]) <= away(other) for other in more)
    assert names.matched(found, inputs, classes, names.parameters(found, inputs, classes)) == found


def test_widths_keep_their_proportions() -> None:
    assert names.matched("mlp-400-200", 50, 5, names.parameters("mlp-100-50", 50, 5)) == "mlp-100-50"
    assert names.matched("mlp-400-200", 50, 5, names.parameters("mlp-800-400", 50, 5)) == "mlp-800-400"


@pytest.mark.parametrize(
    "name", ["mlp", "mlp-", "mlp-0", "mlp-10-0", "mlp-010", "mlp-10-", "mlp-relu-10", "mlp-1000000000"]
)
def test_what_is_no_width_is_no_name(name: str) -> None:
    assert "no such model" in (models.wrong(name) or "")


@pytest.mark.parametrize(
    ("task", "told"),
    [
        (
            {"model": "wrn-10-1", "dropout": 0.5},
            "task.dropout  has no use in wrn-10-1; networks that take it are named mlp-",
        ),
        (
            {"model": "mlp-10", "shortcut": "raw"},
            "task.shortcut  has no use in mlp-10; networks that take it are named wrn-",
        ),
        (
            {"model": "wrn-10-1", "data": "wine"},
            "task.model  wrn-10-1 convolves images, and these samples are 13 numbers without an order",
        ),
    ],
)
def test_a_setting_that_a_network_has_no_use_for_is_refused(task: dict[str, Any], told: str) -> None:
    with pytest.raises(SpecError) as error:
        run_spec(**task)
    assert told in str(error.value)


def test_what_runs_were_made_with_keeps_its_id() -> None:
    known = run_spec(model="wrn-10-1")
    added: list[dict[str, Any]] = [{"dropout": 0.0}, {"init_scale": 0.1}, {"resample": None}]
    assert {run_spec(model="wrn-10-1", **it).run_id for it in added} == {known.run_id}
    changed: list[dict[str, Any]] = [{}, {"dropout": 0.1}, {"init_scale": 0.2}]
    assert len({run_spec(model="mlp-10", **it).run_id for it in changed}) == 3
