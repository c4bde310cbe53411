"""A grid of pure runs, computed in parallel, one JSON file a run; a second start computes only what is missing.

A run is a function of JSON-able keyword arguments that returns a JSON-able dictionary, and nothing else decides its
result: seeds and dtype are arguments. Its file is named by the hash of those arguments and holds them, the result, and
where it came from. Every worker writes the file of its run itself, under a temporary name first, so a sweep that is
killed loses only the runs that were under way.
"""

import hashlib
import itertools
import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from joblib import Parallel, delayed
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from firststep import checks
from firststep.book import provenance

Run = Callable[..., dict]


def grid(**axes: Iterable) -> list[dict]:
    """Every combination of the axes' values, the last axis moving fastest.

    Raises:
        ValueError: an axis has no values.
    """
    values = {name: list(axis) for name, axis in axes.items()}
    for name, axis in values.items():
        checks.require(len(axis) > 0, name, axis, "a non-empty list of values")
    return [dict(zip(values, point, strict=True)) for point in itertools.product(*values.values())]


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


def sweep(run: Run, points: Sequence[Mapping], folder: Path | str, *, workers: int = 1, device: str = "cpu") -> None:
    """Compute the runs of a grid that have no file yet.

    Args:
        run: a pure function, called as ``run(**point)``; with several workers it must be importable.
        points: keyword arguments, one mapping a run, as from :func:`grid`. Earlier points start first.
        folder: where the files lie; made if missing. Temporary files of killed sweeps are removed.
        workers: processes, each with one BLAS thread.
        device: recorded with the result.

    Raises:
        ValueError: a point is not JSON, stands twice, or the number of workers is not a positive integer; or a file
            that already lies there is damaged, see :func:`load`, or was written by another function.
        OSError: the disk is full. What was finished stays.
    """
    folder = Path(folder)
    checks.positive_integer("workers", workers)
    names = [key(point) for point in points]
    checks.require(len(set(names)) == len(names), "points", len(names), "distinct, but some stand twice,")
    _remove_stale(folder)
    done = {name for name in names if (folder / f"{name}.json").exists() and _made_by(run, folder / f"{name}.json")}
    missing = [dict(point) for name, point in zip(names, points, strict=True) if name not in done]
    jobs = (delayed(_execute)(run, point, folder, device) for point in missing)
    finished = Parallel(n_jobs=workers, return_as="generator_unordered", pre_dispatch="n_jobs")(jobs)
    bar = tqdm(finished, total=len(points), initial=len(done), unit="run", disable=None)  # None: silent in a pipe
    for _ in bar:
        pass


def load(folder: Path | str) -> list[dict]:
    """All finished runs of a folder: a list of ``{"run", "parameters", "result", "provenance"}``, by name of file.

    Raises:
        ValueError: a file is not one that :func:`sweep` wrote for its name; the error names it.
    """
    return [_read(path) for path in sorted(Path(folder).glob("*.json"))]


def _execute(run: Run, point: dict, folder: Path, device: str) -> None:
    """Compute one run and write its file."""
    started = time.perf_counter()
    with threadpool_limits(1):  # several processes share the cores
        result = run(**point)
    record = {
        "run": _name(run),
        "parameters": point,
        "result": result,
        "provenance": {
            "seconds": round(time.perf_counter() - started, 3),
            "device": device,
            "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "versions": provenance.versions(),
        },
    }
    provenance.write_json(folder / f"{key(point)}.json", record)


def _name(run: Run) -> str:
    module = sys.modules[run.__module__]
    spec = getattr(module, "__spec__", None)  # a module that is run by ``python -m`` calls itself __main__
    return f"{spec.name if spec else run.__module__}.{run.__qualname__}"


def _made_by(run: Run, path: Path) -> bool:
    """Whether a file holds a result of this function, which may have moved; that of another must not pass for it."""
    other = _read(path)["run"]
    if other.rpartition(".")[2] != _name(run).rpartition(".")[2]:
        raise ValueError(f"folder must hold runs of one function, {_name(run)}, got {path} of {other}")
    return True


def _remove_stale(folder: Path) -> None:
    """Remove what killed sweeps left; a file younger than a minute may belong to one that is alive."""
    for left in folder.glob(".*.tmp"):
        if time.time() - left.stat().st_mtime > 60:
            left.unlink(missing_ok=True)


def _read(path: Path) -> dict:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        good = set(record) == {"run", "parameters", "result", "provenance"} and key(record["parameters"]) == path.stem
    except (TypeError, ValueError, AttributeError):
        good = False
    if not good:
        raise ValueError(f"folder must hold only files that sweep() wrote, got {path}, which is damaged: delete it")
    return record
