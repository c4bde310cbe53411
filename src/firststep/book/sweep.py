"""A grid of pure runs, computed in parallel, one JSON file a run; a second start computes only what is missing.

A run is a function of JSON-able keyword arguments that returns a JSON-able dictionary, and nothing else decides its
result: seeds and dtype are arguments. Its file is named by the hash of those arguments and holds them, the result, and
where it came from. Every worker writes the file of its run itself, under a temporary name first, so a sweep that is
killed loses only the runs that were under way. Several sweeps may work on one folder: a run that another one has under
way is waited for. A run that raises leaves its traceback in a file of its own, and the others go on.
"""

import contextlib
import functools
import itertools
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from firststep import checks
from firststep.book import code_version, engines, provenance, records
from firststep.book.records import key

Run = Callable[..., dict]


class RunsFailed(Exception):
    """Some runs of a sweep raised; all others are finished."""

    def __init__(self, failed: Sequence[Path], runs: int):
        super().__init__(
            f"{len(failed)} of {runs} runs failed; the others are finished. The first, {failed[0]}: "
            f"{records.read(failed[0])['error']}. `make results RETRY=1` runs them again"
        )
        self.failed = list(failed)


@dataclass(frozen=True)
class _Job:
    """What the workers have to know besides the parameters of a run."""

    run: Run
    name: str
    folder: Path
    code: str | None
    device: str
    dtype: str | None


def grid(**axes: Iterable) -> list[dict]:
    """Every combination of the axes' values, the last axis moving fastest.

    Raises:
        ValueError: an axis has no values.
    """
    values = {name: list(axis) for name, axis in axes.items()}
    for name, axis in values.items():
        checks.require(len(axis) > 0, name, axis, "a non-empty list of values")
    return [dict(zip(values, point, strict=True)) for point in itertools.product(*values.values())]


def sweep(
    run: Run,
    points: Sequence[Mapping],
    folder: Path | str,
    *,
    workers: int = 1,
    engine: str = "joblib",
    scheduler: str | None = None,
    retry: bool = False,
    device: str = "cpu",
    dtype: str | None = None,
) -> None:
    """Compute the runs of a grid that have no file yet. A damaged file is set aside, and its run computed again.

    Args:
        run: a pure function, called as ``run(**point)``; with several workers it must be importable.
        points: keyword arguments, one mapping a run, as from :func:`grid`. Earlier points start first.
        folder: where the files lie, see :mod:`firststep.book.records`; made if missing. Workers on other machines
            must see it under the same path.
        workers: processes, each with one BLAS thread.
        engine: ``joblib`` or ``dask``, see :mod:`firststep.book.engines`.
        scheduler: address of a Dask scheduler; without one Dask works on this machine.
        retry: also compute the runs that have left a failure.
        device: recorded with the result.
        dtype: recorded with the result, where it is not a parameter of the run.

    Raises:
        RunsFailed: runs raised, now or earlier without ``retry``. Their files say how.
        ValueError: a point is not JSON or stands twice, or the number of workers is not a positive integer; or a file
            that already lies there was written by another function.
        concurrent.futures.BrokenExecutor: a process of joblib's died. What was finished stays.
        OSError: the disk is full, or files of workers do not arrive in the folder. What was finished stays.
    """
    folder = Path(folder).resolve()
    checks.positive_integer("workers", workers)
    checks.one_of("engine", engine, ("joblib", "dask"))
    paths = [folder / f"{key(point)}.json" for point in points]
    checks.require(len(set(paths)) == len(paths), "points", len(paths), "distinct, but some stand twice,")
    folder.mkdir(parents=True, exist_ok=True)
    records.clear(folder)
    job = _Job(run, _name(run), folder, code_version.version(run), device, dtype)
    if retry:
        for path in paths:
            path.with_suffix(".failed").unlink(missing_ok=True)
    missing = [dict(point) for path, point in zip(paths, points, strict=True) if not _ended(job, path)]
    if missing:
        died = functools.partial(_died, job)
        with engines.engine(engine, workers=workers, scheduler=scheduler, died=died) as compute:
            _compute(compute, job, missing, len(points))
    _report(paths)


