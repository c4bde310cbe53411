"""A rehearsal of the ``gpu`` scale on whatever device there is: every page at full size, with few repetitions.

    python -m firststep.book.rehearse                    # every page; make rehearse
    python -m firststep.book.rehearse book/imbalance/rate.ipynb

What came out is kept a page in ``results/rehearsal.json``, and as a table in ``results/rehearsal.md``.

Sizes (:func:`firststep.scale.pick`) are those of the ``gpu`` scale, repetitions (:func:`firststep.scale.count`) those
of ``smoke``. So a page that builds and runs here also builds and runs in full; what it needs is printed: seconds, the
largest memory, and what a full run would take on this device. That estimate multiplies the seconds of each cell by
gpu/smoke for every count that its most growing statement reaches, also through the functions it calls, as if counts
of one expression were nested; so it errs upwards.
"""

import argparse
import ast
import json
import math
import platform
import sys
import tempfile
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import nbformat
import numpy as np
import psutil
import torch
from tqdm import tqdm

from firststep import checks
from firststep.book import claims, execute, provenance

_PROLOGUE = """
import resource as _resource
import torch as _torch
_available = {available}
if _available and not _torch.cuda.is_available():  # of data: CUDA and V8 reserve addresses without using them
    _resource.setrlimit(_resource.RLIMIT_DATA, (_available, _available))
"""
_EPILOGUE = """
import json as _json
import sys as _sys
_unit = 1 if _sys.platform == "darwin" else 1024  # of ru_maxrss
print(_json.dumps({
    "ram": _resource.getrusage(_resource.RUSAGE_SELF).ru_maxrss * _unit,
    "gpu": _torch.cuda.max_memory_allocated() if _torch.cuda.is_available() else 0,
}))
"""


@dataclass(frozen=True)
class Rehearsal:
    """What one page needed.

    Attributes:
        page: path below the root of the checkout.
        seconds: of the rehearsal.
        full: seconds that a run of the ``gpu`` scale would take on this device, an upper estimate.
        ram: largest resident memory, in bytes.
        gpu: largest memory that torch allocated on the GPU, in bytes; 0 without one.
        error: the last line of the error that ended the page, or ``None``.
    """

    page: str
    seconds: float
    full: float
    ram: int
    gpu: int
    error: str | None


def pages(root: Path) -> list[Path]:
    """Notebooks that compute something at a scale of their own, in order of their paths."""
    found = sorted(path for path in (root / "book").rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts)
    return [path for path in found if "scale." in path.read_text(encoding="utf-8")]


def rehearse(path: Path, root: Path, *, available: int | None = None, timeout: int = 3_600) -> Rehearsal:
    """Run one page at the sizes of the ``gpu`` scale with the counts of ``smoke``.

    Args:
        path: a notebook.
        root: the checkout.
        available: bytes of data that the page may hold on the CPU; an array that does not fit is then an
            error at once instead of a machine that swaps. ``None`` sets no limit.
        timeout: seconds a cell.

    Raises:
        ValueError: no such notebook.
    """
    checks.require(path.is_file() and path.suffix == ".ipynb", "path", str(path), "a notebook")
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    factors = growth([cell.source for cell in code])
    first = nbformat.v4.new_code_cell(_PROLOGUE.format(available=available))
    notebook.cells = [first, *notebook.cells, nbformat.v4.new_code_cell(_EPILOGUE)]
    error, begun = None, []
    with tempfile.TemporaryDirectory(prefix="fs-") as sockets:
        variables = {"FIRSTSTEP_SCALE": "gpu", "FIRSTSTEP_REHEARSE": "1"}
        try:
            execute.run(notebook, path.parent, f"{sockets}/k", timeout, begun=begun, **variables)
        except execute.FAILURES as failure:
            error = f"code cell {len(begun) - 1}: {execute.what(failure)}"  # the first is ours
    seconds = [_seconds(cell) for cell in code]
    memory = json.loads(notebook.cells[-1].outputs[0].text) if error is None else {"ram": 0, "gpu": 0}
    full = sum(time * factor for time, factor in zip(seconds, factors, strict=True))
    return Rehearsal(path.relative_to(root).as_posix(), sum(seconds), full, **memory, error=error)


