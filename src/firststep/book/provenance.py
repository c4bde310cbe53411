"""Where a result comes from, and how it reaches the disk whole."""

import json
import os
import platform
import tempfile
from pathlib import Path

import numpy
import torch

from firststep import __version__


def versions() -> dict[str, str]:
    """The versions that a number may depend on."""
    return {
        "firststep": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
    }


def write_json(path: Path, content: dict) -> None:
    """Write ``content`` under a temporary name, then rename: a killed run leaves the old file or the new one.

    Raises:
        ValueError: ``content`` is not JSON, which knows no infinity and no nan.
        OSError: the disk is full or the folder cannot be written; no file is left behind.
    """
    try:
        text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise ValueError(f"content must be JSON without infinity and nan, got {path.name}: {error}") from error
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
