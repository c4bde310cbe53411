"""Executing the book's pages, several at a time, into the cache that the builder then reads.

The book's extension calls :func:`execute` before Sphinx reads the pages, so every build does the same. ``make book`` is

    python -m firststep.book.execute            # the whole book, strictly and from clean HTML

The longest pages start first, by the seconds that they took last. Pages that show the verdicts of others run when those
are known. A page that fails is named with its cell and its error; what the others computed stays in the cache.
"""

import hashlib
import importlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from time import perf_counter
from types import ModuleType

import yaml
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn, JupyterCacheAbstract
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from tqdm import tqdm
from traitlets.config import Config

from firststep import checks
from firststep.book import claims, lifetime

FAILURES = (CellExecutionError, CellTimeoutError, DeadKernelError)


@dataclass(frozen=True)
class Outcome:
    """One page that was run: its seconds, and how it failed if it did."""

    docname: str
    seconds: float
    error: str | None = None
    cells: dict[int, float] = field(default_factory=dict)  # seconds by position in the notebook


def prepared(root: Path, docname: str) -> NotebookNode:
    """A page as it is executed, from its file, with its key; see ``keyed`` in the book's extension."""
    return page_keys(root).keyed((root / f"{docname}.ipynb").read_text(encoding="utf-8"), root, docname)


def page_keys(root: Path) -> ModuleType:
    """The part of the book's extension that knows what a page depends on."""
    folder = str(root / "book" / "_extensions")
    if folder not in sys.path:
        sys.path.insert(0, folder)
    return importlib.import_module("firststep_book.page_keys")


def cache_of(root: Path) -> JupyterCacheAbstract:
    """The cache of executed pages, the one that the builder reads."""
    return get_cache(root / "_build" / ".jupyter_cache")


def executed(root: Path, docname: str) -> NotebookNode | None:
    """A page with the outputs of its last run as it stands now, ``None`` if it has not been run so."""
    try:
        return cache_of(root).merge_match_into_notebook(prepared(root, docname))[1]
    except KeyError:
        return None


def records_of(notebook: NotebookNode | None) -> list[claims.Record]:
    """The records that an executed page carries in its outputs."""
    cells = [] if notebook is None else notebook.cells
    found = [o.get("metadata", {}).get("firststep") for cell in cells for o in cell.get("outputs", [])]
    return [claims.Record.read(record) for record in found if record]


def fingerprint(root: Path, docname: str) -> str:
    """Hash of what a page depends on and of the records that its last run made."""
    key = prepared(root, docname).metadata.kernelspec.firststep_key
    made = [asdict(record) for record in records_of(executed(root, docname))]
    return hashlib.sha256(json.dumps([key, made]).encode()).hexdigest()


def publish(root: Path, docnames: Iterable[str]) -> dict[str, list[claims.Record]]:
    """Write the records that these pages carry to ``_build/verdicts``, and drop those that they do not make.

    Returns:
        The records by page. A notebook that was run by hand may have left others; they are replaced.
    """
    folder = root / "_build" / "verdicts"
    made = {docname: records_of(executed(root, docname)) for docname in docnames}
    for claim in claims.ledger(root / "book" / "claims.yml").values():
        if claim.page in made and claim.id not in {record.id for record in made[claim.page]}:
            (folder / f"{claim.id}.json").unlink(missing_ok=True)
    for records in made.values():
        for record in records:
            claims.write(record, folder)
    return made


