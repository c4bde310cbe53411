"""The book's own part of the build, so that ``jupyter-book build .`` alone gives the whole book.

1. A page's outputs are cached under a key that holds the modules of ``firststep`` that it can reach, the recorded
   results if it reads them, the lock, and the scale; so no output survives a change that could have changed it.
2. Verdicts travel in the outputs. Whether a page was run or came from the cache, its records end up in
   ``_build/verdicts``; a verdict that differs from its pin, or a claim whose page does not settle it, ends the build.
3. The role ``{claim}`` links a claim to the place where it is settled.
4. Explorables get the Vega bundle and the script that replays them, on the pages that have one, from this host;
   and what the theme would do wrong without a network or a server is put right.
"""

import ast
import hashlib
import json
import os
import posixpath
from contextlib import suppress
from pathlib import Path

import nbformat
import vl_convert
import yaml
from docutils import nodes
from jupyter_cache import get_cache
from sphinx.application import Sphinx
from sphinx.errors import SphinxError
from sphinx.util.docutils import SphinxRole

import firststep
from firststep import claims, scale

PACKAGE = Path(firststep.__file__).parent
VERDICT_READERS = ("book/7_ledger/ledger", "book/intro")  # they show what the other pages measured, so they run last


# 1. What a page can depend on ----------------------------------------------------------------------------


def modules_reached(source: str, package: Path = PACKAGE) -> set[str]:
    """Files of the package that code can reach by importing, directly or through other modules.

    An import inside a function counts too. Data files are not followed: :func:`page_key` adds them all.
    """
    found: set[str] = set()
    waiting = _imported(source, package)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting |= _imported((package / name).read_text(encoding="utf-8"), package)
    return found


def _imported(source: str, package: Path) -> set[str]:
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
    return files


