"""The manifests of docker/kubernetes/: Kubernetes takes them, they fit together, and the job runs on Ray.

No Kubernetes runs here. Core kinds and pods are compared with its schemas, for which a misspelt field is an
error. What KubeRay would hand in is handed in to a real Ray cluster.
"""

from __future__ import annotations

import copy
import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import mlflow.environment_variables
import pytest
import ray
import requests
import yaml
from ray.scripts import scripts

from tests.clusters import head_of, write_token
from tests.manifests import FOLDER, manifest, pods
from tests.sweeps import AS_URGENT, sweep, write_study

PAGE = (FOLDER.parents[1] / "docs" / "kubernetes.md").read_text()
CLUSTER, JOB = manifest("cluster.yaml"), manifest("job.yaml")
PODS = [*pods(CLUSTER), *pods(JOB)]
CONTAINERS = [container for pod in PODS for container in pod["spec"]["containers"]]
FREE = ("labels", "matchLabels", "nodeSelector", "requests", "limits")
"""The fields whose keys anybody may choose."""


def assert_valid(thing: dict[str, Any]) -> None:
    kubernetes_validate.validate(thing, kubernetes_validate.latest_version(), strict=True)


def test_kubernetes_takes_every_pod_and_the_policy_of_the_network() -> None:
    assert len(PODS) == 6
    for thing in [*PODS, manifest("network.yaml")]:
        assert_valid(thing)