def load(folder: Path | str) -> list[dict]:
    """All finished runs of a folder: a list of ``{"run", "parameters", "result", "provenance"}``, by name of file.

    Raises:
        ValueError: a file is not one that :func:`sweep` wrote for its name; the error names it.
    """
    return [records.read(path) for path in sorted(Path(folder).glob("*.json"))]


def _compute(compute: engines.Engine, job: _Job, points: list[dict], total: int) -> None:
    """Pass over the points until each has ended; those that another sweep has under way get another pass."""
    often = 0.1 if sys.stderr.isatty() else 60  # a line a minute in a log
    start = total - len(points)
    with tqdm(total=total, initial=start, desc=job.folder.name, unit="run", mininterval=often) as bar:
        while points:
            waiting = []
            with contextlib.closing(compute(functools.partial(_execute, job), points)) as outcomes:
                for ended, point in outcomes:
                    waiting += [] if ended else [point]
                    bar.update(ended)
            points = waiting
            time.sleep(0.5 if points else 0)


def _execute(job: _Job, point: dict) -> tuple[bool, dict]:
    """Compute one run and write its file, unless that is there by now; whether it is, or another process has it."""
    path = job.folder / f"{key(point)}.json"
    if job.name.startswith("firststep.") and code_version.version(job.run) != job.code:
        raise RuntimeError(f"{job.name} must be the same code for all workers: start the sweep and its workers again")
    with records.claimed(job.folder, path.stem) as alone:
        if alone and not _ended(job, path):
            if path.exists():
                os.replace(path, path.with_suffix(".damaged"))
                print(f"{path} is damaged: set aside as {path.stem}.damaged, computed again", file=sys.stderr)
            _attempt(job, point, path)
    return alone, point


def _ended(job: _Job, path: Path) -> bool:
    """Whether a run has a result, or has left a failure."""
    if records.usable(path, job.name):
        return True
    try:
        return bool(records.read(path.with_suffix(".failed")))
    except (ValueError, FileNotFoundError):
        return False


def _attempt(job: _Job, point: dict, path: Path) -> None:
    started = time.perf_counter()
    with threadpool_limits(1):  # several processes share the cores
        threads = torch.get_num_threads()
        try:
            outcome = {"result": job.run(**point)}
            provenance.text_of(outcome, path.name)
        except Exception as error:
            outcome = {"error": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()}
    _write(job, point, outcome, path, threads=threads, seconds=round(time.perf_counter() - started, 3))


def _died(job: _Job, point: dict) -> tuple[bool, dict]:
    """The failure of a run under which its worker died again and again."""
    words = "the worker died under this run again and again, of memory or of a signal"
    path = job.folder / f"{key(point)}.json"
    _write(job, point, {"error": words, "traceback": ""}, path, threads=1, seconds=0.0)
    return True, point


def _write(job: _Job, point: dict, outcome: dict, path: Path, **origin) -> None:
    origin |= {
        "device": job.device,
        "dtype": point.get("dtype", job.dtype),
        "code": job.code,
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "versions": provenance.versions(),
    }
    record = {"run": job.name, "parameters": point, **outcome, "provenance": origin}
    failed = path.with_suffix(".failed")
    if "result" in outcome:
        provenance.write_json(path, record)
        failed.unlink(missing_ok=True)
    else:
        provenance.write_json(failed, record)


def _report(paths: list[Path]) -> None:
    """Raise if a run has not left a result."""
    lacking = [path.with_suffix(".failed") for path in paths if not path.exists()]
    if lost := [path for path in lacking if not path.exists()]:
        raise OSError(f"all workers must write to {paths[0].parent}, but {len(lost)} runs left no file there")
    if lacking:
        raise RunsFailed(lacking, len(paths))


def _name(run: Run) -> str:
    module = sys.modules[run.__module__]
    spec = getattr(module, "__spec__", None)  # a module that is run by ``python -m`` calls itself __main__
    return f"{spec.name if spec else run.__module__}.{run.__qualname__}"
