"""Pages are executed several at a time, kept one by one, and only what was executed counts."""

import json
from pathlib import Path

import nbformat
import pytest

from firststep.book import claims, execute

pytestmark = pytest.mark.usefixtures("clean_environment")
ROOT = Path(__file__).parents[2]
ENTRY = {
    "title": "Toy", "locator": "new", "statement": "s", "criterion": "c", "needs": "smoke", "pinned": "holds",
}  # fmt: skip
SETTLE = """
from firststep.book.claims import settle
from firststep.book.evidence import equal
settle("{id}", prediction="p", printed=[equal("it", {printed:d}, 1)], no_control="toy", seeds="0", dtype="f")
"""


@pytest.fixture
def book(tmp_path, clean_environment):
    """A checkout of a book with two claims, in a folder whose name has a space and an umlaut."""
    root = tmp_path / "ein Büchlein"
    (root / "book").mkdir(parents=True)
    (root / "book" / "_extensions").symlink_to(ROOT / "book" / "_extensions")
    entries = [{"id": f"toy.{id}", "page": f"book/{id}"} | ENTRY for id in ("one", "two")]
    (root / "book" / "claims.yml").write_text(json.dumps({"papers": {}, "claims": entries}), encoding="utf-8")
    (root / "_config.yml").write_text("execute:\n  timeout: 60\n", encoding="utf-8")
    (root / "requirements.txt").write_text("", encoding="utf-8")
    clean_environment.chdir(root)
    claims.ledger.cache_clear()
    yield root
    claims.ledger.cache_clear()


def write(root, docname, *cells, outputs=()):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    notebook.cells[-1].outputs = list(outputs)
    nbformat.write(notebook, root / f"{docname}.ipynb")
    return docname


def seen(root):
    return {id: record.verdict for id, record in claims.records(root / "_build" / "verdicts").items()}


def test_pages_run_once_and_again_only_when_they_change(book):
    pages = [write(book, "book/one", SETTLE.format(id="toy.one", printed=True)), write(book, "book/two", "1 + 1")]
    assert {outcome.docname for outcome in execute.execute(book, pages, workers=2)} == set(pages)
    assert execute.execute(book, pages, workers=2) == []
    write(book, "book/two", "1 + 2")
    assert [outcome.docname for outcome in execute.execute(book, pages, workers=2)] == ["book/two"]
    assert execute.executed(book, "book/two").cells[0].outputs[0].data["text/plain"] == "3"
    assert set(execute.seconds_of_last_run(book)) == set(pages)


def test_a_page_that_fails_is_named_with_its_cell_and_the_others_are_kept(book):
    good, bad = write(book, "book/one", "1 + 1"), write(book, "book/two", "x = 1", "x / 0", "x")
    reader = write(book, "book/three", "from firststep.book import claims\nlen(claims.records())")
    outcomes = {o.docname: o for o in execute.execute(book, [bad, good, reader], workers=2)}
    assert outcomes[bad].error == "book/two: code cell 2 of 3: ZeroDivisionError: division by zero"
    assert outcomes[good].error is None and execute.executed(book, good) is not None
    assert reader not in outcomes and execute.executed(book, bad) is None


def test_a_page_whose_kernel_dies_is_named(book):
    page = write(book, "book/one", "1", "import os; os._exit(1)")
    (outcome,) = execute.execute(book, [page], workers=1)
    assert outcome.error.startswith("book/one: code cell 2 of 2: ")


def test_pages_that_show_verdicts_run_last_and_again_when_a_verdict_changes(book):
    reader = write(
        book, "book/a", "from firststep.book import claims\nprint([r.verdict for r in claims.records().values()])"
    )
    one = write(book, "book/one", SETTLE.format(id="toy.one", printed=True))
    assert [o.docname for o in execute.execute(book, [reader, one], workers=2)] == [one, reader]
    assert "['holds']" in execute.executed(book, reader).cells[0].outputs[0].text
    write(book, "book/one", SETTLE.format(id="toy.one", printed=False))
    assert [o.docname for o in execute.execute(book, [reader, one], workers=2)] == [one, reader]
    assert "['refuted']" in execute.executed(book, reader).cells[0].outputs[0].text


def test_outputs_that_a_reader_saved_are_not_what_was_measured(book):
    """A reader saves a page that holds; then its check comes out otherwise. Twice, since a second build once passed."""
    page = write(book, "book/one", SETTLE.format(id="toy.one", printed=True))
    execute.execute(book, [page], workers=1)
    saved = execute.executed(book, page).cells[0].outputs
    write(book, page, SETTLE.format(id="toy.one", printed=False), outputs=saved)
    for _ in range(2):
        execute.execute(book, [page], workers=1)
        assert seen(book) == {"toy.one": "refuted"}
        assert [r.verdict for r in execute.records_of(execute.executed(book, page))] == ["refuted"]


def test_a_record_that_somebody_left_by_running_the_page_at_another_scale_is_replaced(book, monkeypatch):
    page = write(book, "book/one", SETTLE.format(id="toy.one", printed=True))
    execute.execute(book, [page], workers=1)
    kept = claims.records(book / "_build" / "verdicts")
    claims.write(kept["toy.one"].__class__(**{**vars(kept["toy.one"]), "scale": "smoke"}))
    claims.write(kept["toy.one"].__class__(**{**vars(kept["toy.one"]), "id": "toy.two"}))
    write(book, "book/two", "1")
    execute.execute(book, [page, "book/two"], workers=1)
    assert claims.records(book / "_build" / "verdicts") == kept


def test_a_claim_that_a_page_settles_twice_ends_the_page(book, monkeypatch):
    monkeypatch.setenv("FIRSTSTEP_BUILD", "1")
    twice = [SETTLE.format(id="toy.one", printed=printed) for printed in (False, True)]
    (outcome,) = execute.execute(book, [write(book, "book/one", *twice)], workers=1)
    assert "code cell 2 of 2: ValueError: id must be settled once" in outcome.error


def test_kernels_listen_on_no_port(book):
    code = "from ipykernel.kernelapp import IPKernelApp\nIPKernelApp.instance().transport"
    page = write(book, "book/one", code)
    execute.execute(book, [page], workers=1)
    assert execute.executed(book, page).cells[0].outputs[0].data["text/plain"] == "'ipc'"


@pytest.mark.parametrize("workers", [0, -1, 1.5])
def test_a_number_of_workers_that_is_none_is_named(book, workers):
    with pytest.raises(ValueError, match="workers"):
        execute.execute(book, [], workers=workers)
