"""Executing the pages before Sphinx reads them, and which of them it has to read again."""

import json
import os
from pathlib import Path

import nbformat
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.errors import SphinxError

from firststep import scale
from firststep.book import execute, lifetime
from firststep_book.page_keys import keyed


def build_alone(app: Sphinx) -> None:
    """One build in a folder at a time, which ends with the ``make`` that started it."""
    os.environ["FIRSTSTEP_BUILD"] = "1"  # the kernels that run the pages inherit it
    lifetime.end_with_make()
    try:
        lifetime.alone(Path(app.srcdir))
    except lifetime.AnotherBuild as error:
        raise SphinxError(str(error)) from None


def execute_and_find_stale(
    app: Sphinx, env: BuildEnvironment, added: set[str], changed: set[str], removed: set[str]
) -> list[str]:
    """Execute what is not in the cache; Sphinx re-reads a page when its file changes, these although it did not."""
    root = Path(app.srcdir)
    notebooks = sorted(name for name in env.found_docs if env.doc2path(name).endswith(".ipynb"))
    try:
        outcomes = execute.execute(root, notebooks, workers=scale.workers())
    except ValueError as error:
        raise SphinxError(str(error)) from error
    if failed := [outcome for outcome in outcomes if outcome.error]:
        sentences = "\n  ".join(outcome.error for outcome in failed)
        raise SphinxError(f"{len(failed)} of the pages failed; the results of the others are kept:\n  {sentences}")
    shown = getattr(env, "firststep_shown", {})  # what each page showed when it was read last
    env.firststep_shown = {name: execute.fingerprint(root, name) for name in notebooks}
    return [name for name in notebooks if shown.get(name) != env.firststep_shown[name]]


def put_key_into_kernelspec(app: Sphinx, docname: str, source: list[str]) -> None:
    """The execution cache hashes the code cells and the kernelspec, so the key goes there; outputs go out."""
    if app.env.doc2path(docname).endswith(".ipynb"):
        notebook = keyed(source[0], Path(app.srcdir), docname)
        source[0] = json.dumps(nbformat.from_dict(notebook))