def fields(within: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every field that Kubernetes has named."""
    if isinstance(within, dict):
        for key, part in within.items():
            yield (*path, key)
            if key not in FREE:
                yield from fields(part, (*path, key))
    elif isinstance(within, list):
        for number, part in enumerate(within):
            yield from fields(part, (*path, number))


def test_any_field_of_a_worker_or_the_policy_that_is_misspelt_is_refused() -> None:
    for thing in (PODS[1], manifest("network.yaml")):
        found = [path for path in fields(thing) if path[0] not in ("apiVersion", "kind")]
        assert len(found) > 10
        for *way, name in found:
            wrong = copy.deepcopy(thing)
            parent = wrong
            for key in way:
                parent = parent[key]
            parent[f"{name}x"] = parent.pop(name)
            with pytest.raises(kubernetes_validate.ValidationError):
                assert_valid(wrong)


def test_the_job_has_the_cluster_of_the_other_file_and_a_folder_of_studies() -> None:
    cluster = copy.deepcopy(JOB["spec"]["rayClusterSpec"])
    head = cluster["headGroupSpec"]["template"]["spec"]
    assert head["containers"][0]["volumeMounts"].pop() == {"name": "studies", "mountPath": "/studies"}
    assert head["volumes"].pop() == {"name": "studies", "configMap": {"name": "pairsweep-studies"}}
    assert cluster == CLUSTER["spec"]


def test_all_containers_have_one_image_and_what_ray_and_kubernetes_ask_of_them() -> None:
    assert {container["image"] for container in CONTAINERS} == {"pairsweep"}
    assert CLUSTER["spec"]["rayVersion"] == ray.__version__
    options = {option[2:] for parameter in scripts.start.params for option in parameter.opts}
    groups = [CLUSTER["spec"]["headGroupSpec"], *CLUSTER["spec"]["workerGroupSpecs"]]
    assert all(group["rayStartParams"].keys() <= options for group in groups)
    for pod in PODS:
        assert pod["spec"]["securityContext"]["runAsNonRoot"]
        assert pod["spec"]["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        volumes = {volume["name"] for volume in pod["spec"]["volumes"]}
        for container in pod["spec"]["containers"]:
            mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
            assert "/tmp" in mounts
            assert set(mounts.values()) <= volumes
    for locked in [*CONTAINERS, CLUSTER["spec"]["autoscalerOptions"]]:
        assert locked["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        }


def test_the_policy_of_the_network_is_about_every_pod() -> None:
    chosen = manifest("network.yaml")["spec"]["podSelector"]["matchLabels"]
    assert chosen
    assert all(chosen.items() <= pod["metadata"]["labels"].items() for pod in PODS)


def test_the_page_makes_every_secret_and_folder_that_a_manifest_names() -> None:
    made = set(re.findall(r"^kubectl create (secret generic|configmap) (\S+)", PAGE, re.MULTILINE))
    named = {
        ("secret generic", source["secretRef"]["name"])
        for container in CONTAINERS
        for source in container["envFrom"]
    }
    named |= {
        ("configmap", volume["configMap"]["name"])
        for pod in PODS
        for volume in pod["spec"]["volumes"]
        if "configMap" in volume
    }
    token = CLUSTER["spec"]["authOptions"]["secretName"]
    assert made == {*named, ("secret generic", token)}
    # the key is KubeRay's
    assert f"{token} --from-file=auth_token=token" in PAGE


def test_mlflow_reads_the_variables_that_the_page_names() -> None:
    names = set(re.findall(r"`(MLFLOW_\w+)`", PAGE))
    assert names
    assert all(hasattr(mlflow.environment_variables, name) for name in names)


def test_the_page_has_the_manifest_and_says_first_what_was_not_run() -> None:
    (shown,) = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    assert shown == (FOLDER / "cluster.yaml").read_text()
    assert PAGE.splitlines()[2].startswith("Nothing here was run on a Kubernetes cluster")
    edits = {number for name in ("cluster.yaml", "job.yaml") for number in _edits(name)}
    listed = re.findall(r"^(\d)\. ", PAGE, re.MULTILINE)
    assert sorted(edits) == listed


def _edits(name: str) -> list[str]:
    return re.findall(r"# EDIT (\d):", (FOLDER / name).read_text())


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_job_that_kuberay_hands_in_ends_its_study_in_a_bucket(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, bucket: str, s3_environment: dict[str, str]
) -> None:
    """What KubeRay sends in the mode of job.yaml is sent, with a study and a bucket of this test."""
    spec = JOB["spec"]
    study, auth = write_study(tmp_path, "mine"), write_token(tmp_path)
    edits = {"s3://bucket/sweeps": bucket, "/studies/mine.yaml": str(study)}
    job = {
        "entrypoint": _edited(spec["entrypoint"], edits),
        "metadata": {name: _edited(value, edits) for name, value in spec["metadata"].items()},
        "runtime_env": yaml.safe_load(spec["runtimeEnvYAML"]),
        "submission_id": "pairsweep-mine-x1",
    }
    assert spec["submissionMode"] == "HTTPMode"
    in_the_image = f"{Path(sys.executable).parent}{os.pathsep}/usr/bin{os.pathsep}/bin"
    for name, value in {**AS_URGENT, **s3_environment, "PATH": in_the_image}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    free = {"dashboard_agent_listen_port": 0, "dashboard_host": "127.0.0.1"}
    with head_of(monkeypatch, auth, include_dashboard=True, num_cpus=2, **free) as cluster:
        dashboard = f"http://{cluster.head_node.webui_url}"
        here = {"RAY_API_SERVER_ADDRESS": dashboard, **auth}
        bearer = {"X-Ray-Authorization": f"Bearer {Path(auth['RAY_AUTH_TOKEN_PATH']).read_text()}"}
        _hand_in(f"{dashboard}/api/jobs/", job, bearer)
        log = sweep("logs", "mine", "--follow", env=here)
        assert "done: 18 runs." in log.stdout, log.stdout + log.stderr
        listed = sweep("list", env=here)
        assert f"  {bucket}  pairsweep-mine-x1" in listed.stdout
        assert listed.stdout.startswith("mine  done since ")


def _edited(text: str, edits: dict[str, str]) -> str:
    for old, new in edits.items():
        text = text.replace(old, new)
    return text


def _hand_in(url: str, job: dict[str, Any], headers: dict[str, str]) -> None:
    """Hand a job in again and again until an agent takes it, which starts after the dashboard."""
    end = time.monotonic() + 120
    while not (answer := requests.post(url, json=job, headers=headers, timeout=60)).ok:
        assert time.monotonic() < end, answer.text
        assert "No available agent" in answer.text, answer.text
        time.sleep(0.5)
