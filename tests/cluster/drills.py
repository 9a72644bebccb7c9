"""Drills: what a cluster of hosts goes through while sweeps run on it, each one as a function.

`tests/cluster/test_*.py` run the short ones, and `python -m benchmarks.drill` all of them. The study allows
one try for each run. So a try that is spent fails the sweep, and a drill that ends well has spent none.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
import yaml

from tests.cluster.lan import OBJECTS, PORT, RAY, Host, Lan, wait_until
from tests.conftest import ROOT
from tests.sweeps import (
    Started,
    environment,
    generations,
    rows,
    sweep_command,
    works_on_attempts,
    write_study,
)

PLUGIN = Path(__file__).parent / "plugin"
ATTEMPTS = 1
SECRETS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")
"""The variables with secrets that every node has in its environment, besides Ray's token."""
EPOCHS = 120
"""The epochs of a run. On one core of 2.x GHz it takes some five seconds."""
TASK: dict[str, Any] = {
    "model": "mlp-32-32",
    "epochs": EPOCHS,
    "evaluate_every": EPOCHS // 3,
    "batch_size": 16,
    "learning_rate": 0.02,
    "train_size": None,
    "init_scale": 0.3,
}
LINES = 600
"""The lines of the table that the runs train on."""
NODES = f"""
import json, sys
from ray._raylet import GcsClient
nodes = GcsClient(address=sys.argv[1] + ":{PORT}").get_all_node_info(timeout=5).items()
print(json.dumps({{key.hex(): node.node_name for key, node in nodes if not node.state}}))
"""
"""Prints the living nodes of a cluster: the address of each by its id."""
S3_PORT, BUCKET = 8333, "ledger"
MAKE_BUCKET = f'import boto3; boto3.client("s3").create_bucket(Bucket="{BUCKET}")'
COPY_BUCKET = f"""
import sys; from pathlib import Path; import boto3
s3 = boto3.client("s3")
for page in s3.get_paginator("list_objects_v2").paginate(Bucket="{BUCKET}"):
    for item in page["Contents"]:
        file = Path(sys.argv[1], item["Key"]); file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(s3.get_object(Bucket="{BUCKET}", Key=item["Key"])["Body"].read())
"""
FAKE_CLOUD: dict[str, Any] = {
    "cluster_name": "drill",
    "max_workers": 2,
    "idle_timeout_minutes": 0.1,
    "upscaling_speed": 1.0,
    "provider": {
        "type": "fake_multinode",
        "use_node_id_as_ip": True,
        "disable_node_updaters": True,
        "disable_launch_config_check": True,
    },
    "available_node_types": {
        "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
        "worker": {
            "resources": {"CPU": 1, "object_store_memory": OBJECTS},
            "node_config": {},
            "min_workers": 0,
            "max_workers": 2,
        },
    },
    "head_node_type": "ray.head.default",
    **{name: {} for name in ("auth", "file_mounts")},
    **{
        name: []
        for name in (
            *("cluster_synced_files", "initialization_commands", "setup_commands", "rsync_exclude"),
            *("head_setup_commands", "worker_setup_commands", "rsync_filter"),
            *("head_start_ray_commands", "worker_start_ray_commands"),
        )
    },
    "file_mounts_sync_continuously": False,
}
"""A cloud that Ray pretends to have: it starts nodes when there is demand, on the head's host."""
Rows = dict[str, list[dict[str, Any]]]


@dataclass(frozen=True)
class Swept:
    """A sweep that has ended."""

    name: str
    said: str
    seconds: float
    store: Path
    """The folder of its study, also where it was run on another kind of store."""

    @property
    def tries_spent(self) -> int:
        return len(re.findall(r"It is tried again|It is given up|tries are used", self.said))


