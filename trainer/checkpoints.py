"""A checkpoint's bytes as the values that it holds, whoever wrote them.

`torch.load` with `weights_only` runs no code. But it unpacks what is compressed, and calls whatever makes a
tensor of any size: two megabytes can fill the memory. So the archive is looked at first.
"""

from __future__ import annotations

import io
import pickletools
import re
from typing import Any
from zipfile import ZIP_STORED, BadZipFile, ZipFile

ENTRY = re.compile(r"[^/]+/(data\.pkl|byteorder|version|data/\d+|\.\w+|\.data/\w+)")
"""The names in an archive of `torch.save`."""
MAKERS = re.compile(
    r"torch\._utils _rebuild_tensor_v2|torch \w+Storage|collections OrderedDict|_codecs encode"
)
"""What a state calls to be made: all of it takes as much memory as there are bytes for it."""


def values_of(data: bytes) -> Any:
    """The values in a checkpoint. ValueError says why it holds none that a run of ours keeps."""
    import torch

    try:
        return torch.load(_written_anew(data), map_location="cpu", weights_only=True)
    except BadZipFile:
        raise ValueError("it is no archive") from None
    except Exception as error:  # there is no end of what can be wrong with a stranger's file
        raise ValueError((str(error) or type(error).__name__).splitlines()[0]) from error


def _written_anew(data: bytes) -> io.BytesIO:
    """The archive with the entries that were checked: another reader may find others in the bytes."""
    anew = io.BytesIO()
    with ZipFile(io.BytesIO(data)) as given, ZipFile(anew, "w", ZIP_STORED) as checked:
        entries = given.infolist()
        if sum(entry.file_size for entry in entries) > len(data):
            raise ValueError("it would be larger in memory than it is here")
        for entry in entries:
            if not ENTRY.fullmatch(entry.filename) or entry.compress_type != ZIP_STORED:
                raise ValueError(f"no checkpoint has {entry.filename[:60]!a}, or has it compressed")
            content = given.read(entry)
            if entry.filename.endswith("/data.pkl"):
                _refuse_makers(content)
            checked.writestr(entry.filename, content)
    anew.seek(0)
    return anew


def _refuse_makers(pickled: bytes) -> None:
    for opcode, argument, _ in pickletools.genops(pickled):
        if opcode.name == "GLOBAL" and not MAKERS.fullmatch(str(argument)):
            raise ValueError(f"no checkpoint calls {str(argument)[:60]!a}")
        if opcode.name == "STACK_GLOBAL":
            raise ValueError("no checkpoint calls what it puts together")
