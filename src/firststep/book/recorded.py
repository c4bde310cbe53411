"""The long runs whose results the book shows: ``make results`` computes what is missing in ``results/``.

The runs and their grids are the modules of :mod:`firststep.book.runs`.

python -m firststep.book.recorded            # every sweep
python -m firststep.book.recorded rank_collapse/fig3a --workers 2
"""

import argparse
import importlib
import pkgutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from firststep import checks
from firststep.book import claims, runs, sweep
from firststep.book.runs.rank_collapse import (  # noqa: F401  (for pages that read the chains)
    INVARIANT,
    MEASURES,
    TAUS,
    WIDTHS,
    average,
    by_setting,
    depth_average,
    fresh,
    neighbour_correlation,
    regularity_constant,
)


def sweeps() -> dict[str, tuple[Callable[..., dict], list[dict]]]:
    """Every sweep of :mod:`firststep.book.runs`: its function and its points, by name.

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


def folder(name: str) -> Path:
    """Where the results of a sweep lie.

    Raises:
        ValueError: unknown name.
    """
    return claims.root() / "results" / checks.one_of("name", name, SWEEPS)


def load(name: str) -> pd.DataFrame:
    """The recorded runs of a sweep, one a row: a column for each parameter, each result, and ``seconds``.

    Raises:
        ValueError: unknown name, a damaged file, or runs of the grid that are not recorded yet.
    """
    wanted = {sweep.key(point) for point in SWEEPS[checks.one_of("name", name, SWEEPS)][1]}
    found = {sweep.key(r["parameters"]): r for r in sweep.load(folder(name))}
    if missing := len(wanted - set(found)):
        raise ValueError(f"results/{name} must hold every run of its grid, got {missing} missing: run make results")
    records = [found[one] for one in wanted]
    rows = [{**r["parameters"], **r["result"], "seconds": r["provenance"]["seconds"]} for r in records]
    table = pd.DataFrame(rows)
    order = [column for column in ("gamma", "d", "samples", "seed") if column in table]
    return table.astype({"gamma": float} if "gamma" in table else {}).sort_values(order, ignore_index=True)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Compute the recorded runs that are missing in results/.")
    parser.add_argument("names", nargs="*", metavar="name", help=f"of {', '.join(SWEEPS)}; all if none is given")
    parser.add_argument("--workers", type=int, default=1, help="processes, one core each")
    chosen = parser.parse_args(arguments)
    if unknown := sorted(set(chosen.names) - set(SWEEPS)):
        parser.error(f"name must be one of {', '.join(SWEEPS)}, got {', '.join(unknown)}")
    for name in chosen.names or SWEEPS:
        where = folder(name)
        run, points = SWEEPS[name]
        sweep.sweep(run, points, where, workers=chosen.workers)


if __name__ == "__main__":
    main()
