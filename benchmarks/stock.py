"""The runs of a study as most people would train them with Ray Tune.

It has `Repeater` over `OptunaSearch`, a function that trains and reports every epoch, and MLflow's
callback. `benchmarks.sweep` starts it in a process of its own. Everything else is Tune's default, except
what would only cost it time: it has no dashboard and sends no usage statistics.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import mlflow
import ray
from ray import tune
from ray.air.integrations.mlflow import MLflowLoggerCallback
from ray.tune.search import Repeater
from ray.tune.search.optuna import OptunaSearch
from ray.tune.search.repeater import TRIAL_INDEX

from benchmarks.study import CORES, TASK, specs
from trainer import data

NAME = "stock"


def train(config: dict[str, Any], specs: dict[str, list[str]], arrays: data.Arrays) -> None:
    """Train one run: the searcher gives the arm, the trial's number among the arm's repetitions the seed."""
    import torch  # here, as Tune's own examples have it: each trial is a process of its own

    from trainer.engine import place
    from trainer.rows import json_ready
    from trainer.spec import RunSpec
    from trainer.training import Training

    torch.set_num_threads(1)
    spec = RunSpec.from_json(specs[config["arm"]][config[TRIAL_INDEX]])
    for row in Training(spec, images=place(arrays, torch.device("cpu"))):
        numbers = {name: value for name, value in json_ready(row).items() if isinstance(value, int | float)}
        tune.report({**numbers, "run": spec.run_id, "ended_at": row.ended_at.timestamp()})


def main(study: Path, folder: Path) -> None:
    """Train every confirmation run; write the moments between the parts to `folder`/moments.json."""
    moments = {"imports": time.time()}
    runs = {arm: [spec.to_json() for spec in each] for arm, each in specs(study).items()}
    arrays = data.load(TASK["data"])
    moments["study and data"] = time.time()
    store = f"sqlite:///{folder / 'mlflow.db'}"
    mlflow.set_tracking_uri(store)
    mlflow.create_experiment(NAME, artifact_location=(folder / "artifacts").as_uri())
    moments["MLflow's database"] = time.time()
    ray.init(address="local", num_cpus=CORES, include_dashboard=False)
    moments["Ray's start"] = time.time()
    searcher = OptunaSearch(
        metric="test_accuracy",
        mode="max",
        points_to_evaluate=[
            {"arm": arm} for arm in runs
        ],  # so that it tries each arm once, and does the same work
    )
    seeds = len(next(iter(runs.values())))
    results = tune.Tuner(
        tune.with_parameters(
            train, specs=runs, arrays=arrays
        ),  # as Tune advises for data: loading it costs each process two seconds
        param_space={"arm": tune.choice(list(runs))},
        tune_config=tune.TuneConfig(
            search_alg=Repeater(searcher, repeat=seeds), num_samples=seeds * len(runs)
        ),
        run_config=tune.RunConfig(
            name=NAME,
            storage_path=str(folder),
            callbacks=[MLflowLoggerCallback(tracking_uri=store, experiment_name=NAME)],
        ),
    ).fit()
    moments["Tune"] = time.time()
    (folder / "moments.json").write_text(json.dumps(moments))
    ray.shutdown()
    if results.num_errors:
        sys.exit(f"{results.num_errors} trials failed: {results.errors[0]}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
