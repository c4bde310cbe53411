"""What computes the runs of a sweep: processes of this machine (joblib), or a Dask cluster.

An engine is a function of calls; it yields what they return in the order in which they end. One call that raises ends
the others.
"""

import contextlib
import itertools
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from joblib import Parallel, delayed

from firststep import checks

T, R = TypeVar("T"), TypeVar("R")
Engine = Callable[[Callable[[T], R], Iterable[T]], Iterator[R]]
_watched = threading.Lock()


@contextlib.contextmanager
def engine(name: str, *, workers: int = 1, scheduler: str | None = None, died: Callable[[T], R]) -> Iterator[Engine]:
    """An engine and what it needs, for as long as the context lasts; no process of it outlives the context.

    Args:
        name: ``joblib`` or ``dask``.
        workers: processes; one is this one with joblib. Means nothing where there is a scheduler.
        scheduler: address of a Dask scheduler, ``tcp://host:8786``; without one Dask works on this machine.
        died: what a call counts as whose worker died under it again and again; only Dask goes on then.

    Raises:
        ValueError: unknown name, no positive number of workers, or a scheduler without Dask.
        OSError: the scheduler does not answer.
    """
    checks.one_of("engine", name, ("joblib", "dask"))
    checks.positive_integer("workers", workers)
    checks.require(scheduler is None or name == "dask", "scheduler", scheduler, "None unless the engine is dask")
    if name == "joblib":
        yield lambda call, points: _processes(call, points, workers)
        return
    from distributed import Client, LocalCluster  # heavy, and of this engine only

    with contextlib.ExitStack() as open_until_here:
        cluster = scheduler or LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None)
        if not scheduler:
            open_until_here.enter_context(cluster)
        client = open_until_here.enter_context(Client(cluster))
        yield lambda call, points: _tasks(client, call, points, died)


def _processes(call: Callable[[T], R], points: Iterable[T], workers: int) -> Iterator[R]:
    if workers == 1:
        return (call(point) for point in points)
    jobs = (delayed(_bound)(os.getpid(), call, point) for point in points)
    pool = Parallel(n_jobs=workers, return_as="generator_unordered", pre_dispatch="n_jobs", batch_size=1)
    return pool(jobs)


def _tasks(client, call: Callable[[T], R], points: Iterable[T], died: Callable[[T], R]) -> Iterator[R]:
    """As many calls at a time as the cluster has threads now, so that none waits on a worker that another one kills."""
    from distributed import KilledWorker, as_completed

    waiting, under_way, futures = iter(points), {}, as_completed()

    def fill() -> None:
        for point in itertools.islice(waiting, max(1, sum(client.nthreads().values())) - len(under_way)):
            future = client.submit(call, point, pure=False)
            under_way[future] = point
            futures.add(future)

    fill()
    for future in futures:
        point = under_way.pop(future)
        try:
            result = future.result()
        except KilledWorker:
            result = died(point)
        fill()
        yield result


def _bound(parent: int, call: Callable[[T], R], point: T) -> R:
    """A call in a process that ends with the one that started it, however that ends."""
    if _watched.acquire(blocking=False):
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    return call(point)


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(143)
