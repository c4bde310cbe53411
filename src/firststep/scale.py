"""How large a run is, and where it runs: the only place that reads the environment.

======================  ===========================  ==========================================================
variable                values                       meaning
======================  ===========================  ==========================================================
``FIRSTSTEP_SCALE``     ``smoke``, ``cpu``, ``gpu``  sizes of every experiment (default ``cpu``)
``FIRSTSTEP_DEVICE``    any torch device             where tensors live (default: by scale)
``FIRSTSTEP_DATA``      a folder                     full data sets, looked for here first
``FIRSTSTEP_REHEARSE``  ``1``                        sizes of the scale, repeated as at ``smoke``; no verdicts
``FIRSTSTEP_BUILD``     ``1``                        set by the book's builder: pages are static
``FIRSTSTEP_WORKERS``   a number                     kernels that the book's builder runs at a time (default 2)
======================  ===========================  ==========================================================
"""

import os
from pathlib import Path
from typing import TypeVar

import torch

from firststep import checks

SCALES = ("smoke", "cpu", "gpu")
T = TypeVar("T")
Count = TypeVar("Count", int, tuple[int, ...])


def name() -> str:
    """The current scale, one of ``smoke``, ``cpu``, ``gpu``.

    Raises:
        ValueError: ``FIRSTSTEP_SCALE`` is set to anything else.
    """
    return checks.one_of("FIRSTSTEP_SCALE", os.environ.get("FIRSTSTEP_SCALE", "cpu"), SCALES)


def pick(*, smoke: T, cpu: T, gpu: T) -> T:
    """The value that belongs to the current scale: a width, a depth, a list of shapes.

    All three are asked for, so that nothing falls back in silence: where the size does not matter, ``gpu`` repeats
    ``cpu`` and a reader sees it.

    Example:
        >>> width = pick(smoke=20, cpu=500, gpu=4_000)
    """
    return {"smoke": smoke, "cpu": cpu, "gpu": gpu}[name()]


def count(*, smoke: Count, cpu: Count, gpu: Count) -> Count:
    """How often something is repeated: seeds, steps, draws. As :func:`pick`, but a rehearsal repeats as ``smoke`` does.

    Each is a number, or a tuple of numbers that belongs to a list of sizes.

    Raises:
        ValueError: a count that is not a positive integer, or a tuple of them.
    """
    counts = {"smoke": smoke, "cpu": cpu, "gpu": gpu}
    for size, value in counts.items():
        for one in value if isinstance(value, tuple) else (value,):
            checks.positive_integer(size, one)
        checks.require(value != (), size, value, "a positive integer, or a tuple of them")
    return counts["smoke" if rehearsing() else name()]


def rehearsing() -> bool:
    """Whether this run is a rehearsal (``make rehearse``): full sizes, smoke's counts, and no verdict."""
    return os.environ.get("FIRSTSTEP_REHEARSE") == "1"


def device() -> torch.device:
    """Where tensors live: ``FIRSTSTEP_DEVICE``, else ``cuda`` at scale ``gpu`` and ``cpu`` otherwise.

    A rehearsal takes the GPU if there is one, and the CPU if not.

    Raises:
        ValueError: the device is unknown, or a GPU is asked for where torch finds none.
    """
    default = "cuda" if name() == "gpu" and (torch.cuda.is_available() or not rehearsing()) else "cpu"
    return _usable("FIRSTSTEP_DEVICE", os.environ.get("FIRSTSTEP_DEVICE") or default)


def chosen(wanted: torch.device | str | None) -> torch.device:
    """The device that the argument ``device`` of a function names; ``None`` means :func:`device`.

    Raises:
        ValueError: torch cannot use it.
    """
    return device() if wanted is None else _usable("device", wanted)


def _usable(argument: str, wanted: torch.device | str) -> torch.device:
    try:
        found = torch.device(wanted)
    except (RuntimeError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{argument} must be a torch device such as cpu or cuda, got {wanted!r}") from error
    if found.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            f"{argument} must be a device that torch can use, got {wanted!r}, but torch finds no GPU here; "
            "run with SCALE=cpu, or install a CUDA build of torch on a machine with a GPU"
        )
    try:
        torch.empty(0, device=found)
    except (AssertionError, RuntimeError) as error:  # torch raises either, by backend
        raise ValueError(f"{argument} must be a device that torch can use, got {wanted!r}: {error}") from error
    return found


def device_of(*values: object) -> torch.device:
    """The device of the first tensor among ``values``; :func:`device` if all of them are plain numbers."""
    return next((value.device for value in values if isinstance(value, torch.Tensor)), None) or device()


def data_dir() -> Path | None:
    """The folder named by ``FIRSTSTEP_DATA``, or ``None``.

    Raises:
        ValueError: the folder does not exist.
    """
    folder = os.environ.get("FIRSTSTEP_DATA")
    if not folder:
        return None
    checks.require(Path(folder).is_dir(), "FIRSTSTEP_DATA", folder, "an existing folder")
    return Path(folder)


def building() -> bool:
    """Whether the book's builder runs this notebook, so that its output must live without a kernel."""
    return os.environ.get("FIRSTSTEP_BUILD") == "1"


def workers() -> int:
    """How many kernels the book's builder runs at a time: ``FIRSTSTEP_WORKERS``, else 2.

    Raises:
        ValueError: not a positive integer.
    """
    text = os.environ.get("FIRSTSTEP_WORKERS") or "2"
    checks.require(
        text.isascii() and text.isdecimal() and int(text) > 0, "FIRSTSTEP_WORKERS", text, "a positive integer"
    )
    return int(text)
