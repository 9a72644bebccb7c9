"""The data that a process has on its devices, loaded once for all its runs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import torch

from trainer.data import Data, load
from trainer.engine import Images, place

_placed: dict[tuple[Data, Path | None], Images] = {}
_placing = threading.Lock()


def images(
    data: Data,
    data_dir: Path | None,
    device: torch.device,
    cache: Path | None,
    say: Callable[[str], None],
) -> Images:
    """The images of a data set on this process's device. The first call for it loads them."""
    with _placing:
        if (data, data_dir) not in _placed:
            _placed[data, data_dir] = place(load(data, data_dir, cache, say), device)
            if device.type == "cuda":
                # the streams of other runs do not wait for the copy
                torch.cuda.current_stream(device).synchronize()
    return _placed[data, data_dir]