def page_key(notebook: dict, root: Path, package: Path = PACKAGE, docname: str | None = None) -> str:
    """Hash of everything outside the notebook that its outputs can depend on.

    Verdict cards show the ledger's words, so the entries of a page belong to its key; without a ``docname`` all entries
    do. Pins do not: they are compared at build time.
    """
    code = "\n".join("".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code")
    plain = "\n".join(line for line in code.splitlines() if not line.lstrip().startswith(("%", "!")))
    reached = modules_reached(plain, package)
    files = [package / name for name in reached]
    files += sorted((root / "results").rglob("*.json")) if "recorded.py" in reached else []
    files += [f for f in sorted((package / "fashion_mnist").glob("*")) if f.is_file()]
    files += [root / "requirements.txt"]
    digest = hashlib.sha256(f"{scale.name()} {scale.device()}".encode())
    for file in sorted(files):
        digest.update(file.name.encode() + hashlib.sha256(file.read_bytes()).digest())
    for entry in yaml.safe_load((root / "book" / "claims.yml").read_text(encoding="utf-8"))["claims"]:
        if docname in (None, entry["page"]):
            digest.update(repr([(key, value) for key, value in entry.items() if key != "pinned"]).encode())
    return digest.hexdigest()


def put_key_into_kernelspec(app: Sphinx, docname: str, source: list[str]) -> None:
    """The execution cache hashes the code cells and the kernelspec, so the key goes there."""
    if not app.env.doc2path(docname).endswith(".ipynb"):
        return
    notebook = json.loads(source[0])
    key = page_key(notebook, Path(app.srcdir), docname=docname)
    notebook["metadata"].setdefault("kernelspec", {})["firststep_key"] = key
    app.env.firststep_keys[docname] = key
    source[0] = json.dumps(notebook)


def pages_whose_key_changed(app: Sphinx, env, added: set, changed: set, removed: set) -> list[str]:
    """Sphinx re-reads a page when its file changes; these are to be re-read although it did not."""
    if not hasattr(env, "firststep_keys"):
        env.firststep_keys = {}
    stale = []
    for docname in sorted(env.found_docs):  # a notebook run by hand may have left a record of another scale
        for record in verdicts_of(docname, app):
            claims.write(record)
    for docname, key in env.firststep_keys.items():
        path = Path(env.doc2path(docname))
        if not path.exists():
            continue
        notebook = json.loads(path.read_text(encoding="utf-8"))
        if page_key(notebook, Path(app.srcdir), docname=docname) != key:
            stale.append(docname)
    if stale or added or changed:
        stale += [name for name in VERDICT_READERS if name in env.found_docs]
    return stale


# 2. Verdicts ---------------------------------------------------------------------------------------------


def verdicts_of(docname: str, app: Sphinx) -> list[claims.Record]:
    """The records that an executed page carries in its outputs."""
    executed = Path(app.outdir).parent / "jupyter_execute" / f"{docname}.ipynb"
    if not executed.exists():
        return []
    notebook = nbformat.read(executed, as_version=4)
    if not any(cell.get("outputs") for cell in notebook.cells):
        notebook = _from_cache(notebook, Path(app.outdir).parent / ".jupyter_cache")
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    found = [output.get("metadata", {}).get("firststep") for output in outputs]
    return [claims.Record(**record) for record in found if record]


def _from_cache(notebook: nbformat.NotebookNode, folder: Path) -> nbformat.NotebookNode:
    """The notebook with its cached outputs: of a page that was not run again MyST-NB writes a copy without them."""
    if not folder.is_dir():
        return notebook
    with suppress(KeyError):  # a page without code is not cached
        return get_cache(folder).merge_match_into_notebook(notebook)[1]
    return notebook


def collect_verdicts(app: Sphinx, doctree) -> None:
    """Write the records of the page that was just read, and drop those that it no longer makes."""
    docname, folder = app.env.docname, claims.root() / "_build" / "verdicts"
    made = {record.id: record for record in verdicts_of(docname, app)}
    for claim in claims.ledger().values():
        if claim.id in made and claim.page != docname:
            raise SphinxError(f"{docname} settles {claim.id}, which book/claims.yml gives to {claim.page}")
        if claim.page == docname and claim.id not in made:
            (folder / f"{claim.id}.json").unlink(missing_ok=True)
    for record in made.values():
        claims.write(record)


def check_verdicts(app: Sphinx, env) -> None:
    """End the build where the book and its ledger disagree."""
    ledger = claims.ledger()
    found = {id: record for id, record in claims.records().items() if id in ledger}
    problems = claims.drift(ledger, found)
    for claim in ledger.values():
        if claim.page is not None and claim.page not in env.found_docs:
            problems.append(f"{claim.id}: its page {claim.page} does not exist")
        elif claim.page is not None and claim.id not in found:
            problems.append(f"{claim.id}: its page {claim.page} does not settle it")
    if problems:
        raise SphinxError("the ledger and the book disagree:\n  " + "\n  ".join(problems))


# 3. Links to claims --------------------------------------------------------------------------------------


class ClaimRole(SphinxRole):
    """``{claim}`full_rank.lemma1` ``: the id, linked to its verdict; a claim without a page stays unlinked."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        claim = claims.ledger().get(self.text)
        if claim is None:
            message = self.inliner.reporter.error(f"no claim {self.text!r} in book/claims.yml", line=self.lineno)
            return [nodes.problematic(self.rawtext, self.rawtext)], [message]
        name = nodes.literal(self.text, self.text)
        if claim.page is None:
            return [name], []
        here = posixpath.dirname(self.env.docname)
        return [nodes.reference("", "", name, refuri=f"{posixpath.relpath(claim.page, here)}.html#{claim.id}")], []


# 4. What the pages need in a browser ---------------------------------------------------------------------


def add_assets(app: Sphinx) -> None:
    os.environ["FIRSTSTEP_BUILD"] = "1"  # the kernels that run the pages inherit it
    folder = Path(app.outdir).parent / "firststep_assets"
    folder.mkdir(parents=True, exist_ok=True)
    bundle = vl_convert.javascript_bundle(snippet="window.firststepVega = { vegaEmbed };")
    # The bundle's top-level names would clash with the theme's, so they stay inside a function.
    (folder / "vega.js").write_text(f"(() => {{\n{bundle}\n}})();\n", encoding="utf-8")
    for asset in (PACKAGE / "assets").iterdir():
        (folder / asset.name).write_bytes(asset.read_bytes())
    app.config.html_static_path.append(str(folder))
    app.add_css_file("book.css")


def leave_thebe_out(app: Sphinx, config) -> None:
    """Jupyter Book always loads Thebe, which runs cells on other hosts; no page of this book has a button for it."""
    for event in ("env-before-read-docs", "doctree-resolved"):
        for listener in list(app.events.listeners[event]):
            if listener.handler.__module__ == "sphinx_thebe":
                app.disconnect(listener.id)


def add_scripts_and_icon(app: Sphinx, pagename: str, template: str, context: dict, doctree) -> None:
    context["favicon_url"] = context["pathto"]("_static/favicon.svg", resource=True)
    # The theme reports an error on a reader's first visit unless a mode is chosen before its script runs.
    app.add_js_file(None, body='document.documentElement.dataset.mode ||= "auto";')
    if pagename == "search":
        # A page opened as a file may not fetch the others, so its results come without excerpts.
        app.add_js_file(None, body='DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY &&= location.protocol !== "file:";')
    if '<section class="explorable"' in context.get("body", ""):
        app.add_js_file("vega.js", loading_method="defer")
        app.add_js_file("explore.js", loading_method="defer")


def setup(app: Sphinx) -> dict:
    app.add_role("claim", ClaimRole())
    app.connect("config-inited", leave_thebe_out)
    app.connect("builder-inited", add_assets)
    app.connect("env-get-outdated", pages_whose_key_changed)
    app.connect("source-read", put_key_into_kernelspec)
    app.connect("doctree-read", collect_verdicts)
    app.connect("env-updated", check_verdicts)
    app.connect("html-page-context", add_scripts_and_icon)
    return {"version": firststep.__version__, "parallel_read_safe": False, "parallel_write_safe": True}
