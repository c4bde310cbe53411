"""One build in a folder at a time, and none that outlives the ``make`` that started it.

A kernel watches the process that started it and ends within a second of its end. So it is enough that the builder
itself ends with ``make``: a shell stands between the two and would keep it alive.
"""

import fcntl
import os
import subprocess
import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import TextIO

_held: dict[Path, TextIO] = {}  # an open file is a held lock, so these stay open


class AnotherBuild(Exception):
    """Another process builds in this folder."""


def alone(root: Path) -> None:
    """Take the folder's lock for the life of this process; the system gives it back, also after ``kill -9``.

    Raises:
        AnotherBuild: another process has it.
    """
    path = Path(root).resolve() / "_build" / ".lock"
    if path in _held:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("a", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise AnotherBuild(
            f"another build is running in {path.parent.parent}; wait until it ends, or stop it"
        ) from None
    _held[path] = file


def end_with_make(every: float = 0.5) -> None:
    """Kill this process as soon as the ``make`` that it runs under is gone; without one, do nothing."""
    chain = under_make()
    if chain:
        threading.Thread(target=_watch, args=(chain, every), daemon=True).start()


def under_make() -> list[int]:
    """This process and those above it, up to the outermost ``make``; empty if there is none."""
    chain, last = [os.getpid()], 0
    while (above := _parent(chain[-1])) is not None and above[0] > 1 and len(chain) < 20:
        chain.append(above[0])
        if above[1] in ("make", "gmake"):
            last = len(chain)
    return chain[:last]


def _watch(chain: list[int], every: float) -> None:
    while all(_is_child(child, parent) for child, parent in pairwise(chain)):
        time.sleep(every)
    os._exit(143)  # as after SIGTERM; kernels see it and end


def _is_child(child: int, parent: int) -> bool:
    """Whether ``parent`` is still the parent; a process that ends leaves its children to another, also as a zombie."""
    if child == os.getpid():
        return os.getppid() == parent
    above = _parent(child)
    return above is not None and above[0] == parent


def _parent(pid: int) -> tuple[int, str] | None:
    """The parent of a process and the parent's name; ``None`` if there is no such process."""
    number = _fields(pid, "ppid")
    if number is None:
        return None
    return int(number), _fields(int(number), "comm") or ""


def _fields(pid: int, field: str) -> str | None:
    stat = Path(f"/proc/{pid}/stat")
    if stat.parent.parent.joinpath("self").exists():  # Linux; no process need be started twice a second
        try:
            name, rest = stat.read_text(encoding="utf-8", errors="replace").split("(", 1)[1].rsplit(")", 1)
        except OSError:
            return None
        return name if field == "comm" else rest.split()[1]
    found = subprocess.run(["ps", "-o", f"{field}=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return os.path.basename(found.stdout.strip()) or None
