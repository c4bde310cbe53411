"""How large a run is, and where it runs: the only place that reads the environment.

=====================  ==============================  ==========================================
variable               values                          meaning
=====================  ==============================  ==========================================
``FIRSTSTEP_SCALE``    ``smoke``, ``cpu``, ``gpu``     sizes of every experiment (default ``cpu``)
``FIRSTSTEP_DEVICE``   any torch device                where tensors live (default: by scale)
``FIRSTSTEP_DATA``     a folder                        full data sets, looked for here first
``FIRSTSTEP_BUILD``    ``1``                           set by the book's builder: pages are static
=====================  ==============================  ==========================================
"""

import os
from pathlib import Path
from typing import TypeVar

import torch

from firststep import checks

SCALES = ("smoke", "cpu", "gpu")
T = TypeVar("T")


def name() -> str:
    """The current scale, one of ``smoke``, ``cpu``, ``gpu``.

    Raises:
        ValueError: ``FIRSTSTEP_SCALE`` is set to anything else.
    """
    return checks.one_of("FIRSTSTEP_SCALE", os.environ.get("FIRSTSTEP_SCALE", "cpu"), SCALES)


def pick(*, smoke: T, cpu: T, gpu: T | None = None) -> T:
    """The value that belongs to the current scale; ``gpu`` falls back to ``cpu``.

    Example:
        >>> steps = pick(smoke=20, cpu=2_000, gpu=20_000)
    """
    value = {"smoke": smoke, "cpu": cpu, "gpu": gpu}[name()]
    return cpu if value is None else value


def device() -> torch.device:
    """Where tensors live: ``FIRSTSTEP_DEVICE``, else ``cuda`` at scale ``gpu`` and ``cpu`` otherwise.

    Raises:
        ValueError: the device is unknown, or a GPU is asked for where torch finds none.
    """
    wanted = os.environ.get("FIRSTSTEP_DEVICE") or ("cuda" if name() == "gpu" else "cpu")
    try:
        found = torch.device(wanted)
    except RuntimeError as error:
        raise ValueError(f"FIRSTSTEP_DEVICE must be a torch device such as cpu or cuda, got {wanted!r}") from error
    if found.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            f"FIRSTSTEP_DEVICE must be a device that torch can use, got {wanted!r}, but torch finds no GPU here; "
            "run with SCALE=cpu, or install a CUDA build of torch on a machine with a GPU"
        )
    try:
        torch.empty(0, device=found)
    except (AssertionError, RuntimeError) as error:  # torch raises either, by backend
        raise ValueError(f"FIRSTSTEP_DEVICE must be a device that torch can use, got {wanted!r}: {error}") from error
    return found


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
