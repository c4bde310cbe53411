"""The files of a sweep, one a run: read, found damaged, set aside, claimed by the one process that computes it.

========================  ================================================================================
``<key>.json``            a result, with its parameters and where it came from
``<key>.failed``          what a run that raised left: parameters, error, traceback; never taken for a result
``<key>.damaged``         what stood under the name of a result and was none
``.<key>.claim``          locked while a process computes this run; left unlocked by one that was killed
``.<key>-….tmp``          being written
========================  ================================================================================
"""

import contextlib
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TextIO

FIELDS = {"run", "parameters", "result", "provenance"}
FAILED_FIELDS = {"run", "parameters", "error", "traceback", "provenance"}


def key(parameters: Mapping) -> str:
    """Sixteen hexadecimal digits that name a run: a hash of its arguments, whatever their order.

    Raises:
        ValueError: an argument is not JSON, or is infinite or nan.
    """
    try:
        text = json.dumps(parameters, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"parameters must be JSON without infinity and nan, got {dict(parameters)!r}") from error
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def read(path: Path) -> dict:
    """The record in a file of a result or of a failure.

    Raises:
        ValueError: the file is cut short, empty, of another form, or of other parameters than its name says.
        OSError: there is no such file, or it cannot be read.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        fields = FAILED_FIELDS if path.suffix == ".failed" else FIELDS
        good = set(record) == fields and key(record["parameters"]) == path.stem and "seconds" in record["provenance"]
    except (TypeError, ValueError, AttributeError):
        good = False
    if not good:
        raise ValueError(
            f"folder must hold only files that sweep() wrote, got {path}, which is damaged; "
            "the next sweep (make results) sets it aside and computes it again"
        )
    return record


def usable(path: Path, run: str) -> bool:
    """Whether a file holds a result of this function, which may have moved to another module.

    Raises:
        ValueError: it holds a result of another function, which must not pass for it.
    """
    try:
        other = read(path)["run"]
    except (ValueError, FileNotFoundError):
        return False
    if other.rpartition(".")[2] != run.rpartition(".")[2]:
        raise ValueError(f"folder must hold runs of one function, {run}, got {path} of {other}")
    return True


@contextlib.contextmanager
def claimed(folder: Path, name: str) -> Iterator[bool]:
    """Hold the claim on a run; yields whether this process has it alone.

    The system gives the lock back when a process ends, however it ends. Where a file system has no locks, every
    process believes itself alone: two sweeps may then do a run twice, and damage nothing.
    """
    path = folder / f".{name}.claim"
    with path.open("a", encoding="utf-8") as file:
        alone = _lock(file) and _stands(file, path)
        try:
            yield alone
        finally:
            if alone:
                path.unlink(missing_ok=True)  # before the lock goes


def _lock(file: TextIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


def _stands(file: TextIO, path: Path) -> bool:
    """Whether a name still means an open file: whoever had the claim may have removed it since it was opened."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def clear(folder: Path) -> None:
    """Remove what killed sweeps left: claims that nobody holds, and temporary files older than a minute."""
    for left in folder.glob(".*.claim"):
        with claimed(folder, left.name[1:].removesuffix(".claim")):
            pass
    for left in folder.glob(".*.tmp"):
        with contextlib.suppress(FileNotFoundError):  # a sweep that is alive may just have renamed it
            if time.time() - left.stat().st_mtime > 60:
                left.unlink()