class Lab:
    """A cluster in a network of its own: a head without room for runs, and hosts with room for one each."""

    def __init__(self, lan: Lan, folder: Path) -> None:
        self.lan, self.folder = lan, folder
        self.counts = folder / "trained"
        self.data = folder / "data"
        for made in (self.counts, self.data):
            made.mkdir(exist_ok=True)
        self.table = declare_table(self.data)
        self.head, self.store_host = lan.add(), lan.add()
        self.hosts: list[Host] = []
        self.secrets = {name: f"canary{secrets.token_hex(12)}" for name in SECRETS}
        self._swept = 0

    def variables(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return what every command of the sweep and every node has in its environment."""
        path = f"{PLUGIN}{os.pathsep}{ROOT}"
        s3 = f"http://{self.store_host.address}:{S3_PORT}"
        place = {"AWS_ENDPOINT_URL": s3, "AWS_ALLOW_HTTP": "true", "AWS_REGION": "us-east-1"}
        place["AWS_DEFAULT_REGION"] = place["AWS_REGION"]
        ours = {"PYTHONPATH": path, "EPOCHS_TRAINED": str(self.counts)}
        return {**ours, **place, **self.secrets, **(more or {})}

    def begin(self, hosts: int, *, kept: bool = True, loss: float = 0, delay: float = 0) -> Lab:
        """Start the cluster with so many hosts.

        `kept`: its head keeps what it knows on disk, so that it can be restarted. With `loss` and `delay`
        the cable of each host is a bad one.
        """
        storage = {"RAY_gcs_storage": "rocksdb", "RAY_gcs_storage_path": str(self.head.folder / "gcs")}
        self.head.start_head(env=self.variables(storage if kept else None))
        for seed in range(hosts):
            host = self.lan.add()
            if loss or delay:
                host.off()
                host.on(loss, delay, seed)
            self.hosts.append(host)
            self.join(host)
        return self

    def begin_from_zero(self) -> Lab:
        """Start a head alone, which gets more nodes when there is demand."""
        config = self.folder / "cloud.yaml"
        config.write_text(yaml.safe_dump(FAKE_CLOUD))
        fake = {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1"}
        self.head.start_head("--autoscaling-config", str(config), env=self.variables(fake))
        return self

    def join(self, host: Host, env: Mapping[str, str] | None = None) -> None:
        host.start_ray(env=self.variables(env))

    def again(self, host: Host, env: Mapping[str, str] | None = None) -> None:
        """Switch a host on again and let it join."""
        host.on()
        self.join(host, env)

    def nodes(self) -> dict[str, str]:
        """Return the addresses of the living nodes, by their ids."""
        done = self.head.call(sys.executable, "-c", NODES, self.head.address, seconds=60)
        return json.loads(done.stdout) if not done.returncode else {}

    def ready(self, *without: Host) -> None:
        """Wait until Ray knows every host."""
        wanted = sorted(host.address for host in [self.head, *self.hosts] if host not in without)
        wait_until(lambda: sorted(self.nodes().values()) == wanted, f"nodes: {wanted}", 180)

    def node(self, host: Host) -> str | None:
        """Return the id by which Ray knows a host now."""
        return next((node for node, address in self.nodes().items() if address == host.address), None)

    def study(self, name: str, **parts: Any) -> Path:
        return write_drill_study(self.folder, self.table, name, **parts)

    def sweep(self, store: str = "", env: Mapping[str, str] | None = None, **parts: Any) -> Sweeping:
        """Begin a sweep on the head."""
        self._swept += 1
        return Sweeping(self, self.study(f"drill{self._swept}", **parts), store, env)

    def trained(self) -> int:
        """Return the number of epochs that were trained so far, those that were lost too."""
        return sum(path.stat().st_size for path in self.counts.iterdir())

    def used(self, sweep: Sweeping, host: Host) -> bool:
        """Say whether a host began an attempt of a sweep."""
        records = sweep.folder.glob("runs/*/attempt-*/attempt.json")
        return any(json.loads(record.read_text())["node"] == host.name for record in records)

    def works(self, host: Host) -> bool:
        """Say whether a process on a host makes attempts."""
        return any(works_on_attempts(_command_line(pid)) for pid in host.processes())


class Sweeping(Started):
    """A sweep under way on the head of a lab."""

    def __init__(self, lab: Lab, study: Path, store: str = "", env: Mapping[str, str] | None = None) -> None:
        self.lab, self.study, self.name = lab, study, study.stem
        # sweeps in the same store would take each other's runs over
        self.store = lab.folder / study.stem
        self.begun = time.monotonic()
        where = ["--store", store or str(self.store), "--data-dir", str(lab.data)]
        self.arguments = [str(study), *where, "--ray-address", f"{lab.head.address}:{PORT}"]
        self.log = lab.folder / f"{self.name}-{time.monotonic_ns()}.log"
        command = sweep_command("run", *self.arguments)
        self.process = lab.head.spawn(self.log, *command, env=lab.variables(env))

    def __enter__(self) -> Sweeping:
        return self

    @property
    def folder(self) -> Path:
        return self.store / self.name

    def end(self, code: int = 0, seconds: float = 400) -> Swept:
        """Wait for its end."""
        try:
            ended = self.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it does not end within {seconds:g} s:\n{self.said}") from None
        assert ended == code, f"it ended with {ended}:\n{self.said}"
        return Swept(self.name, self.said, time.monotonic() - self.begun, self.store)

    @property
    def said(self) -> str:
        return self.log.read_text()

    def under_way(self) -> dict[str, tuple[str, int]]:
        """Return the host and the number of the latest attempt of each run without an outcome."""
        found: dict[str, tuple[str, int]] = {}
        for run in self.folder.glob("runs/*"):
            numbers = [int(path.parent.name[8:]) for path in run.glob("attempt-*/attempt.json")]
            if numbers and not (run / "outcome.json").exists():
                record = json.loads((run / f"attempt-{max(numbers)}" / "attempt.json").read_text())
                found[run.name] = record["node"], max(numbers)
        return found

    def kept_on(self, host: Host) -> str | None:
        """Return a run that a host trains, and of which it has committed something."""
        for run, (name, number) in self.under_way().items():
            if name == host.name and list(self.folder.glob(f"runs/{run}/attempt-{number}/checkpoint-*")):
                return run
        return None

    def busy_host(self) -> Host | None:
        """Return a host that trains a run and has committed something of it."""
        return next((host for host in self.lab.hosts if self.kept_on(host)), None)


def _command_line(pid: int) -> bytes:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def declare_table(folder: Path) -> dict[str, Any]:
    """Write a table of two clouds of points, and return its declaration."""
    drawn = np.random.default_rng(1)
    labels = np.arange(LINES) % 2
    points = drawn.normal(0, 1, (LINES, 8)) + labels[:, None]
    lines = [
        ",".join([*(f"{x:.4f}" for x in row), "ab"[label]])
        for row, label in zip(points, labels, strict=True)
    ]
    (folder / "clouds.csv").write_text("\n".join(["a,b,c,d,e,f,g,h,kind", *lines]) + "\n")
    options = ("--target", "kind", "--data-dir", str(folder), "--labels", "a", "b")
    command = [sys.executable, "-m", "trainer.data", "clouds.csv", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    return json.loads(done.stdout)


def write_drill_study(folder: Path, table: dict[str, Any], name: str, **parts: Any) -> Path:
    """Write the study of the drills: 18 runs, a search of two generations, six pairs."""
    task = {**TASK, "data": table, **parts.pop("task", {})}
    resources = {"attempts": ATTEMPTS, "commit_share": 1, **parts.pop("resources", {})}
    return write_study(folder, name, task=task, resources=resources, **parts)


def undisturbed(folder: Path) -> tuple[Rows, list[bytes]]:
    """Run the study on this machine without a fault; return its rows and its proposals."""
    data = folder / "data"
    data.mkdir()
    study = write_drill_study(folder, declare_table(data), "quiet", resources={"workers": 2})
    command = sweep_command("run", study, "--store", folder, "--data-dir", data)
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment())
    assert done.returncode == 0, done.stderr
    return numbers(folder, "quiet")


def numbers(store: Path, study: str) -> tuple[Rows, list[bytes]]:
    """Return a study's rows by run, and the candidates that were proposed."""
    return rows(store, study), list(generations(store, study).values())


# the drills


def quiet(lab: Lab) -> list[Swept]:
    """Do nothing to the sweep."""
    with lab.sweep() as sweep:
        return [sweep.end()]


def cable_cut(lab: Lab, seconds: float = 20) -> list[Swept]:
    """Pull the cable of a host that trains out for a time."""
    return _away(lab, Host.cable_out, Host.cable_in, seconds)


def frozen(lab: Lab, seconds: float = 20) -> list[Swept]:
    """Stop every process of a host that trains for a time."""
    return _away(lab, Host.freeze, Host.thaw, seconds)


def _away(
    lab: Lab, begin: Callable[[Host], None], end: Callable[[Host], None], seconds: float
) -> list[Swept]:
    with lab.sweep() as sweep:
        host = sweep.until(sweep.busy_host)
        begin(host)
        began = time.monotonic()
        try:
            # what is awaited is the end of this time itself
            while time.monotonic() - began < seconds and not sweep.over:
                time.sleep(0.1)
        finally:
            end(host)
        swept = sweep.end()
    lab.ready()
    return [swept]


def cable_cut_for_good(lab: Lab) -> list[Swept]:
    """Pull the cable of a host that trains out, and leave it."""
    with lab.sweep() as sweep:
        host = sweep.until(sweep.busy_host)
        host.cable_out()
        swept = sweep.end()
    host.cable_in()
    lab.ready()
    return [swept]


def killed_under_a_run(lab: Lab, times: int = 3) -> list[Swept]:
    """Take the power of the host that trains a run, so many times under the same run."""
    with lab.sweep() as sweep:
        run: str = sweep.until(lambda: next(filter(None, map(sweep.kept_on, lab.hosts)), None))
        for number in range(1, times + 1):
            node, _ = sweep.until(partial(_on_attempt, sweep, run, number))
            host = next(host for host in lab.hosts if host.name == node)
            host.off()
            lab.again(host)
        swept = sweep.end()
    attempts = len(list(sweep.folder.glob(f"runs/{run}/attempt-*/attempt.json")))
    assert attempts > times, f"{attempts} attempts"
    lab.ready()
    return [swept]


def _on_attempt(sweep: Sweeping, run: str, number: int) -> tuple[str, int] | None:
    found = sweep.under_way().get(run)
    assert found or not (sweep.folder / "runs" / run / "outcome.json").exists(), (
        "it ended before it was lost"
    )
    return found if found and found[1] >= number else None


def preempted(lab: Lab, every: float = 0) -> list[Swept]:
    """Tell a host that its time is over, and take its power once it has handed its run on.

    With `every` (seconds) this is done again and again to one host after the other.
    """
    with lab.sweep() as sweep:
        sweep.until(sweep.busy_host)
        began, count = time.monotonic(), 0
        while not sweep.over:
            if count and not every:
                break
            host = sweep.busy_host()
            if not host or time.monotonic() - began < count * every:
                time.sleep(0.1)
                continue
            if node := lab.node(host):
                drain(lab, node)
                end = time.monotonic() + 15
                while lab.works(host) and not sweep.over and time.monotonic() < end:
                    time.sleep(0.1)
                host.off()
                lab.again(host)
                count += 1
        swept = sweep.end()
    lab.ready()
    return [swept]


def drain(lab: Lab, node: str, seconds: int = 30) -> None:
    """Announce that a node will be gone."""
    words = ("--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "sold")
    where = ("--address", f"{lab.head.address}:{PORT}", "--node-id", node)
    deadline = ("--deadline-remaining-seconds", str(seconds))
    done = lab.head.call(RAY, "drain-node", *where, *words, *deadline)
    assert not done.returncode, done.stderr


def head_restarted(lab: Lab) -> list[Swept]:
    """Kill the head's GCS and start it again; it finds what it knew on disk."""
    with lab.sweep() as sweep:
        sweep.until(sweep.busy_host)
        start_again = kill_gcs(lab.head)
        start_again()
        swept = sweep.end()
    lab.ready()
    return [swept]


def head_lost(lab: Lab) -> list[Swept]:
    """Kill a head that keeps nothing: the sweep says so and ends, and goes on with the next head."""
    with lab.sweep() as sweep:
        sweep.until(sweep.busy_host)
        kill_gcs(lab.head)
        broken = sweep.end(code=3)
    assert "head of the Ray cluster" in broken.said, broken.said
    lab.head.off()
    lab.head.on()
    lab.head.start_head(env=lab.variables())
    for host in lab.hosts:
        host.off()
        lab.again(host)
    lab.ready()
    with Sweeping(lab, sweep.study) as again:
        swept = again.end()
    return [replace(swept, seconds=broken.seconds + swept.seconds, said=broken.said + swept.said)]


def kill_gcs(head: Host) -> Callable[[], object]:
    """Kill the process that knows the cluster. Return what starts it as it was."""
    (pid,) = [pid for pid in head.processes() if b"/gcs_server\0" in _command_line(pid)]
    command = _command_line(pid).decode().strip("\0").split("\0")
    pairs = Path(f"/proc/{pid}/environ").read_bytes().decode().strip("\0").split("\0")
    env = dict(pair.split("=", 1) for pair in pairs)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not _command_line(pid), "the GCS is gone")
    return lambda: head.spawn(head.folder / "gcs.log", *command, env=env)


def joined_in_the_middle(lab: Lab) -> list[Swept]:
    """Let a host join while the sweep runs, and another one that has no data."""
    late, bare = lab.hosts[-2:]
    for host in (late, bare):
        host.off()
    lab.ready(late, bare)
    with lab.sweep() as sweep:
        sweep.until(sweep.busy_host)
        bare.on()
        bare.run("mount", "-t", "tmpfs", "none", lab.data)
        lab.join(bare)
        lab.again(late)
        kept_away(lab, sweep, bare, "clouds.csv")
        sweep.until(lambda: lab.used(sweep, late))
        swept = sweep.end()
    assert not (lab.used(sweep, bare)), "a run was trained on a host without the data"
    bare.off()
    lab.again(bare)
    lab.ready()
    return [swept]


def kept_away(lab: Lab, sweep: Sweeping, host: Host, reason: str) -> None:
    """Wait until `sweep status` names a host that gets no work, with the reason."""

    def named() -> bool:
        done = lab.head.sweep("status", sweep.study, "--store", sweep.store)
        return any(host.name in line and reason in line for line in done.stdout.splitlines())

    sweep.until(named)


def clock_off(lab: Lab, seconds: float = 90) -> list[Swept]:
    """Let a host join whose clock is wrong. By 90 s it gets no work, and by 30 s it works."""
    host = lab.hosts[-1]
    host.off()
    lab.again(host, {"CLOCK_OFF": str(seconds)})
    lab.ready()
    with lab.sweep() as sweep:
        if seconds > 60:
            kept_away(lab, sweep, host, "clock")
        else:
            sweep.until(lambda: lab.used(sweep, host))
        swept = sweep.end()
    assert lab.used(sweep, host) == (seconds <= 60)
    host.off()
    lab.again(host)
    lab.ready()
    return [swept]


def two_studies(lab: Lab) -> list[Swept]:
    """Run two studies at once."""
    with lab.sweep() as one, lab.sweep() as other:
        one.until(lambda: one.under_way() and other.under_way())
        return [one.end(), other.end()]


def ledger_on_s3(lab: Lab) -> list[Swept]:
    """Take the power of a host that trains while the ledger is in an object store on another host."""
    start_store(lab)
    before = lab.trained()
    with lab.sweep(f"s3://{BUCKET}", env=lab.variables()) as sweep:
        sweep.until(lambda: lab.trained() - before > 2 * EPOCHS and any(map(lab.works, lab.hosts)))
        host = next(host for host in lab.hosts if lab.works(host))
        host.off()
        lab.again(host)
        swept = sweep.end()
    lab.ready()
    copy = lab.folder / "copy"
    done = lab.head.call(sys.executable, "-c", COPY_BUCKET, copy, env=lab.variables())
    assert not done.returncode, done.stderr
    return [replace(swept, store=copy)]


def start_store(lab: Lab) -> None:
    """Start an object store on a host of its own, and make a bucket there."""
    host = lab.store_host
    keys = {"accessKey": lab.secrets["AWS_ACCESS_KEY_ID"], "secretKey": lab.secrets["AWS_SECRET_ACCESS_KEY"]}
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    config, data = host.folder / "s3.json", host.folder / "objects"
    config.write_text(
        json.dumps({"identities": [{"name": "sweep", "credentials": [keys], "actions": actions}]})
    )
    data.mkdir()
    weed = str(Path(sys.executable).parent / "weed")
    small = ("-master.volumeSizeLimitMB=64", "-volume.max=20")
    s3 = ("-s3", f"-s3.port={S3_PORT}", f"-s3.config={config}", *small)
    host.spawn(host.folder / "weed.log", weed, "server", f"-dir={data}", f"-ip={host.address}", *s3)

    def made() -> bool:
        return not lab.head.call(sys.executable, "-c", MAKE_BUCKET, env=lab.variables()).returncode

    wait_until(made, "the object store makes a bucket")


def from_zero(lab: Lab) -> list[Swept]:
    """Begin where there is no node: the cluster grows, and shrinks at the end."""
    assert len(lab.nodes()) == 1
    with lab.sweep() as sweep:
        swept = sweep.end()
    wait_until(lambda: len(lab.nodes()) == 1, "the cluster shrinks")
    return [swept]


class CommandLines(Thread):
    """The command lines of all processes of this machine, as they are while a drill goes on."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.over, self.seen = Event(), set[bytes]()

    def run(self) -> None:
        while not self.over.wait(0.2):
            self.seen |= {_command_line(int(path.name)) for path in Path("/proc").glob("[0-9]*")}

    def __enter__(self) -> CommandLines:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.join()


def shown_secrets(lab: Lab, commands: CommandLines) -> list[str]:
    """Return where one of a lab's secrets can be read: files of the hosts and the store, command lines.

    The two files that have to hold one are left out: the token's, and the object store's list of users.
    """
    token = (lab.lan.folder / "ray-token").read_text()
    words = [word.encode() for word in (token, *lab.secrets.values())]
    lines = [line.decode(errors="replace") for line in commands.seen if any(word in line for word in words)]
    own = (lab.lan.folder / "ray-token", lab.store_host.folder / "s3.json")
    for path in (*lab.folder.rglob("*"), *lab.lan.folder.rglob("*")):
        with suppress(OSError):
            if path.is_file() and path not in own and any(word in path.read_bytes() for word in words):
                lines.append(str(path))
    return lines


DRILLS: dict[str, Callable[[Lab], list[Swept]]] = {
    "undisturbed": quiet,
    "cable cut for 20 s": cable_cut,
    "cable cut for 90 s": partial(cable_cut, seconds=90),
    "cable cut for good": cable_cut_for_good,
    "host frozen for 20 s": frozen,
    "host killed three times under the same run": killed_under_a_run,
    "host drained": preempted,
    "a host preempted every 20 s": partial(preempted, every=20),
    "GCS restarted": head_restarted,
    "hosts join, one without data": joined_in_the_middle,
    "clock 90 s off": clock_off,
    "clock 30 s off": partial(clock_off, seconds=30),
    "two studies at once": two_studies,
    "ledger on S3, a host killed": ledger_on_s3,
}
"""The drills in a lab of three hosts, by name."""
