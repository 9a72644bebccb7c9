"""The backbone against published numbers and against a plain reading of the paper."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from benchmarks.plain import PlainWideResNet
from tests.survivors import follow, output
from trainer.models.wide_resnet import WideResNet
from trainer.ops import keep_count

pytestmark = pytest.mark.numeric


def test_wrn_28_4_has_the_published_parameters_and_sites() -> None:
    model = WideResNet(28, 4, 10)
    assert sum(parameter.numel() for parameter in model.parameters()) == 5_849_050
    assert len(model.sites) == 25


@pytest.mark.parametrize("ratio", [1.0, 0.3])
def test_it_computes_what_a_plain_reading_of_the_paper_computes(ratio: float) -> None:
    ours, plain = (
        WideResNet(16, 2, 10, generator=torch.Generator().manual_seed(1)),
        PlainWideResNet(16, 2, 10, 3),
    )
    copy_weights(ours, plain)
    ours.set_keep(ratio)
    plain.set_keep(ratio)
    follow(plain, ours, ratio)
    x = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        assert torch.allclose(ours(x), plain(x), atol=1e-4)


def copy_weights(ours: torch.nn.Module, plain: PlainWideResNet) -> None:
    """Copy the weights: both networks list their parameters block by block, under other names."""
    source = ours.state_dict()
    for name, parameter in plain.named_parameters():
        name = name.replace(".0.scale", ".scale").replace(".0.bias", ".bias") if "site" in name else name
        parameter.data.copy_(source[name].view_as(parameter))


def test_the_shortcut_sees_the_activated_or_the_raw_input() -> None:
    activated = WideResNet(10, 1, 10, generator=torch.Generator().manual_seed(1))
    raw = WideResNet(10, 1, 10, generator=torch.Generator().manual_seed(1), shortcut="raw")
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    assert not torch.allclose(activated(x), raw(x))


@pytest.mark.parametrize(("init", "fan"), [("fan-out", 128), ("fan-in", 64)])
def test_convolutions_start_from_kaimings_normal(init: str, fan: int) -> None:
    drawn = torch.Generator().manual_seed(1)
    model = WideResNet(10, 4, 10, init=init, generator=drawn)  # type: ignore[arg-type]
    weight = model.get_parameter("blocks.1.conv1.weight")  # 64 channels to 128
    assert weight.std().item() == pytest.approx(math.sqrt(2 / (9 * fan)), rel=0.02)


def test_sites_know_their_size_and_a_ratio_sets_every_count() -> None:
    model = WideResNet(10, 1, 10, image=(1, 8, 8))
    assert [site.size for site in model.sites] == [
        16 * 64,
        16 * 64,
        16 * 64,
        32 * 16,
        32 * 16,
        64 * 4,
        64 * 4,
    ]
    model.set_keep(0.3)
    assert [int(site.keep) for site in model.sites] == [keep_count(0.3, site.size) for site in model.sites]


@pytest.mark.parametrize("place", [7, 9])
def test_odd_images_have_sites_of_the_size_they_get(place: int) -> None:
    model = WideResNet(10, 1, 10, image=(1, place, place))
    sizes: list[int] = []
    for site in model.sites:
        site.register_forward_pre_hook(lambda _, inputs: sizes.append(inputs[0][0].numel()))
    model(torch.zeros(1, 1, place, place))
    by_order = [site.size for site in model.sites]
    assert sorted(sizes) == sorted(by_order)


def test_counting_counts_what_is_not_zero() -> None:
    model = WideResNet(10, 1, 10, image=(1, 8, 8), generator=torch.Generator().manual_seed(1))
    model.set_keep(0.1)
    seen: list[int] = []
    for site in model.sites:
        site.register_forward_hook(lambda _, __, out: seen.append(int((output(out) != 0).sum())))
    counts = torch.zeros(7, dtype=torch.int64)
    model.count_nonzero(counts)
    for _ in range(2):
        model(torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(3)))
    assert counts.tolist() == [first + second for first, second in zip(seen[:7], seen[7:], strict=True)]
    model.count_nonzero(None)
    assert all(site.nonzero is None for site in model.sites)


def test_channels_of_zeros_change_neither_the_output_nor_the_gradients() -> None:
    """A GPU gets images of 8 channels, five of them zeros."""
    images = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    results: list[list[torch.Tensor]] = []
    for more in (0, 5):
        model = WideResNet(10, 1, 10, image=(3, 8, 8), generator=torch.Generator().manual_seed(1))
        out = model(torch.nn.functional.pad(images, (0, 0, 0, 0, 0, more)))
        out.square().sum().backward()
        results.append([out, *(it.grad for it in model.parameters() if it.grad is not None)])
    assert len(results[0]) == 1 + len(list(model.parameters()))
    for plain, padded in zip(*results, strict=True):
        torch.testing.assert_close(padded, plain, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("image", [(1, 9, 14), (3, 5, 32), (1, 7, 7)])
def test_a_site_has_as_many_activations_as_an_image_of_any_size_gives(image: tuple[int, int, int]) -> None:
    model = WideResNet(10, 1, 4, image=image)
    seen: dict[Any, int] = {}

    def count(site: torch.nn.Module, _: Any, out: Any) -> None:
        seen[site] = (out[1] if isinstance(out, tuple) else out)[0].numel()

    for site in model.sites:
        site.register_forward_hook(count)
    model(torch.zeros(2, *image))
    assert [site.size for site in model.sites] == [seen[site] for site in model.sites]
