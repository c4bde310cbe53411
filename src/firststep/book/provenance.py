"""Where a result comes from, and how it reaches the disk whole."""

import json
import os
import platform
import tempfile
from pathlib import Path

import numpy
import scipy
import torch

from firststep import __version__


def versions() -> dict[str, str]:
    """The versions that a number may depend on."""
    return {
        "firststep": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "scipy": scipy.__version__,
    }


def text_of(content: dict, name: str) -> str:
    """``content`` as the text of a file.

    Raises:
        ValueError: ``content`` is not JSON, which knows no infinity and no nan.
    """
    try:
        return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise ValueError(f"content must be JSON without infinity and nan, got {name}: {error}") from error


def write_json(path: Path, content: dict) -> None:
    """Write ``content`` under a temporary name, then rename: a killed run leaves the old file or the new one.

    Raises:
        ValueError: ``content`` is not JSON, which knows no infinity and no nan.
        OSError: the disk is full or the folder cannot be written; no file is left behind.
    """
    text = text_of(content, path.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=".tmp")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)  # mkstemp makes files that only the owner reads
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