def execute(root: Path, docnames: Sequence[str], *, workers: int) -> list[Outcome]:
    """Execute pages that are not in the cache yet, longest first; those that show verdicts after all others.

    Args:
        root: the checkout.
        docnames: pages of the book that are notebooks.
        workers: how many kernels run at a time.

    Returns:
        What was run. If a page failed, those that show verdicts are left for the next time.

    Raises:
        ValueError: no positive number of workers, or a page that settles claims lets a cell fail unseen.
    """
    checks.positive_integer("workers", workers)
    notebooks = {docname: prepared(root, docname) for docname in docnames}
    readers = [docname for docname in docnames if page_keys(root).shows_verdicts(notebooks[docname])]
    first = {docname: notebook for docname, notebook in notebooks.items() if docname not in readers}
    outcomes = _execute_missing(root, first, workers)
    publish(root, first)
    if not any(outcome.error for outcome in outcomes):  # the key of a reader holds the records, so it is made now
        outcomes += _execute_missing(root, {docname: prepared(root, docname) for docname in readers}, workers)
    return outcomes


def _execute_missing(root: Path, notebooks: dict[str, NotebookNode], workers: int) -> list[Outcome]:
    cache, took = cache_of(root), seconds_of_last_run(root)
    missing = {docname: notebook for docname, notebook in notebooks.items() if not _is_cached(cache, notebook)}
    # Of a page that was never run only its length is known; a line of code takes some tenths of a second.
    expected = {docname: took.get(docname, _lines(notebook) / 10) for docname, notebook in missing.items()}
    order = sorted(missing, key=expected.__getitem__, reverse=True)
    if not order:
        return []
    timeout = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))["execute"]["timeout"]
    layout = "{percentage:3.0f} %|{bar}| {desc}, {remaining} left"
    bar = tqdm(total=sum(expected.values()), disable=None, bar_format=layout, desc=f"0 of {len(order)} pages")
    outcomes = []
    with tempfile.TemporaryDirectory(prefix="fs-") as sockets, ThreadPoolExecutor(workers) as pool, bar:
        try:
            started = [
                pool.submit(_outcome, root, name, missing[name], f"{sockets}/{number}", timeout)
                for number, name in enumerate(order)
            ]
            for done in as_completed(started):
                outcome = done.result()
                outcomes.append(outcome)
                _keep(root, cache, missing[outcome.docname], outcome)
                bar.write(outcome.error or f"{outcome.docname}: {outcome.seconds:.0f} s", file=sys.stdout)
                sys.stdout.flush()
                bar.set_description_str(f"{len(outcomes)} of {len(order)} pages", refresh=False)
                bar.update(expected[outcome.docname])
        except KeyboardInterrupt:  # nobody who pressed Ctrl-C wants to wait for the pages under way
            shutil.rmtree(sockets, ignore_errors=True)
            os._exit(130)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    return outcomes


def _keep(root: Path, cache: JupyterCacheAbstract, notebook: NotebookNode, outcome: Outcome) -> None:
    if outcome.error is None:
        data = {"execution_seconds": outcome.seconds, "cell_seconds": outcome.cells}
        bundle = CacheBundleIn(notebook, _uri(root, outcome.docname), data=data)
        cache.cache_notebook_bundle(bundle, check_validity=False, overwrite=True)


def seconds_of_last_run(root: Path) -> dict[str, float]:
    """How long each page took when it was executed last, by docname."""
    records = sorted(cache_of(root).list_cache_records(), key=lambda record: record.created)
    seconds = {record.uri: (record.data or {}).get("execution_seconds") for record in records}
    known = {_docname(root, uri): value for uri, value in seconds.items() if value is not None}
    return {docname: value for docname, value in known.items() if docname is not None}


def cell_seconds(root: Path, docname: str) -> dict[int, float]:
    """How long each code cell of a page took in its last run as it stands now, by its position in the notebook."""
    try:
        data = cache_of(root).match_cache_notebook(prepared(root, docname)).data or {}
    except KeyError:
        return {}
    return {int(position): seconds for position, seconds in data.get("cell_seconds", {}).items()}


def _uri(root: Path, docname: str) -> str:
    return str(root.resolve() / f"{docname}.ipynb")


def _docname(root: Path, uri: str) -> str | None:
    path = Path(uri)
    return path.relative_to(root.resolve()).with_suffix("").as_posix() if path.is_relative_to(root.resolve()) else None


