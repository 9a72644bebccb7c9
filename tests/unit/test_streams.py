"""A stream has one user at a time. Torch's own streams are a device's; these are made up."""

from __future__ import annotations

import gc
import itertools

import pytest
import torch

from trainer import streams

DEVICE = torch.device("cuda")


class User:
    """Anything that a stream is lent to."""


@pytest.fixture(autouse=True)
def ring(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch's streams come round again after 32."""
    numbers = itertools.count()
    monkeypatch.setattr(torch.cuda, "Stream", lambda _: next(numbers) % 32)
    monkeypatch.setattr(streams, "_free", {})
    monkeypatch.setattr(streams, "_made", {})


def test_no_two_users_have_one_stream() -> None:
    users = [User() for _ in range(32)]
    assert len({streams.lend(user, DEVICE) for user in users}) == 32
    with pytest.raises(RuntimeError, match="all 32 streams of cuda are in use"):
        streams.lend(User(), DEVICE)


def test_a_stream_is_lent_again_once_its_user_is_gone() -> None:
    kept = User()
    mine = streams.lend(kept, DEVICE)
    for _ in range(100):
        user = User()
        assert streams.lend(user, DEVICE) != mine
        del user
        gc.collect()
