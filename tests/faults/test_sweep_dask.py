"""Sweeps on a Dask cluster: workers that die under a run, and runs that fail."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from firststep.book import engines, sweep

distributed = pytest.importorskip("distributed")


def square(x):
    return {"value": x * x}


def die_once(x, marks):
    """A run whose worker is killed in its middle the first time that it is 1 or 4."""
    mark = Path(marks) / str(x)
    if x in (1, 4) and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return square(x)


def die(x):
    if x == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return square(x)


def fail(x):
    return {"value": 1 / x}


@pytest.fixture(scope="module")
def cluster():
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        yield cluster


@pytest.fixture
def options(cluster):
    return {"engine": "dask", "scheduler": cluster.scheduler_address}


def values(folder):
    return sorted(r["result"]["value"] for r in sweep.load(folder))


def test_a_cluster_computes_the_same_as_this_process(tmp_path, options):
    points = sweep.grid(x=range(8))
    sweep.sweep(square, points, tmp_path / "there", **options)
    sweep.sweep(square, points, tmp_path / "here")
    there, here = ([(r["parameters"], r["result"]) for r in sweep.load(tmp_path / name)] for name in ("there", "here"))
    assert there == here and len(there) == 8


def test_runs_whose_worker_is_killed_under_them_are_run_again(tmp_path, options):
    (tmp_path / "marks").mkdir()
    sweep.sweep(die_once, sweep.grid(x=range(6), marks=[str(tmp_path / "marks")]), tmp_path / "runs", **options)
    assert values(tmp_path / "runs") == [0, 1, 4, 9, 16, 25]
    assert len(list((tmp_path / "marks").iterdir())) == 2, "no worker was killed"
    assert {path.suffix for path in (tmp_path / "runs").iterdir()} == {".json"}


def test_a_run_that_always_kills_its_worker_counts_as_failed_and_the_others_are_computed(tmp_path, options, cluster):
    cluster.scheduler.allowed_failures = 0  # three by default, which only takes longer
    with pytest.raises(sweep.RunsFailed, match=r"1 of 4 runs failed.*the worker died under this run"):
        sweep.sweep(die, sweep.grid(x=range(4)), tmp_path, **options)
    cluster.scheduler.allowed_failures = 3
    assert values(tmp_path) == [0, 4, 9]


def test_a_run_that_raises_leaves_its_traceback_and_the_others_are_computed(tmp_path, options):
    with pytest.raises(sweep.RunsFailed, match=r"1 of 3 runs failed.*ZeroDivisionError") as caught:
        sweep.sweep(fail, sweep.grid(x=[0, 1, 2]), tmp_path, **options)
    assert 'return {"value": 1 / x}' in caught.value.failed[0].read_text(encoding="utf-8").replace("\\", "")
    assert values(tmp_path) == [0.5, 1.0]


def test_a_disk_that_is_full_for_the_workers_ends_the_sweep_with_the_systems_words(tmp_path, options):
    (tmp_path / "runs").mkdir()
    with pytest.raises(OSError, match="No space left on device"):
        sweep.sweep(full_disk, [{"x": 1}], tmp_path / "runs", **options)
    assert sweep.load(tmp_path / "runs") == []


def full_disk(x):
    """A run after which nothing can be written in its process."""
    from firststep.book import provenance

    def refuse(_):
        raise OSError(28, os.strerror(28))

    os.fsync, provenance.os.fsync = refuse, refuse
    return square(x)


def test_the_engine_is_known_and_only_dask_has_a_scheduler(tmp_path):
    with pytest.raises(ValueError, match="engine must be one of"):
        sweep.sweep(square, [{"x": 1}], tmp_path, engine="mpi")
    with (
        pytest.raises(ValueError, match="scheduler must be None unless the engine is dask"),
        engines.engine("joblib", scheduler="tcp://localhost:1", died=square),
    ):
        pass


def test_nothing_imports_dask_that_does_not_use_it():
    program = "import sys; from firststep.book import recorded; assert not {'distributed', 'dask'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
