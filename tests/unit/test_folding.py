"""The form of a page: opener in front, code folded where it stands or kept in the drawer, the lead's output first."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from docutils import nodes

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "book" / "_extensions"))  # as Sphinx does
from firststep_book import folding  # noqa: E402

from firststep.book import claims, execute  # noqa: E402

APP = SimpleNamespace(srcdir=str(ROOT), builder=SimpleNamespace(format="html"))
FIGURE = '<figure><svg viewBox="0 0 10 5"><g id="f3-figure_1"></g></svg></figure>'


def cell(index, source, output=None, tags=()):
    parts = [nodes.container("", nodes.literal_block(source, source), classes=["cell_input"])]
    if output is not None:
        parts.append(nodes.container("", nodes.raw("", output, format="html"), classes=["cell_output"]))
    given = {"nb_element": "cell_code", "cell_index": index, "cell_metadata": {"tags": list(tags)}}
    return nodes.container("", *parts, classes=["cell"], **given)


def paragraph(text, kind=nodes.Text):
    return nodes.paragraph("", "", kind(text) if kind is nodes.Text else kind("", text))


@pytest.fixture
def page(monkeypatch):
    """A page with everything a page has, rearranged; its top section."""
    claim = claims.Claim("toy.one", "One", "new", "s", "c", "book/toy", "smoke", None)
    monkeypatch.setattr(claims, "ledger", lambda: {"toy.one": claim})
    monkeypatch.setattr(claims, "records", lambda: {})
    monkeypatch.setattr(execute, "cell_seconds", lambda root, docname: {2: 7.6, 3: 0.2})
    parts = nodes.title("", "In one number"), paragraph("42"), paragraph("of something")
    headline = nodes.admonition("", *parts, classes=["headline"])
    listed = nodes.admonition("", nodes.title("", "Claims on this page"), paragraph("one"))
    setting = nodes.section("", nodes.title("", "Setting"), ids=["setting"])
    setting += [
        cell(2, "# Draw many nets\nx = 1\n\ny = 2"),
        cell(3, "# Draw the figure\nshow()", FIGURE, ["lead"]),
        cell(4, "# State the bound\nbound = 2", tags=["open"]),
        cell(5, "settle()", "<section>card</section>"),
    ]
    top = nodes.section("", nodes.title("", "Title"), paragraph("Why?", nodes.emphasis), paragraph("In short."))
    top += [headline, listed, cell(1, "import torch"), setting]
    document = SimpleNamespace(findall=top.findall)
    folding.rearrange(APP, document, "book/toy")
    return top


def text(node):
    return "\n".join(part.astext() for part in node.findall(nodes.raw))


def test_the_opener_follows_the_question_with_verdicts_number_and_small_figure(page):
    assert [type(node).__name__ for node in page[:4]] == ["title", "paragraph", "container", "paragraph"]
    opener = page[2]
    assert opener["classes"] == ["opener", "parts-3"]
    assert 'href="#toy.one"' in opener[0].astext() and 'data-verdict="open"' in opener[0].astext()
    assert opener[1].astext().startswith("42")
    assert '<svg viewBox="0 0 10 5"' in opener[2].astext() and 'href="#f3-figure_1"' in opener[2].astext()


def test_the_list_of_claims_that_a_notebook_shows_is_the_opener_s_now(page):
    assert not list(page.findall(nodes.admonition))


def test_the_lead_follows_the_summary_and_is_shown_once(page):
    assert page[3].astext() == "In short."
    assert "lead" in page[4]["classes"]
    assert text(page).count(FIGURE) == 1


def test_code_with_a_comment_folds_to_it_with_its_length_and_the_seconds_that_a_reader_would_notice(page):
    folded = text(page)
    assert "<summary>Draw many nets <small>· 2 lines · 8 s</small></summary>" in folded
    assert "<summary>Draw the figure <small>· 1 line</small></summary>" in folded


def test_an_open_cell_stays_as_it_is(page):
    (setting,) = (node for node in page if "setting" in node.get("ids", ()))
    assert "State the bound" not in text(setting)
    assert "bound = 2" in setting.astext()


def test_machinery_goes_to_the_drawer_at_the_end_and_its_output_stays(page):
    assert "Imports, numbers in the text, verdicts <small>· 2 cells · 2 lines</small>" in page[-4].astext()
    assert [node.astext() for node in page[-3:-1]] == ["import torch", "settle()"]
    (setting,) = (node for node in page if "setting" in node.get("ids", ()))
    assert "<section>card</section>" in text(setting)


@pytest.mark.parametrize("source, words", [
    ("# Fit the slope\nx", "Fit the slope"), ("\n# Fit\nx", "Fit"), ("x = 1  # not first", None), ("#!magic", None),
    ("", None),
])  # fmt: skip
def test_a_cell_is_named_by_its_first_line(source, words):
    assert folding.label(source) == words


def test_words_of_a_comment_are_escaped():
    assert folding.summary("rank <b>", "# rank <b>\nx", None).startswith("rank &lt;b&gt; <small>")
