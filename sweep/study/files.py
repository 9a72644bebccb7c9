"""Where a study comes from: a YAML file, one that came with the package, or the study.json of a ledger."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from sweep.errors import RejectStudy
from sweep.study import document
from sweep.study.contents import NAME, Contents
from sweep.study.rules import check
from sweep.study.study import Study
from trainer.settings import SpecError, nearest


def shipped() -> dict[str, Path]:
    """The studies that came with the package, by name: those in search_spaces/."""
    # asked for here and not at the top: a node of a cluster is sent `sweep` and `trainer` alone
    paths = (Path(str(it)) for it in files("search_spaces").iterdir())
    return {path.stem: path for path in sorted(paths) if path.suffix == ".yaml"}


def find(study: str) -> Path:
    """The file of a study, given its path or the name of one that came with the package."""
    path = Path(study)
    if path.suffix in (".yaml", ".yml") or path.is_file():
        return path
    known = shipped()
    if study in known:
        return known[study]
    if path.is_dir():
        raise RejectStudy([f"{study}: is a folder; a study is a YAML file."])
    raise RejectStudy(
        [f"{study}: no such study. Give a YAML file, or one of {', '.join(known)}.{nearest(study, known)}"]
    )


def load(path: Path) -> Study:
    """The study in a file; RejectStudy with everything that is wrong with it."""
    shown = str(path)
    if not NAME.fullmatch(path.stem):
        raise RejectStudy(
            [
                f"{shown}: a study is named after its file; use small letters, digits, - and _ "
                f"({path.stem!r} is not)."
            ]
        )
    found = document.read(path, shown)
    contents, problems = check(found.values)
    if problems:
        raise found.reject(problems)
    assert contents
    return Study(path.stem, contents)


def from_identity(name: str, identity: Mapping[str, Any]) -> Study:
    """The study that `identity` was taken from."""
    return Study(name, Contents.read(identity))


def from_declared(name: str, declared: Mapping[str, Any]) -> Study:
    """The study that a ledger was begun with; RejectStudy where the code lacks a part, such as a policy."""
    identity = declared["identity"]
    ordered = {
        key: {name: identity[key][name] for name in declared[key]}
        for key in ("arms", "tasks")
        if key in declared
    }
    problems: list[str] = []
    try:
        study = from_identity(name, {**identity, **ordered, "description": declared.get("description", "")})
    except SpecError as error:
        problems = [str(problem) for problem in error.problems]
    else:
        for arm in [arm for arm, it in study.arms.items() if not it.repeats]:
            try:
                for candidate in study.arms[arm].ends:
                    study.run(candidate, "confirm", 0)
            except SpecError as error:
                problems += [f"arms.{study.arms[arm].base}: {problem}" for problem in error.problems]
        if not problems:
            return study
    raise RejectStudy(
        [
            f"{name}: the study.json of its ledger asks for what this version of the code does not have:",
            *(f"  {problem}" for problem in problems),
            "Nothing was changed. Put it back, or use the version that the study was begun with: "
            "`commit` in attempt-1/attempt.json of any of its runs names it.",
        ]
    )
