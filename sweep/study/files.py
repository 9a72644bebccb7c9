"""The sources of a study: a YAML file, a study that came with the package, or the study.json of a ledger."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from sweep.errors import RejectStudy
from sweep.study import document
from sweep.study.contents import NAME
from sweep.study.rules import check, code_problems
from sweep.study.study import Study
from trainer.settings import SpecError, nearest


def shipped() -> dict[str, Path]:
    """The studies that came with the package, by name: those in search_spaces/."""
    # Not at the top of the module: a node of a cluster has `sweep` and `trainer`, but not search_spaces.
    paths = (Path(str(file)) for file in files("search_spaces").iterdir())
    return {path.stem: path for path in sorted(paths, key=lambda path: path.stem) if path.suffix == ".yaml"}


def find(study: str) -> Path:
    """The file of a study, given its path or the name of one that came with the package."""
    path = Path(study)
    if path.suffix in (".yaml", ".yml") or path.is_file():
        return path
    names = shipped()
    if study in names:
        return names[study]
    if path.is_dir():
        raise RejectStudy([f"{study}: is a folder; a study is a YAML file."])
    hint = f"Give a YAML file, or one of {', '.join(names)}.{nearest(study, names)}"
    raise RejectStudy([f"{study}: no such study. {hint}"])


def load(path: Path, *, to_run: bool = False) -> Study:
    """The study in a file, or a RejectStudy with everything that is wrong with it.

    `to_run` rejects models that are code which this process may not run.
    """
    if not NAME.fullmatch(path.stem):
        rule = "a study is named after its file; use small letters, digits, - and _"
        raise RejectStudy([f"{path}: {rule} ({path.stem!r} is not)."])
    text = document.read(path, str(path))
    contents, problems = check(text.values)
    if contents and to_run and not problems:
        problems = list(code_problems(contents))
    if problems:
        raise text.reject(problems)
    assert contents
    return Study(path.stem, contents)


def from_declared(name: str, declared: Mapping[str, Any]) -> Study:
    """The study of a ledger's study.json; RejectStudy where this code lacks a part, such as a policy."""
    identity: dict[str, Any] = {
        **declared["identity"],
        "description": declared.get("description", ""),
        "published": declared.get("published"),
    }
    # The ledger sorts the keys of the identity. Its `arms` and `tasks` keep the order of the YAML.
    for key in ("arms", "tasks"):
        if key in declared:
            identity[key] = {name: identity[key][name] for name in declared[key]}
    contents, wrong = check(identity, begun=True)
    if not contents or wrong:
        raise _lacks(name, [f"{'.'.join(map(str, where))}: {reason}" for where, reason in wrong])
    study = Study(name, contents, declared.get("taken_seeds", ()))
    if problems := list(_run_problems(study)):
        raise _lacks(name, problems)
    return study


def _run_problems(study: Study) -> Iterator[str]:
    """Why the trainer refuses runs of a study."""
    for arm, *_ in study.methods.values():
        if arm.is_repeat:
            continue
        try:
            for candidate in arm.ends:
                study.run(candidate, "confirm", 0)
        except SpecError as error:
            yield from (f"arms.{arm.base}: {problem}" for problem in error.problems)


def _lacks(name: str, problems: Sequence[str]) -> RejectStudy:
    """The error for a ledger whose study this code cannot run."""
    return RejectStudy(
        [
            f"{name}: the study.json of its ledger asks for what this version of the code does not have:",
            *(f"  {problem}" for problem in problems),
            "Nothing was changed. Put it back, or use the version that the study was begun with: "
            "`commit` in attempt-1/attempt.json of any of its runs names it.",
        ]
    )