def growth(cells: list[str]) -> list[float]:
    """By what factor each cell of a page grows from a rehearsal to a full run, as an upper estimate.

    Args:
        cells: the sources of the page's code cells, in order.

    Returns:
        One factor a cell: that of the statement that grows most. A statement grows by the product of gpu/smoke over the
        counts that it reaches, directly or through functions and lambdas that the page defines; a loop by what its
        head reaches times what its body does. A count that is only given a name costs nothing where it is named.

    Raises:
        ValueError: a count whose numbers are not written out, so that they cannot be read without running the page.
    """
    trees = [ast.parse(_plain(cell)) for cell in cells]
    counts = {name: ratio for tree in trees for name, ratio in _named_counts(tree)}
    functions = {name: body for tree in trees for name, body in _definitions(tree)}

    def block(statements: list[ast.AST], seen: frozenset[str]) -> float:
        return max((statement(one, seen) for one in statements), default=1.0)

    def statement(node: ast.AST, seen: frozenset[str]) -> float:
        if _only_names(node):
            return 1.0
        blocks = [getattr(node, field) for field in ("body", "orelse", "finalbody") if _is_block(node, field)]
        inside = {inner for one in blocks for inner in one}
        head = [child for child in ast.iter_child_nodes(node) if child not in inside] if blocks else [node]
        return expression(head, seen) * max((block(one, seen) for one in blocks), default=1.0)

    def expression(nodes: list[ast.AST], seen: frozenset[str]) -> float:
        found = [inner for node in nodes for inner in ast.walk(node)]
        names = {inner.id for inner in found if isinstance(inner, ast.Name)} - seen
        direct = [ratio for inner in found if (ratio := _ratio(inner)) is not None]
        named = [counts[name] for name in names & set(counts)]
        called = [block(functions[name], seen | names) for name in names & set(functions)]
        return math.prod([*direct, *named, *called])

    return [block(tree.body, frozenset()) for tree in trees]


def _is_block(node: ast.AST, field: str) -> bool:
    """Whether that field of a node is a list of statements; the body of a lambda is an expression."""
    return isinstance(getattr(node, field, None), list)


def _plain(source: str) -> str:
    return "\n".join(line for line in source.splitlines() if not line.lstrip().startswith(("%", "!")))


def _ratio(node: ast.AST) -> float | None:
    """gpu/smoke of a call of ``scale.count``, of tuples the largest that can be; ``None`` for everything else."""
    if not (isinstance(node, ast.Call) and ast.unparse(node.func) == "scale.count"):
        return None
    try:
        values = {keyword.arg: np.atleast_1d(ast.literal_eval(keyword.value)) for keyword in node.keywords}
    except ValueError as error:
        raise ValueError(f"a count must be written out in numbers, got {ast.unparse(node)}") from error
    return float(values["gpu"].max() / values["smoke"].min())


def _named_counts(node: ast.AST):
    """Names that are given a count, with its ratio: ``seeds = scale.count(…)``, also in pairs and inside ``range``."""
    for assignment in ast.walk(node):
        if isinstance(assignment, ast.Assign) and _only_names(assignment):
            target, value = assignment.targets[0], assignment.value
            pairs = zip(target.elts, value.elts, strict=True) if _both_tuples(target, value) else [(target, value)]
            for name, given in pairs:
                ratios = [r for call in ast.walk(given) if (r := _ratio(call)) is not None]
                if isinstance(name, ast.Name) and ratios:
                    yield name.id, max(ratios)


