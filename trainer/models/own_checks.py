"""What is wrong with a network of one's own, as far as two samples tell. It trains nothing that is used."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from trainer.models.sites import Layer, Network, Site

SAMPLES, RATIO = 2, 0.1


def problem_of(network: Network, twin: Network, image: tuple[int, int, int], classes: int) -> str | None:
    """The first thing that is wrong with a network, as the end of a sentence; None where all is well.

    The twin was built alike, with a generator in the same state.
    """
    return next(_problems(network, twin, image, classes), None)


def _problems(network: Network, twin: Network, image: tuple[int, int, int], classes: int) -> Iterator[str]:
    yield from _undeclared(network)
    yield from _unlike(network, twin)
    yield from _wrong_layers(network)
    drawn = torch.Generator().manual_seed(1)
    samples = torch.rand(SAMPLES, *image, generator=drawn)
    network.draw_from(drawn)
    yield from _wrong_evaluation(network, samples, classes)
    yield from _wrong_gradients(network, samples, torch.arange(SAMPLES) % classes)


def _undeclared(network: Network) -> Iterator[str]:
    """Lists that a network must have and lacks, and sites that are in none."""
    for name, kind in (("sites", Site), ("layers", Layer)):
        parts: Any = getattr(network, name, None)
        if not isinstance(parts, list) or not parts or not all(isinstance(part, kind) for part in parts):
            yield f"must have a list `{name}` with at least one {kind.__name__}."
    for name, module in network.named_modules():
        if isinstance(module, Site) and module not in network.sites:
            yield f"has a site {name} that is not in its list `sites`."


def _unlike(network: Network, twin: Network) -> Iterator[str]:
    """Numbers in which two networks differ that were drawn alike."""
    tensors, others = (dict(chain(net.named_parameters(), net.named_buffers())) for net in (network, twin))
    for name, tensor in tensors.items():
        if name not in others or not torch.equal(tensor, others[name]):
            advice = "Draw it from the generator: nn.init.normal_(weight, generator=generator)"
            yield f"does not draw {name} from the generator that it is given. {advice}."


def _wrong_layers(network: Network) -> Iterator[str]:
    """What is wrong with the tensors of layers, and with which layer feeds which."""
    trained = set(network.parameters())
    for i, layer in enumerate(network.layers):
        subject, outputs = f"has layers[{i}], ", len(layer.weight)
        if layer.weight not in trained or layer.weight.ndim < 2:
            yield f"{subject}whose weight must be a parameter of the network with outputs and inputs."
        if any(owned not in trained or owned.shape != (outputs,) for owned in layer.owned):
            yield f"{subject}whose owned vectors must be parameters of {outputs} numbers."
    for i, layer in enumerate(network.layers):
        subject, outputs = f"has layers[{i}], ", len(layer.weight)
        if layer.feeds is None:
            continue
        if layer.feeds == i or not 0 <= layer.feeds < len(network.layers):
            yield f"{subject}which feeds {layer.feeds}; that must be the index of another layer."
        elif (inputs := network.layers[layer.feeds].weight.shape[1]) != outputs:
            yield f"{subject}whose {outputs} outputs feed layers[{layer.feeds}] with {inputs} inputs."


def _wrong_evaluation(network: Network, samples: Tensor, classes: int) -> Iterator[str]:
    """What is wrong with the logits, and with the activations that its sites keep and count."""
    outputs: dict[Site, list[Tensor]] = {}

    def keep(site: Any, _: Any, out: Any) -> None:
        outputs.setdefault(site, []).append(out if isinstance(out, Tensor) else out[-1])

    hooks = [site.register_forward_hook(keep) for site in network.sites]
    counts = torch.zeros(len(network.sites), dtype=torch.int64)
    network.eval()
    network.set_keep(RATIO)
    network.count_nonzero(counts)
    with torch.no_grad():
        logits: Any = network(samples)
    for hook in hooks:
        hook.remove()
    network.count_nonzero(None)
    if not isinstance(logits, Tensor) or logits.shape != (SAMPLES, classes):
        shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        yield f"must return {classes} logits for each sample; for {SAMPLES} samples it returned {shape}."
    for i, site in enumerate(network.sites):
        yield from _wrong_site(f"has sites[{i}], which ", site, outputs.get(site, []), int(counts[i]))
    if list(outputs) != network.sites:
        yield "must list its `sites` in the order in which a pass comes to them."


def _wrong_site(subject: str, site: Site, outputs: list[Tensor], counted: int) -> Iterator[str]:
    """What is wrong with the activations of a site in a pass."""
    if len(outputs) != 1:
        times = f"takes part {len(outputs)} times in a pass; each nonlinearity needs a site of its own"
        yield f"{subject}{times if outputs else 'takes no part in a pass'}."
        return
    size, kept, most = outputs[0][0].numel(), int(outputs[0].count_nonzero()), SAMPLES * int(site.keep)
    if size != site.size:
        yield f"{subject}has {size} activations a sample, and was given the size {site.size}."
    if kept > most:
        yield f"{subject}keeps {kept} activations of {SAMPLES} samples where `keep` allows {most}."
    if kept != counted:
        yield f"{subject}adds {counted} to `nonzero` in a pass in which {kept} activations are not zero."


def _wrong_gradients(network: Network, samples: Tensor, labels: Tensor) -> Iterator[str]:
    """What is wrong with the gradients of a training step."""
    network.train()
    network.set_keep(1.0)
    loss, _ = network.loss(samples, labels)
    loss.backward()
    for name, parameter in network.named_parameters():
        if parameter.grad is None:
            yield f"has a parameter {name} without a gradient. What is not trained is a buffer."