def _is_cached(cache: JupyterCacheAbstract, notebook: NotebookNode) -> bool:
    try:
        return cache.match_cache_notebook(notebook) is not None
    except KeyError:
        return False


def _lines(notebook: NotebookNode) -> int:
    return 1 + sum(cell.source.count("\n") + 1 for cell in notebook.cells if cell.cell_type == "code")


def _outcome(root: Path, docname: str, notebook: NotebookNode, socket: str, timeout: int) -> Outcome:
    started, error, begun = perf_counter(), None, []
    try:
        run(notebook, (root / docname).parent, socket, timeout, begun=begun)
    except FAILURES as failure:
        error = f"{docname}: code cell {len(begun)} of {_code_cells(notebook)}: {what(failure)}"
    took = {k: s for k, cell in enumerate(notebook.cells) if (s := _seconds(cell)) is not None}
    for cell in notebook.cells:  # the cache hashes what cells carry, so what was added here would hide the page from it
        cell.metadata.pop("execution", None)
    return Outcome(docname, perf_counter() - started, error, took)


def _seconds(cell: NotebookNode) -> float | None:
    """How long a cell that was just executed took, by the times that its kernel reported."""
    times = cell.metadata.get("execution", {})
    begin, end = times.get("iopub.execute_input"), times.get("shell.execute_reply")
    return (datetime.fromisoformat(end) - datetime.fromisoformat(begin)).total_seconds() if begin and end else None


def run(
    notebook: NotebookNode, folder: Path, socket: str, timeout: int, *, begun: list[int] | None = None, **variables: str
) -> None:
    """Execute a notebook in place, in a kernel that talks through local sockets: nothing listens on TCP.

    Args:
        notebook: gets its outputs.
        folder: working directory of the kernel.
        socket: beginning of the sockets' paths, which systems limit to about a hundred characters.
        timeout: seconds a cell.
        begun: gets the index of each cell that is begun.
        **variables: of the kernel's environment, on top of this process's.

    Raises:
        CellExecutionError: a cell raised.
        CellTimeoutError: a cell took longer than ``timeout``.
        DeadKernelError: the kernel died, of memory for example.
    """
    local = Config({"KernelManager": {"transport": "ipc", "ip": socket}})
    place = {"metadata": {"path": str(folder)}}
    client = NotebookClient(notebook, config=local, kernel_name="python3", timeout=timeout, resources=place)
    client.on_cell_execute = lambda cell, cell_index: None if begun is None else begun.append(cell_index)
    client.execute(env={"OMP_NUM_THREADS": "1", **os.environ, **variables})


def _code_cells(notebook: NotebookNode) -> int:
    return sum(cell.cell_type == "code" for cell in notebook.cells)


def what(failure: Exception) -> str:
    """One line for one of ``FAILURES``."""
    if isinstance(failure, CellExecutionError):
        return f"{failure.ename}: {failure.evalue}"
    return " ".join(str(failure).split())


def main() -> int:
    """Build the book strictly, from clean HTML; executed pages come from the cache, whose key holds their sources."""
    from jupyter_book.cli.main import main as jupyter_book  # heavy, and of the builder only

    root = claims.root()
    lifetime.end_with_make()
    try:
        lifetime.alone(root)
    except lifetime.AnotherBuild as error:
        print(error, file=sys.stderr)
        return 1
    # A page that was built with a warning must not pass unseen on the next run, so Sphinx always starts from clean.
    for folder in ("html", ".doctrees"):
        shutil.rmtree(root / "_build" / folder, ignore_errors=True)
    jupyter_book(["build", str(root), "--warningiserror", "--keep-going"], standalone_mode=False)
    for docname, seconds in sorted(seconds_of_last_run(root).items(), key=lambda item: -item[1])[:5]:
        print(f"{seconds:6.0f} s  {docname}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
