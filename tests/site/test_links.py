"""Every link inside the book leads somewhere, down to the heading, equation or verdict that it names."""

import json
from pathlib import Path

import built_book
import pytest

pytestmark = pytest.mark.site


def broken_links(site: Path, page: str) -> list[str]:
    broken = []
    for link in built_book.document(site / page).links:
        path, anchor = built_book.target(page, link)
        file = site / path
        if path.startswith("..") or not file.is_file():
            broken.append(f"{link}: no such file")
        elif anchor and file.suffix == ".html" and anchor not in built_book.document(file).anchors:
            broken.append(f"{link}: no such place on that page")
    return broken


def test_every_internal_link_has_a_target(site: Path, page: str):
    assert broken_links(site, page) == []


def test_the_address_of_the_book_leads_to_a_page(site: Path):
    assert broken_links(site, "index.html") == []


@pytest.mark.pages_with('<section class="verdict ')
def test_every_verdict_can_be_linked_to(site: Path, page: str):
    cards = [a for _, a in built_book.document(site / page).elements if "verdict" in a.get("class", "").split()]
    assert cards
    assert all("." in card["id"] for card in cards)
    assert len({card["id"] for card in cards}) == len(cards)


def test_a_missing_file_and_a_missing_place_are_seen(tmp_path: Path):
    (tmp_path / "a.html").write_text('<a href="b.html">b</a> <a href="#x">x</a> <a href="#y">y</a> <p id="y"></p>')
    assert broken_links(tmp_path, "a.html") == ["b.html: no such file", "#x: no such place on that page"]


@pytest.mark.pages_with("btn-download-source-button")
def test_the_download_button_gives_the_source_of_the_page(site: Path, page: str):
    elements = built_book.document(site / page).elements
    offered = [a["href"] for tag, a in elements if tag == "a" and "btn-download-source-button" in a.get("class", "")]
    files = [site / built_book.target(page, link)[0] for link in offered]
    assert [file.stem for file in files] == [Path(page).stem]
    assert files[0].is_file()
    if files[0].suffix == ".ipynb":
        cells = json.loads(files[0].read_text(encoding="utf-8"))["cells"]
        assert any(cell["cell_type"] == "code" for cell in cells)
