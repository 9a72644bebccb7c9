"""A Ray cluster runs what anybody sends who has its token. One that has no token is not used."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.clusters import head_of, write_token
from tests.security.victim import PATIENCE_SECONDS, sweep
from tests.sweeps import AS_URGENT, write_study


@pytest.mark.parametrize("command", ["run", "plan"])
def test_a_cluster_without_a_token_is_refused_in_a_line_whatever_is_set_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    study = write_study(tmp_path)
    with head_of(monkeypatch, {"RAY_AUTH_MODE": "disabled"}, num_cpus=1) as cluster:
        done = sweep(
            *(command, study, "--store", tmp_path, "--ray-address", cluster.address),
            cwd=tmp_path,
            env={**write_token(tmp_path), "MLFLOW_TRACKING_URI": "none"},
        )
    assert done.returncode == 3, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "has no token" in line]
    assert "RAY_AUTH_MODE=token" in line
    assert "`ray start`" in line
    assert not (tmp_path / "small").exists()


def test_the_token_has_to_be_here_and_be_the_clusters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, home, other = write_study(tmp_path), tmp_path / "home", tmp_path / "other"
    for folder in (home, other):
        folder.mkdir()
    with head_of(monkeypatch, write_token(tmp_path), num_cpus=1) as cluster:
        asked = ("plan", study, "--store", tmp_path, "--ray-address", cluster.address)
        none = {"RAY_AUTH_MODE": "", "RAY_AUTH_TOKEN_PATH": "", "HOME": str(home)}
        missing = sweep(*asked, cwd=tmp_path, env=none)
        wrong = sweep(*asked, cwd=tmp_path, env=write_token(other))
        run = sweep("run", *asked[1:], cwd=tmp_path, env=write_token(other))
        right = sweep(*asked, cwd=tmp_path)
    refused = "refuses the token that is set here"
    for done, why, lines in ((missing, "asks for a token", 1), (wrong, refused, 1), (run, refused, 2)):
        assert done.returncode == 3, done.stderr
        assert why in done.stderr
        assert len(done.stderr.strip().splitlines()) == lines
    assert not (tmp_path / "small").exists()
    assert right.returncode == 0, right.stderr


def test_a_sweep_on_a_cluster_with_a_token_gives_away_neither_keys_nor_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tune copies AWS_* into what it asks of workers, which Ray writes to logs and command lines.

    Ray adds the working folder to the path of the workers.
    """
    study, secret, mark = write_study(tmp_path, search={"budget": 2}), "canary-of-a-key", tmp_path / "ran"
    (tmp_path / "yaml.py").write_text(f"open({str(mark)!r}, 'w').close()\nraise SystemExit(9)\n")
    for name, value in AS_URGENT.items():
        monkeypatch.setenv(name, value)
    with head_of(monkeypatch, write_token(tmp_path), num_cpus=2) as cluster:
        done = sweep(
            *("run", study, "--store", tmp_path, "--ray-address", cluster.address),
            cwd=tmp_path,
            env={"AWS_SECRET_ACCESS_KEY": secret, "MLFLOW_TRACKING_URI": "none"},
            seconds=3 * PATIENCE_SECONDS,
        )
        session = Path(cluster.head_node.get_session_dir_path())
        logs = {path.name: path.read_bytes() for path in session.rglob("*") if path.is_file()}
    assert len(logs) > 5
    assert [name for name, content in logs.items() if secret.encode() in content] == []
    assert not mark.exists()
    assert done.returncode == 0, done.stderr
