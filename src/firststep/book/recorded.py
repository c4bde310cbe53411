"""The long runs whose results the book shows: ``make results`` computes what is missing in ``results/``.

The runs and their grids are the modules of :mod:`firststep.book.runs`.

python -m firststep.book.recorded            # every sweep
python -m firststep.book.recorded rank_collapse/fig3a --workers 2
"""

import argparse
import html
import importlib
import pkgutil
import signal
import sys
from concurrent.futures import BrokenExecutor
from pathlib import Path

import pandas as pd
from IPython import InteractiveShell
from IPython.display import display

from firststep import checks
from firststep.book import claims, code_version, lifetime, runs, sweep


def sweeps() -> dict[str, tuple]:
    """Every sweep of :mod:`firststep.book.runs`: its function, its points, perhaps its dtype; by name.

    Raises:
        ValueError: two modules give a sweep the same name.
    """
    found = {}
    for module in sorted(module.name for module in pkgutil.iter_modules(runs.__path__)):
        table = importlib.import_module(f"{runs.__name__}.{module}").SWEEPS
        checks.require(not found.keys() & table.keys(), "SWEEPS", sorted(found.keys() & table.keys()), "new names")
        found |= table
    return found


SWEEPS = sweeps()
CODE = {
    "today": "were recorded with today's code",
    "other": "were recorded with other code than today's; delete their files and run make results to repeat them",
    "unknown": "were recorded before code versions were kept",
}


def folder(name: str) -> Path:
    """Where the results of a sweep lie.

    Raises:
        ValueError: unknown name.
    """
    return claims.root() / "results" / checks.one_of("name", name, SWEEPS)


def load(name: str) -> pd.DataFrame:
    """The recorded runs of a sweep, one a row: a column for each parameter, each result, ``seconds`` and ``code``.

    ``code`` is a key of :data:`CODE`. If not all runs were recorded with today's code, that is shown on the page.

    Raises:
        ValueError: unknown name, a damaged file, or runs of the grid that are not recorded yet.
    """
    run, points, *_ = SWEEPS[checks.one_of("name", name, SWEEPS)]
    wanted = {sweep.key(point) for point in points}
    found = {sweep.key(r["parameters"]): r for r in sweep.load(folder(name))}
    if missing := len(wanted - set(found)):
        raise ValueError(f"results/{name} must hold every run of its grid, got {missing} missing: run make results")
    rows = [_row(found[one], code_version.version(run)) for one in wanted]
    table = pd.DataFrame(rows)
    order = [column for column in ("start", "gamma", "d", "samples", "seed", "depth") if column in table]
    table = table.astype({"gamma": float} if "gamma" in table else {}).sort_values(order, ignore_index=True)
    if set(table.code) != {"today"}:
        _show(f"results/{name}: {code_of(table)}.")
    return table


def _show(text: str) -> None:
    if InteractiveShell.initialized():
        display({"text/html": f'<p class="recorded">{html.escape(text)}</p>', "text/plain": text}, raw=True)
    else:
        print(text)


def _row(record: dict, today: str | None) -> dict:
    origin = record["provenance"]
    code = "unknown" if origin.get("code") is None else "today" if origin["code"] == today else "other"
    return {**record["parameters"], **record["result"], "seconds": origin["seconds"], "code": code}


def code_of(table: pd.DataFrame) -> str:
    """A sentence without its full stop that says which code a table's runs were recorded with."""
    return "; ".join(f"{n} of {len(table)} runs {CODE[code]}" for code, n in table.code.value_counts().items())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Compute the recorded runs that are missing in results/.")
    parser.add_argument("names", nargs="*", metavar="name", help=f"of {', '.join(SWEEPS)}; all if none is given")
    parser.add_argument("--workers", type=int, default=1, help="processes, one core each")
    parser.add_argument("--engine", choices=("joblib", "dask"), default="joblib", help="what runs them")
    parser.add_argument("--scheduler", help="address of a Dask scheduler, tcp://host:port; else Dask runs here")
    parser.add_argument("--retry", action="store_true", help="also run again what failed before")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Compute what is missing, then say of each sweep what there is.

    Returns:
        1 if runs failed, a process died, the disk is full, or no scheduler answers; 0 otherwise.
    """
    parser = _parser()
    chosen = parser.parse_args(arguments)
    if unknown := sorted(set(chosen.names) - set(SWEEPS)):
        parser.error(f"name must be one of {', '.join(SWEEPS)}, got {', '.join(unknown)}")
    options = {"workers": chosen.workers, "engine": chosen.engine, "scheduler": chosen.scheduler or None}
    failures = 0
    for name in chosen.names or SWEEPS:
        run, points, *dtype = SWEEPS[name]
        try:
            sweep.sweep(run, points, folder(name), retry=chosen.retry, dtype=next(iter(dtype), None), **options)
        except sweep.RunsFailed as error:
            print(f"{name}: {error}", file=sys.stderr)
            failures += 1
        except BrokenExecutor as error:
            print(f"{name}: {error} What was finished stays. ENGINE=dask goes on when a worker dies", file=sys.stderr)
            return 1
        except OSError as error:  # a disk that is full, a scheduler that does not answer: the next sweep has it too
            print(f"{name}: {error}; what was finished stays", file=sys.stderr)
            return 1
        else:
            rows = pd.DataFrame([_row(record, code_version.version(run)) for record in sweep.load(folder(name))])
            print(f"{name}: {code_of(rows)}")
    return int(failures > 0)


def command() -> None:
    """:func:`main` as a process of its own, which ends its workers however it is ended."""
    lifetime.end_with_make()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("stopped; what was finished stays", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    command()
