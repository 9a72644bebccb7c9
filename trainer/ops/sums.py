"""The gradients of all sites' scales and biases, added up by one kernel.

A site's backward pass writes a row of partial sums from each of its programs. Torch would add them up with
one kernel for each site, and each takes 8 microseconds on an H100, most of it to start and to end.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch

from trainer.ops import fused, sum_kernels, tilings

COLUMNS = 32
"""Number of columns of a program: 128 bytes of each row, the unit in which a GPU reads memory.

A program owns its columns with all their rows, so that one stage suffices and the order is fixed. The
paper's network has 7,200 columns: 225 programs, which all run at once on 132 multiprocessors.
"""
ROWS = 256
"""Number of rows that a program reads at once. The paper's sites have 512 rows at batch size 128."""


class SiteSums:
    """Memory for the partial sums and the gradients of sites with the given shapes, (channels, places).

    A site's backward pass writes to its entry of `buffers`, for `samples` samples at most. When all have
    run, `add_up` writes `gradients`, which has an entry for each site too.
    """

    def __init__(self, shapes: Sequence[tuple[int, int]], samples: int, device: torch.device) -> None:
        lengths = [2 * channels for channels, _ in shapes]
        per_sample = [tilings.partial_sums(channels, places) for channels, places in shapes]
        sizes = [samples * rows * length for rows, length in zip(per_sample, lengths, strict=True)]
        sources, targets = (list(accumulate(some, initial=0)) for some in (sizes, lengths))
        self.samples = samples
        self._partial = torch.zeros(sources[-1], device=device)
        self._gradients = torch.zeros(targets[-1], device=device)
        self.buffers = [
            flat.view(-1, 2, channels)
            for flat, (channels, _) in zip(self._partial.split(sizes), shapes, strict=True)
        ]
        """A site's partial sums of the gradients of its scale and of its bias, a row for each program."""
        self.gradients = [
            (flat[: length // 2], flat[length // 2 :])
            for flat, length in zip(self._gradients.split(lengths), lengths, strict=True)
        ]
        """The gradients of a site's scale and of its bias."""
        # one line for each program; the number of samples is not in it, so that it serves every batch size
        lines = [
            (sources[site] + column, targets[site] + column, min(COLUMNS, length - column), length, rows)
            for site, (length, rows) in enumerate(zip(lengths, per_sample, strict=True))
            for column in range(0, length, COLUMNS)
        ]
        self._table = torch.tensor(lines, dtype=torch.int64).to(device)

    def add_up(self, samples: int) -> None:
        """Write the gradients of a batch of so many samples, whose backward pass has run."""
        assert samples <= self.samples, "the batch is larger than the buffers are made for"
        arguments = self._partial, self._gradients, self._table, samples
        fused.launch(
            sum_kernels.add_up, (len(self._table),), *arguments, warps=8, ROWS=ROWS, COLUMNS=COLUMNS
        )
