"""The commands `submit`, `list`, `logs` and `stop`: a study on a cluster, driven from anywhere.

`run` drives a study from this machine, which has to be a node of the cluster. These commands reach the
cluster by its dashboard, and the driver runs there.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sweep.cli.options import (
    CodeOption,
    ExtendOption,
    JsonOption,
    StoreOption,
    StudyArgument,
    WorkersOption,
)
from sweep.cli.output import DEFAULT_STORE, command_for, errors, leave, print_json, program, say, show
from sweep.cluster import prepare
from sweep.errors import RejectStudy
from sweep.study import find, load
from sweep.views.mlflow.address import shown_uri
from trainer.exits import USAGE
from trainer.models import own
from trainer.plain import harmless, one_line
from trainer.store import open_store

if TYPE_CHECKING:
    from sweep.cluster.jobs import HandedIn, Jobs

AddressOption = Annotated[
    str,
    typer.Option(
        "--address",
        envvar=["RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"],
        metavar="URL",
        help="the dashboard of the cluster, such as http://HEAD:8265",
    ),
]
NameArgument = Annotated[
    str, typer.Argument(metavar="STUDY", help="the name of a study that was handed in, or its YAML file")
]
FilterOption = Annotated[
    str | None,
    typer.Option("--store", metavar="DIR", help="its store; needed where it was handed in for several"),
]


def submit(
    study: StudyArgument,
    address: AddressOption,
    store: StoreOption = DEFAULT_STORE,
    data_dir: Annotated[
        str | None, typer.Option("--data-dir", metavar="DIR", help="the folder of data sets on the nodes")
    ] = None,
    workers: WorkersOption = None,
    extend: ExtendOption = False,
    mlflow_uri: Annotated[
        str | None,
        typer.Option(
            "--mlflow-uri",
            metavar="U",
            help="an MLflow server, or none. By default what MLFLOW_TRACKING_URI says on the cluster's head",
        ),
    ] = None,
    allow_code: CodeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Hand a study in to a cluster, which runs it to its end. If it is stopped, hand it in again."""
    with errors(study, store):
        own.allow(allow_code or [])
        path = find(study)
        loaded = load(path, to_run=True)
        options = [
            *(["--data-dir", _on_every_node("--data-dir", data_dir)] if data_dir else []),
            *(["--workers", str(workers)] if workers else []),
            *(["--extend"] if extend else []),
            *(["--mlflow-uri", _without_secret(mlflow_uri)] if mlflow_uri else []),
            *(word for package in allow_code or [] for word in (own.OPTION, package)),
        ]
        place = _on_every_node("--store", store)
        job = _jobs(address).hand_in(path, place, options)
        if as_json:
            print_json({"id": job, "study": loaded.name, "store": place})
        else:
            show(job)
        say(f"{loaded.name} was handed in, and needs this machine no longer. Its results: {place}")
        for what, command in (("to follow it", "logs"), ("to stop it", "stop")):
            more = ["--follow"] if command == "logs" else []
            say(f"{what}: {_command(command, loaded.name, address, *more)}")
        say(f"to see how far it is, where the store can be reached: {command_for('status', study, place)}")


def list_(address: AddressOption, as_json: JsonOption = False) -> None:
    """List the studies that were handed in to a cluster, each as it was handed in last."""
    with errors("", DEFAULT_STORE):
        latest: dict[tuple[str, str], HandedIn] = {}
        for job in _jobs(address).all():
            latest.setdefault((job.study, job.store), job)
        if as_json:
            print_json([asdict(job) for job in latest.values()])
            return
        for job in latest.values():
            show(one_line(f"{job.study}  {job.state} since {job.since}  {job.store}  {job.id}"))
        if not latest:
            say("nothing was handed in.")


def logs(
    study: NameArgument,
    address: AddressOption,
    store: FilterOption = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="go on until it ends")] = False,
) -> None:
    """Print what a study that was handed in has printed on the cluster since it was handed in last."""
    with errors(study, DEFAULT_STORE):
        jobs = _jobs(address)
        job = _latest(_those(jobs.all(), study, store), study)
        for piece in jobs.follow(job) if follow else [jobs.log(job)]:
            print(harmless(piece.replace("\t", " ")), end="", flush=True)


def stop(
    study: NameArgument, address: AddressOption, store: FilterOption = None, as_json: JsonOption = False
) -> None:
    """Stop a study on a cluster, and wait until its runs have kept their last epoch."""
    with errors(study, DEFAULT_STORE):
        jobs = _jobs(address)
        live = [job for job in _those(jobs.all(), study, store) if job.is_live]
        ended = [jobs.stop(job) for job in live]
        if as_json:
            print_json([asdict(job) for job in ended])
            return
        for job in ended:
            again = _command("submit", _file(study), address, "--store", job.store)
            show(one_line(f"{job.study} in {job.store} is {job.state}. To go on: {again}"))
        if not ended:
            show(one_line(f"{_name(study)}: nothing runs."))


def _jobs(address: str) -> Jobs:
    """The jobs of the cluster whose dashboard has this address."""
    if not re.fullmatch(r"https?://[^@?#/\s]+/*", address):
        shown = shown_uri(address)
        advice = "give the URL of the cluster's dashboard, such as http://HEAD:8265"
        source = "Without --address it is that of RAY_API_SERVER_ADDRESS, or else of RAY_ADDRESS"
        raise RejectStudy([f"--address {shown}: {advice}, without user, path and query. {source}."])
    prepare(address)
    from sweep.cluster.jobs import Jobs  # Ray takes a second to import

    return Jobs(address.rstrip("/"))


def _on_every_node(option: str, place: str) -> str:
    """A place, if it can be the same on every node."""
    if "://" in place:
        open_store(place)
    elif not Path(place).is_absolute():
        advice = "an absolute path such as /shared/results, or a URL such as s3://bucket/prefix"
        raise RejectStudy([f"{option} {place}: must be a place that every node has: {advice}."])
    return place


def _without_secret(uri: str) -> str:
    """An address of MLflow that holds no password: everybody on the cluster can read a job."""
    if shown_uri(uri) != uri:
        advice = "Set MLFLOW_TRACKING_URI before `ray start` on the head instead."
        raise RejectStudy([f"--mlflow-uri {shown_uri(uri)}: a job cannot keep a password. {advice}"])
    return uri


def _file(study: str) -> str:
    """The study that `submit` takes: the name of one that is shipped, or a file as it was called."""
    with suppress(RejectStudy):
        find(study)
        return study
    return f"{_name(study)}.yaml"


def _name(study: str) -> str:
    return Path(study).stem if study.endswith((".yaml", ".yml")) else study


def _those(jobs: Sequence[HandedIn], study: str, store: str | None) -> list[HandedIn]:
    """The jobs of one study in one store. RejectStudy where it is not said in which of several."""
    found = [job for job in jobs if job.study == _name(study) and store in (None, job.store)]
    if len(stores := sorted({job.store for job in found})) > 1:
        raise RejectStudy(
            [f"{_name(study)} was handed in for several stores. Say --store, one of: {', '.join(stores)}."]
        )
    return found


def _latest(jobs: Sequence[HandedIn], study: str) -> HandedIn:
    if not jobs:
        leave(f"{_name(study)} was not handed in to this cluster, or its head was started anew.", USAGE)
    return jobs[0]


def _command(command: str, study: str, address: str, *more: str) -> str:
    """The command line of another command for a study on this cluster."""
    return shlex.join([*program(), command, study, "--address", address, *more])
