"""Every page as a reader meets it: from a server and from the disk, on a desk and on a phone, by day and by night."""

import json
from pathlib import Path

import built_book
import pytest
from conftest import DESKTOP

pytestmark = pytest.mark.site

# Console errors that are known and harmless, each with its reason. There are none.
EXPLAINED: dict[str, str] = {}

PHONE = {"width": 390, "height": 844}
READABLE = 4.5  # contrast of text with what lies behind it: WCAG 2.1, criterion 1.4.3
VISIBLE = 2.0  # contrast of a figure's letters, which may have the colour of a curve


def unexplained(errors: list[str]) -> list[str]:
    return [error for error in errors if not any(known in error for known in EXPLAINED)]


def test_the_book_has_what_these_tests_are_about(site: Path):
    for name in ("math", 'firststep"', 'explorable"', "verdict ", "cell_output"):
        assert built_book.pages_with(site, f'class="{name}'), name


# Loading ---------------------------------------------------------------------------------------------------


def test_nothing_is_asked_of_another_host(visit):
    assert visit.asked == []


def test_everything_that_a_page_asks_for_is_in_the_book(visit):
    assert visit.missing == []


def test_the_console_shows_no_error(visit):
    assert unexplained(visit.errors) == []


def test_a_request_to_another_host_is_refused_and_seen(start):
    start.page.evaluate("fetch('https://example.org/').catch(() => 'refused')")
    assert start.asked == ["https://example.org/"]
    assert start.errors


# Content ---------------------------------------------------------------------------------------------------


@pytest.mark.pages_with('class="math')
def test_all_mathematics_is_typeset(visit):
    found = visit.probe("mathematics")
    assert found["formulas"] > 0
    assert found["bare"] == []
    assert found["errors"] == []


@pytest.mark.served
def test_no_markup_is_left_in_the_text(visit):
    assert visit.probe("leftovers") == []


@pytest.mark.served
@pytest.mark.pages_with('class="cell_output')
def test_no_output_is_an_error_or_the_name_of_an_object(visit):
    found = visit.probe("outputs")
    assert found["count"] > 0
    assert found["bad"] == []


@pytest.mark.served
def test_no_control_stands_outside_an_explorable(visit):
    """Those inside are tested one by one; any other would have no kernel to answer it."""
    assert visit.probe("loneControls") == []


@pytest.mark.served
def test_every_picture_says_in_words_what_it_shows(visit):
    assert [found for found in visit.probe("pictures") if len(found["words"].split()) < 4] == []


# Light and dark --------------------------------------------------------------------------------------------


def switch_to(visit, theme: str) -> None:
    """Press the theme's own switch, which has three positions, until the page is light or dark."""
    for _ in range(3):
        if visit.page.evaluate("document.documentElement.dataset.mode") == theme:
            break
        visit.page.locator(".theme-switch-button").first.click()
    assert visit.page.evaluate("document.documentElement.dataset.theme") == theme


@pytest.mark.served
@pytest.mark.parametrize("theme", ["dark", "light"])
def test_text_can_be_read_by_day_and_by_night(visit, theme: str):
    switch_to(visit, theme)
    assert visit.probe("faintText", READABLE) == []


@pytest.mark.served
@pytest.mark.pages_with("<svg")
def test_the_ink_of_figures_follows_the_page(visit):
    inks = {}
    for theme in ("dark", "light"):
        switch_to(visit, theme)
        found = visit.probe("ink")
        assert [letter for letter in found["letters"] if letter["contrast"] < VISIBLE] == [], theme
        assert found["pure"] == [], "one of the two pages swallows a shape of pure white or black"
        inks[theme] = {letter["fill"] for letter in found["letters"] if letter["follows"]}
    lettered = visit.page.locator("figure.firststep, section.explorable").count() > 0  # a drawing of arrows is not
    assert len(inks["dark"]) == len(inks["light"]) == lettered
    assert inks["dark"] != inks["light"] or not lettered


# On a phone ------------------------------------------------------------------------------------------------


@pytest.mark.served
def test_a_phone_shows_the_whole_width_of_the_page(visit):
    desk = visit.page.viewport_size
    visit.page.set_viewport_size(PHONE)
    try:
        assert visit.probe("lost") == []
        assert visit.page.evaluate("document.scrollingElement.scrollWidth") <= PHONE["width"] + 1
    finally:
        visit.page.set_viewport_size(desk)


@pytest.mark.served
@pytest.mark.parametrize("width", [DESKTOP["width"], PHONE["width"]])
def test_no_formula_scrolls_that_its_line_has_room_for(visit, width: int):
    desk = visit.page.viewport_size
    visit.page.set_viewport_size({"width": width, "height": desk["height"]})
    try:
        assert visit.probe("scrollingFormulas") == []
    finally:
        visit.page.set_viewport_size(desk)


# The theme's tools -----------------------------------------------------------------------------------------


def search(visit, word: str) -> list[str]:
    """Type a word into the theme's search, and return the pages that it finds."""
    visit.page.locator(".search-button__button:visible").first.click()
    field = visit.page.locator("input[type=search]:visible").first
    field.fill(word)
    field.press("Enter")
    visit.page.wait_for_url("**/search.html?q=*")
    visit.page.locator("#search-results .search-summary", has_text="search").filter(visible=True).wait_for()
    found = visit.page.locator("#search-results ul.search li a").all()
    return [link.evaluate("link => link.href").removeprefix(visit.base) for link in found]


def test_search_finds_pages_that_have_the_word(start, site: Path):
    found = search(start, "gradient")
    assert found
    for address in found:
        path, _ = built_book.target("search.html", address)
        assert "gradient" in (site / path).read_text(encoding="utf-8").lower()
    start.open(found[0])
    assert start.page.locator("article h1").count() == 1
    assert (start.asked, start.missing, unexplained(start.errors)) == ([], [], [])


def test_search_finds_nothing_where_there_is_nothing(start):
    assert search(start, "xyzzyplugh") == []


def test_the_download_button_gives_the_notebook(start, site: Path):
    button = start.page.locator("a.btn-download-source-button")
    path, _ = built_book.target(start.page.url.removeprefix(start.base), button.get_attribute("href"))
    start.page.locator(".dropdown-download-buttons > button").click()
    if start.base.startswith("http"):
        with start.page.expect_download() as download:
            button.click()
        got = Path(download.value.path()).read_text(encoding="utf-8")
    else:  # a browser shows a file from the disk in a tab of its own, from where it can be saved
        with start.page.expect_popup() as popup:
            button.click()
        got = popup.value.locator("body").inner_text()
    assert json.loads(got) == json.loads((site / path).read_text(encoding="utf-8"))
