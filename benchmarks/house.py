"""The shape of the code: `python -m benchmarks.house [FOLDER]`, of this checkout or of another one.

It counts lines, functions and docstrings, and follows three commands over the ledger in tests/data. Each
function counts at its first call. A stay is a series of such calls in one room; a return is a stay in a
room that was left before. A room is a package of `sweep`, or a file of it where it has no packages.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

RIDDLE = re.compile(r"(Of|As|With|By|To|In|From|For|On|At) ")
"""How a docstring begins that does not say what the thing is or does."""
WIDE = 100
WALKS = {
    "a study to MLflow": ["sync"],
    "an arm to a verdict": ["report", "--to", "page.html"],
    "a row to Parquet": ["export", "--to", "out"],
}
TRACE = """
import inspect, os, runpy, sys
seen = dict()
def note(frame, event, argument):
    code = frame.f_code
    named = code.co_flags & inspect.CO_OPTIMIZED and not code.co_name.startswith("<")  # no class, no lambda
    if event == "call" and named and code.co_filename.startswith(os.environ["SWEEP"]):
        seen.setdefault((code.co_filename, code.co_qualname))
sys.setprofile(note)
try:
    runpy.run_module("sweep", run_name="__main__")
except SystemExit:
    pass
sys.setprofile(None)
print("\\n".join(name for name, _ in seen), file=sys.stderr)
"""


def shape(folder: Path) -> dict[str, int]:
    """Count what the Python files of a checkout consist of."""
    names = subprocess.run(
        ["git", "ls-files", "*.py"], cwd=folder, capture_output=True, text=True, check=True
    )
    lines, functions, docstrings = list[str](), list[int](), list[str]()
    for name in names.stdout.split():
        text = (folder / name).read_text()
        lines += text.splitlines()
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                functions.append((node.end_lineno or 0) - node.lineno + 1)
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                docstrings += texts(node)
    functions.sort()
    readme = (folder / "README.md").read_text()
    return {
        "lines of Python": len(lines),
        "functions": len(functions),
        "lines of a function, 95th percentile": functions[len(functions) * 95 // 100],
        "lines of the longest function": functions[-1],
        f"lines over {WIDE} columns": sum(len(line) > WIDE for line in lines),
        "lines over 110 columns": sum(len(line) > 110 for line in lines),
        "docstrings and texts below fields": len(docstrings),
        "of them riddles": sum(bool(RIDDLE.match(text)) for text in docstrings),
        "words of the README": len(readme.split()),
        "lines of the README": len(readme.splitlines()),
        "files of the fullest folder in sweep/": max(map(len, folders(folder / "sweep").values())),
    }


def texts(node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[str]:
    """A docstring, and the texts below the fields of a class or the constants of a module."""
    if text := ast.get_docstring(node):
        yield text
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return
    for above, below in zip(node.body, node.body[1:], strict=False):
        match above, below:
            case ast.Assign() | ast.AnnAssign(), ast.Expr(value=ast.Constant(value=str(text))):
                yield text
            case _:
                pass


def folders(root: Path) -> dict[Path, list[Path]]:
    """The Python files of each folder."""
    files = sorted(root.rglob("*.py"), key=lambda file: (file.parent, file))
    return {folder: list(own) for folder, own in groupby(files, key=lambda file: file.parent)}


def walk(folder: Path, command: list[str]) -> dict[str, int]:
    """Follow a command through the rooms of sweep/."""
    with tempfile.TemporaryDirectory() as empty:
        with tarfile.open(folder / "tests" / "data" / "ledger-15d2fea.tar.xz") as archive:
            archive.extractall(empty, filter="data")
        study = str(folder / "tests" / "data" / "kept.yaml")
        given = [command[0], study, "--store", f"{empty}/store", *command[1:]]
        environment = {"PYTHONPATH": str(folder), "SWEEP": f"{folder}/sweep/", "HOME": empty}
        done = subprocess.run(
            [sys.executable, "-c", TRACE, *given],
            cwd=empty,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
    root = f"{folder}/sweep/"
    names = [line.removeprefix(root) for line in done.stderr.splitlines() if line.startswith(root)]
    rooms = [room for room, _ in groupby(name.split("/")[0] for name in names)]
    return {"rooms": len(set(rooms)), "stays": len(rooms), "returns": len(rooms) - len(set(rooms))}


def main() -> None:
    """Print the shape and the walks as JSON."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve()
    walks = {name: walk(folder, command) for name, command in WALKS.items()}
    print(json.dumps({"shape": shape(folder), "walks": walks}, indent=1))


if __name__ == "__main__":
    main()
