"""What the outputs of a page can depend on, as a key of the execution cache.

The key holds the modules of ``firststep`` that a page can reach, the recorded results if it reads them, the records of
the verdicts if it shows them, the lock, and the scale; so no output survives a change that could have changed it.
"""

import ast
import hashlib
import re
from functools import cache
from pathlib import Path

import nbformat
import yaml
from nbformat import NotebookNode

import firststep
from firststep import scale

PACKAGE = Path(firststep.__file__).parent


def modules_reached(source: str, package: Path = PACKAGE) -> set[str]:
    """Files of the package that code can reach by importing, directly or through other modules.

    An import inside a function counts too. Data files are not followed: :func:`page_key` adds them all.
    """
    found: set[str] = set()
    waiting = set(_imported(source, package))
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting |= _imported((package / name).read_text(encoding="utf-8"), package)
    return found


@cache
def _imported(source: str, package: Path) -> frozenset[str]:
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    files = set()
    for name in names:
        parts = name.split(".")
        if parts[0] != "firststep":
            continue
        for depth in range(1, len(parts) + 1):  # importing a.b.c runs a and a.b first
            stem = "/".join(parts[1:depth])
            files |= {f for f in (f"{stem}.py", f"{stem}/__init__.py".lstrip("/")) if (package / f).is_file()}
    return frozenset(files)


def code_of(notebook: dict) -> str:
    """The Python of a notebook, without magics."""
    code = "\n".join("".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code")
    return "\n".join(line for line in code.splitlines() if not line.lstrip().startswith(("%", "!")))


def shows_verdicts(notebook: dict) -> bool:
    """Whether a page reads what the other pages measured, so that it has to run after them."""
    return "claims.records(" in code_of(notebook)


def page_key(notebook: dict, root: Path, package: Path = PACKAGE, docname: str | None = None) -> str:
    """Hash of everything outside the notebook that its outputs can depend on.

    Verdict cards show the ledger's words, so the entries of a page belong to its key; without a ``docname``, and for a
    page that shows the verdicts of others, all entries do. Pins do not: they are compared at build time.
    """
    code, reader = code_of(notebook), shows_verdicts(notebook)
    reached = modules_reached(code, package)
    if "book/recorded.py" in reached:  # it finds the modules of runs by itself
        reached |= modules_reached("\n".join(f"import {name}" for name in _modules_of_runs(code, package)), package)
    files = [package / name for name in reached]
    files += _recorded_runs(code, root) if "book/recorded.py" in reached else []
    files += (root / "_build" / "verdicts").glob("*.json") if reader else []
    files += [f for f in (package / "fashion_mnist").glob("*") if f.is_file()]
    files += [root / "requirements.txt"]
    digest = hashlib.sha256(f"{scale.name()} {scale.device()}".encode())
    ledger = _ledger((root / "book" / "claims.yml").read_text(encoding="utf-8"))
    if reader:  # it names the chapters and asks their questions
        chapters = [root / f"{paper['chapter']}.md" for paper in ledger["papers"].values()]
        files += [path for path in chapters if path.is_file()]
        digest.update(repr(ledger["papers"]).encode())
    for file in sorted(files):
        digest.update(file.name.encode() + hashlib.sha256(file.read_bytes()).digest())
    for entry in ledger["claims"]:
        if reader or docname in (None, entry["page"]):
            digest.update(repr([(key, value) for key, value in entry.items() if key != "pinned"]).encode())
    return digest.hexdigest()


@cache
def _ledger(text: str) -> dict:
    """The ledger. A build asks for it several times a page; parsing it each time took most of the builder's time."""
    return yaml.safe_load(text)


def _recorded_runs(code: str, root: Path) -> list[Path]:
    """The results of the sweeps that a page names, such as ``results/rank_collapse/fig3a``."""
    named = set(re.findall(r"[\w.-]+", code))
    return [path for path in (root / "results").glob("*/*/*.json") if path.parent.name in named]


def _modules_of_runs(code: str, package: Path) -> list[str]:
    """The modules of runs that have a sweep which a page names."""
    named = set(re.findall(r"[\w.-]+", code))
    files = sorted((package / "book" / "runs").glob("*.py"))
    made = {path.stem: re.findall(r'"[\w.-]+/([\w.-]+)"', path.read_text(encoding="utf-8")) for path in files}
    return [f"firststep.book.runs.{module}" for module, sweeps in made.items() if named.intersection(sweeps)]


def keyed(text: str, root: Path, docname: str) -> NotebookNode:
    """A notebook as it is executed: without what its file carries, and with its key where the cache looks for it.

    The cache hashes the code cells and the kernelspec. Outputs that somebody saved must never count as measured.

    Args:
        text: what the file holds.
        root: the checkout.
        docname: the page's name in the book.

    Raises:
        ValueError: a page that settles claims lets a cell, or all of them, fail unseen.
    """
    notebook = nbformat.reads(text, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
            cell.metadata.pop("execution", None)
    notebook.metadata.pop("widgets", None)
    _refuse_unseen_failures(notebook, docname)
    notebook.metadata.setdefault("kernelspec", {})["firststep_key"] = page_key(notebook, root, docname=docname)
    return notebook


def _refuse_unseen_failures(notebook: NotebookNode, docname: str) -> None:
    if "settle(" not in code_of(notebook):
        return
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for number, cell in enumerate(code, start=1):
        if "raises-exception" in cell.metadata.get("tags", []):
            raise ValueError(
                f"{docname}: code cell {number} must not be tagged raises-exception: the page settles claims"
            )
    for key in ("execution", "mystnb"):
        if key in notebook.metadata:
            raise ValueError(f"{docname}: no metadata {key!r} may change how it is executed: the page settles claims")
