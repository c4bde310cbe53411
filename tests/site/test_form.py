"""The form of a page: result first, code folded, light enough for a phone, and open to readers of every kind."""

import gzip
from pathlib import Path
from urllib.parse import unquote, urlsplit

import axe_playwright_python
import built_book
import pytest
from conftest import ORIGINS
from test_pages import PHONE, switch_to

pytestmark = [pytest.mark.site, pytest.mark.served]

DESK = {"width": 1300, "height": 900}
TALLEST = 8_000  # pixels of a page of the argument, folds closed
SOON = 1_200  # pixels to its first figure or panel
LETTERS = 10  # pixels: the least height of a line of a figure's text
KILOBYTES = {"plain": 1_000, "panel": 1_300}  # of a page with all that it asks for, compressed
AXE = Path(axe_playwright_python.__file__).with_name("axe.min.js")


@pytest.fixture(params=[DESK, PHONE], ids=["desk", "phone"])
def sized(request, visit):
    before = visit.page.viewport_size
    visit.page.set_viewport_size(request.param)
    yield visit
    visit.page.set_viewport_size(before)


@pytest.fixture
def at_desk(visit):
    before = visit.page.viewport_size
    visit.page.set_viewport_size(DESK)
    yield visit
    visit.page.set_viewport_size(before)


@pytest.mark.pages_with('class="opener')
def test_a_page_is_no_taller_than_a_reader_will_scroll(at_desk):
    assert at_desk.page.evaluate("document.querySelector('.bd-article').scrollHeight") <= TALLEST


@pytest.mark.pages_with('class="opener')
def test_the_picture_that_carries_the_idea_comes_soon(at_desk):
    top = "e => e.getBoundingClientRect().top + scrollY"
    assert at_desk.page.locator("figure.firststep, section.explorable").first.evaluate(top) <= SOON


@pytest.mark.pages_with('class="opener')
def test_the_opener_names_every_claim_of_the_page_with_its_verdict(visit):
    cards = visit.page.locator("section.verdict").evaluate_all("all => all.map(e => e.id)")
    chips = visit.page.locator(".opener ul.claims a").evaluate_all("all => all.map(e => e.hash.slice(1))")
    assert sorted(chips) == sorted(cards)


OPENED = "all => all.filter(e => e.open).length"


@pytest.mark.pages_with('class="fold')
def test_code_is_folded_until_the_switch_opens_it(visit):
    folds, button = visit.page.locator("details.fold"), visit.page.locator("button.show-code")
    assert folds.evaluate_all(OPENED) == 0
    button.click()
    opened = folds.evaluate_all(OPENED)
    button.click()
    assert opened == folds.count()
    assert folds.evaluate_all(OPENED) == 0


@pytest.mark.parametrize("origin", ORIGINS)
def test_the_switch_is_remembered(opened, site: Path, origin: str):
    visit = opened(built_book.pages_with(site, 'class="fold')[0], origin)
    folds, button = visit.page.locator("details.fold"), visit.page.locator("button.show-code")
    button.click()
    visit.page.reload()
    assert button.get_attribute("aria-pressed") == "true"
    assert folds.evaluate_all(OPENED) == folds.count() > 0


@pytest.mark.pages_with('class="fold')
def test_every_fold_says_what_its_code_does(visit):
    heads = visit.page.locator("details.fold > summary").evaluate_all("all => all.map(e => e.textContent)")
    assert [head for head in heads if len(head.split("·")[0].split()) < 2] == []


def test_nothing_but_a_wide_formula_table_or_line_of_code_scrolls_sideways(sized):
    found = sized.page.evaluate("""() => [...document.querySelectorAll('.bd-article *')]
        .filter(e => e.scrollWidth > e.clientWidth + 1 && ['auto', 'scroll'].includes(getComputedStyle(e).overflowX))
        .filter(e => e.clientWidth > 0 && !e.closest('mjx-assistive-mml'))
        .filter(e => !e.matches('pre, div.math, .math, mjx-container, .pst-scrollable-table-container, .output'))
        .map(e => e.tagName + '.' + e.className)""")
    assert found == []


@pytest.mark.pages_with('class="firststep"')
def test_letters_of_a_figure_can_be_read(sized):
    heights = sized.page.evaluate("""() => [...document.querySelectorAll('figure.firststep svg')]
        .filter(svg => svg.clientWidth > 0)
        .map(svg => 14 * svg.getBoundingClientRect().width * 0.75 / svg.viewBox.baseVal.width)""")
    assert heights and min(heights) >= LETTERS  # 10.5 points are 14 pixels where a figure has its own size


def test_a_page_is_light(visit, site: Path):
    asked = visit.page.evaluate("performance.getEntriesByType('resource').map(e => e.name)")
    addresses = [visit.page.url, *asked]
    files = {unquote(urlsplit(a.removeprefix(visit.base)).path) for a in addresses if a.startswith(visit.base)}
    weights = {name: _compressed(site / name) for name in files if (site / name).is_file()}
    assert weights
    kind = "panel" if visit.page.locator("section.explorable").count() else "plain"
    assert sum(weights.values()) < 1_000 * KILOBYTES[kind], sorted(weights.items(), key=lambda w: -w[1])[:5]


def _compressed(path: Path) -> int:
    data = path.read_bytes()
    return len(data) if path.suffix in (".woff", ".woff2", ".png") else len(gzip.compress(data, 6))


def test_axe_finds_no_serious_violation(visit):
    """All but contrast, which takes axe most of its time and has a quicker test of its own on every page."""
    assert violations(visit.page, rules={"color-contrast": {"enabled": False}}) == []


@pytest.mark.parametrize("theme", ["dark", "light"])
@pytest.mark.parametrize("kind", ["landscape", "claim-map", "explorable", "verdict ", "py"])
def test_axe_finds_enough_contrast_on_a_page_of_each_kind(opened, site: Path, kind: str, theme: str):
    visit = opened(built_book.pages_with(site, f'class="{kind}')[0], "http")
    switch_to(visit, theme)
    assert violations(visit.page, runOnly=["color-contrast"]) == []


def violations(page, **options) -> list[dict]:
    """What axe calls serious, and headings or tables without order.

    MathJax's letters are read from its assistive copy; axe would take them for text of no contrast. And docutils marks
    the entries of its list of works by a role that axe does not count as an item of a list.
    """
    page.add_style_tag(content="* { transition: none !important; }")  # else colours are caught halfway
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate(
        """async ([exclude, options]) => {
            const how = { resultTypes: ['violations'], preload: false, ...options };
            const { violations } = await axe.run({ exclude }, how);
            const nodes = (v) => v.nodes.slice(0, 3).map((n) => n.html.slice(0, 160));
            return violations.map((v) => ({ id: v.id, impact: v.impact, nodes: nodes(v) }));
        }""",
        [[["mjx-container"], [".highlight"], [".citation-list"]], options],
    )
    structure = ("heading-order", "empty-table-header")
    return [v for v in found if v["impact"] in ("serious", "critical") or v["id"] in structure]
