"""The worker of a sweep: its last report has the run's result for the plan."""

from __future__ import annotations

from sweep.ledger.results import result_of
from sweep.planning.values import Result
from trainer import worker
from trainer.run_folder import Outcome, RunFolder


class Worker(worker.Worker):
    """The work on one attempt of a sweep."""

    def result(self, folder: RunFolder, outcome: Outcome) -> Result:
        return result_of(folder, outcome)
