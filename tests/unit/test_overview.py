"""Tiles, bars, tables and filters say what the records say."""

import json
import re
from dataclasses import replace
from html import unescape

import pytest

from firststep.book import claims, overview
from firststep.book.evidence import below

MET = below("error", 0.1, 1)
RECORD = claims.Record(
    id="toy.algebra", verdict="holds", prediction="p", rows={"printed": [MET]}, criterion="c", no_control="k",
    repair=None, reduced=None, undecided=None, scale="cpu", dtype="float64", seeds="0", seconds=1.5, versions={},
)  # fmt: skip
LEDGER = """
papers:
  toy: {title: A paper on toys, authors: us, year: 2000, chapter: book/toy/index, key: null}
  later: {title: Later, authors: us, year: null, chapter: book/later/index, key: null}
claims:
  - {id: toy.algebra, title: "Algebra of $a < b$", locator: "Eq. (1) <b>", statement: s, criterion: c,
     page: book/toy/page, needs: smoke, pinned: null}
  - {id: toy.training, title: Training, locator: new, statement: s, criterion: c, page: book/toy/page,
     needs: cpu, pinned: null}
  - {id: toy.large, title: Large, locator: new, statement: s, criterion: c, page: null, needs: gpu, pinned: null}
  - {id: later.last, title: Last, locator: new, statement: s, criterion: c, page: null, needs: gpu, pinned: null}
"""
RECORDS = {"toy.algebra": RECORD, "toy.training": replace(RECORD, id="toy.training", verdict="refuted")}


@pytest.fixture(autouse=True)
def book(tmp_path, clean_environment):
    (tmp_path / "book" / "toy").mkdir(parents=True)
    (tmp_path / "book" / "claims.yml").write_text(LEDGER, encoding="utf-8")
    (tmp_path / "book" / "toy" / "index.md").write_text(
        "# Toys\n\n*Do toys & dolls work?*\n\nText.\n", encoding="utf-8"
    )
    clean_environment.chdir(tmp_path)
    claims.ledger.cache_clear()
    yield tmp_path
    claims.ledger.cache_clear()


def here(page):
    return f"../{page}.html"


def test_verdicts_are_counted_best_first_and_what_is_missing_is_open():
    assert list(overview.counted(claims.ledger().values(), RECORDS).items()) == [
        ("holds", 1),
        ("refuted", 1),
        ("open", 2),
    ]


def test_a_tile_asks_the_question_of_a_chapter_that_stands_in_the_book():
    markup = overview.tiles(RECORDS, here)
    assert markup.count("<li>") == 1
    assert '<a href="../book/toy/index.html">Toys</a><p>Do toys &amp; dolls work?</p>' in markup
    assert "1 holds · 1 refuted · 1 not settled yet" in markup


def test_the_parts_of_a_bar_are_as_long_as_their_counts():
    assert re.findall(r'class="(\w+)" style="flex: (\d+)"', overview.bar({"holds": 3, "refuted": 1})) == [
        ("holds", "3"),
        ("refuted", "1"),
    ]


def test_every_verdict_is_explained_with_its_count():
    items = re.findall(r"<dt>.*?</span> (\d+)</dt><dd>(.*?)</dd>", overview.meanings({"refuted": 4}))
    assert {words: n for n, words in items}[claims.VERDICTS["refuted"]] == "4"
    assert len(items) == len(claims.VERDICTS) + 1


def test_an_index_that_asks_nothing_is_an_error(book):
    (book / "book" / "toy" / "index.md").write_text("# Toys\n\nText.\n", encoding="utf-8")
    with pytest.raises(ValueError, match="chapter"):
        overview.question("toy")


def test_a_table_has_a_row_with_marks_for_every_claim():
    markup = overview.table(claims.ledger().values(), RECORDS, here)
    assert re.findall(r'data-paper="(\w+)" data-is="(\w+)"', markup) == [
        ("toy", "holds"), ("toy", "refuted"), ("toy", "open"), ("later", "open"),
    ]  # fmt: skip
    assert claims.marks("toy.algebra", RECORD) in markup
    assert claims.marks("toy.large", None) in markup
    assert 'href="../book/toy/page.html#toy.algebra"' in markup
    assert "Eq. (1) &lt;b&gt;" in markup
    assert "1 of 1 rows met · cpu,\u00a02\u00a0s" in markup


def test_a_table_with_names_says_where_a_claim_is_settled():
    markup = overview.table(claims.ledger().values(), RECORDS, here, {"book/toy/page": "The page"})
    assert '<a href="../book/toy/page.html">The page</a>' in markup
    assert "rows met" not in markup


def test_the_counts_of_the_filters_add_up_to_all_claims():
    markup = overview.filters(claims.ledger().values(), RECORDS)
    counts = {}
    for group in re.findall(r'data-filter="(\w+)">(.*?)</div>', markup):
        counts[group[0]] = dict(re.findall(r'data-value="(\w*)".*?<small>(\d+)</small>', group[1]))
    assert counts == {
        "is": {"": "4", "holds": "1", "refuted": "1", "open": "2"},
        "paper": {"": "4", "toy": "3", "later": "1"},
    }


def test_the_landscape_carries_its_setting_and_stays_hidden_without_its_script():
    markup = overview.landscape(eta=0.1, steps=400, starts={"<odd>": (1, 0.99)})
    setting = json.loads(unescape(re.search(r'data-setting="([^"]+)"', markup)[1]))
    assert (setting["eta"], setting["steps"], set(setting["colors"])) == (0.1, 400, set(overview.FATES))
    assert 'data-to="1,0.99">(1, 0.99) &lt;odd&gt;</button>' in markup
    assert re.match(r"<section [^>]*\bhidden>", markup)