def _only_names(node: ast.AST) -> bool:
    """Whether a statement defines a function, or gives a count a name and computes nothing."""
    if isinstance(node, ast.Assign) and not isinstance(node.value, ast.Lambda):
        calls = {ast.unparse(call.func) for call in ast.walk(node) if isinstance(call, ast.Call)}
        return calls <= {"scale.count", "scale.pick", "range", "inits.generators"}
    return isinstance(node, ast.FunctionDef | ast.Assign)


def _both_tuples(target: ast.AST, value: ast.AST) -> bool:
    return isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple) and len(target.elts) == len(value.elts)


def _definitions(tree: ast.AST):
    """Functions and lambdas by name, with what they do: a list of statements, or of one expression."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            yield node.name, node.body
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Lambda):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    yield target.id, [node.value.body]


def _seconds(cell: nbformat.NotebookNode) -> float:
    times = cell.metadata.get("execution", {})
    if "shell.execute_reply" not in times:
        return 0.0
    start, end = (datetime.fromisoformat(times[key]) for key in ("iopub.execute_input", "shell.execute_reply"))
    return (end - start).total_seconds()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Run every page at the sizes of the gpu scale, repeated once.")
    parser.add_argument("pages", nargs="*", type=Path, metavar="page", help="notebooks; all if none is given")
    chosen = parser.parse_args(arguments)
    root = claims.root()
    available = psutil.virtual_memory().available
    paths = [path.resolve() for path in chosen.pages] or pages(root)
    print(f"{'page':44s} {'seconds':>8s} {'RAM, GB':>8s} {'GPU, GB':>8s} {'full run, at most':>18s}")
    failed = False
    for path in tqdm(paths, unit="page", disable=None):
        found = rehearse(path, root, available=available)
        tqdm.write(line(found))
        failed |= found.error is not None
        if found.error is None:
            keep(found, root)
    return 1 if failed else 0


def keep(found: Rehearsal, root: Path) -> None:
    """Put a page into the results, in place of what was known of it, and drop pages that are no more."""
    file = root / "results" / "rehearsal.json"
    rows = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"one core of {platform.machine()}, no GPU"
    versions = ", ".join(f"{name} {version}" for name, version in provenance.versions().items())
    needs = {name: getattr(found, name) for name in ("seconds", "full", "ram", "gpu")}
    rows[found.page] = needs | {"measured": f"{device}; {versions}"}
    rows = {page: rows[page] for page in sorted(rows) if (root / page).is_file()}
    provenance.write_json(file, rows)
    file.with_suffix(".md").write_text(table(rows), encoding="utf-8")


def line(found: Rehearsal) -> str:
    """One row of the table that :func:`main` prints."""
    if found.error is not None:
        return f"{found.page:44s} {found.seconds:8.0f}  failed: {found.error}"
    memory = f"{found.ram / 1e9:8.1f} {found.gpu / 1e9:8.1f}"
    return f"{found.page:44s} {found.seconds:8.0f} {memory} {duration(found.full):>18s}"


def table(rows: dict[str, dict]) -> str:
    """All rows as Markdown, which the page ``reproduce`` includes, and what they were measured on."""
    head = "| page | rehearsal | memory | full run on this device, at most |\n|---|---:|---:|---:|\n"
    body = "".join(
        f"| {page.removeprefix('book/').removesuffix('.ipynb')} | {duration(row['seconds'])} "
        f"| {max(row['ram'], row['gpu']) / 1e9:.1f} GB | {duration(row['full'])} |\n"
        for page, row in rows.items()
    )
    total = [duration(sum(row[name] for row in rows.values())) for name in ("seconds", "full")]
    last = f"| all pages, one after the other | {total[0]} | | {total[1]} |\n"
    measured = "; and on ".join(sorted({row["measured"] for row in rows.values()}))
    return f"{head}{body}{last}\nMeasured by `make rehearse` on {measured}.\n"


def duration(seconds: float) -> str:
    """Seconds, minutes or hours, whichever reads best."""
    for size, unit in ((3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


if __name__ == "__main__":
    sys.exit(main())
