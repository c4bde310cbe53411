"""The title page's landscape, the maps of the chapters and the filters of the ledger, under a reader's hand."""

import json
import re
from pathlib import Path

import built_book
import pytest
import torch
from conftest import ORIGINS
from test_pages import PHONE

from firststep import linear

pytestmark = pytest.mark.site

TITLE, LEDGER = "book/intro.html", "book/ledger/ledger.html"


def required_page(site: Path, page: str) -> str:
    if not (site / page).is_file():
        pytest.skip(f"{page} is not in this book")
    return page


# The title page --------------------------------------------------------------------------------------------


class Landscape:
    """The title page, open, with a start that can be moved."""

    def __init__(self, visit):
        self.visit, self.page = visit, visit.page
        self.section = self.page.locator("section.landscape")
        self.page.locator("section.landscape[data-ready]").wait_for()
        self.handle = self.section.locator("button.handle")

    @property
    def start(self) -> list[float]:
        return json.loads(f"[{self.section.get_attribute('data-start')}]")

    @property
    def fate(self) -> str:
        return self.section.get_attribute("data-fate")

    @property
    def said(self) -> str:
        return self.section.locator(".fate").text_content()

    def press(self, name: str) -> None:
        self.section.get_by_role("button", name=name).click()

    def drag_by(self, right: int, down: int) -> None:
        box = self.handle.bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        self.page.mouse.move(x, y)
        self.page.mouse.down()
        self.page.mouse.move(x + right, y + down, steps=5)
        self.page.mouse.up()


@pytest.fixture(params=ORIGINS)
def landscape(request, opened, site: Path) -> Landscape:
    return Landscape(opened(required_page(site, TITLE), request.param))


@pytest.mark.parametrize("start", [(1.0, 1.0), (1.0, 0.0), (1.0, 0.99), (-2.0, 0.3), (3.1, -1.7), (0.01, 0.02)])
def test_the_script_descends_as_the_package_does(landscape: Landscape, start: tuple[float, float]):
    steps = 200
    path = landscape.page.evaluate("([a, b, n]) => firststepLandscape.descend(a, b, 0.1, n)", [*start, steps])
    weights = [torch.tensor([[w]], dtype=torch.float64, device="cpu") for w in start]
    moments = linear.Moments.whitened(torch.tensor([[-1.0]], dtype=torch.float64, device="cpu"))
    run = linear.gradient_descent(
        weights, moments, step_size=0.1, steps=steps, measure={"w": lambda ws: torch.cat([w.flatten() for w in ws])}
    )
    assert torch.allclose(torch.tensor(path, dtype=torch.float64, device="cpu"), run["w"], rtol=0, atol=1e-12)


def test_the_landscape_takes_the_place_of_the_picture_and_keeps_its_caption(landscape: Landscape):
    assert landscape.section.is_visible()
    figure = landscape.page.locator("figure.firststep")
    assert figure.locator("> [role=img]").is_hidden()
    assert figure.locator("figcaption").is_visible()
    assert (landscape.start, landscape.fate) == ([1, 1], "stuck")


def test_without_a_script_the_picture_stands_there(chromium, bases, site: Path):
    context = chromium.new_context(java_script_enabled=False)
    try:
        page = context.new_page()
        page.goto(bases["file"] + required_page(site, TITLE))
        assert page.locator("figure.firststep > [role=img]").is_visible()
        assert page.locator("section.landscape").is_hidden()
    finally:
        context.close()


def test_every_button_tells_its_story(landscape: Landscape):
    landscape.press("(1, 0) ZAS")
    assert (landscape.start, landscape.fate) == ([1, 0], "converges")
    assert "rank zero" in landscape.said
    assert "minimum" in landscape.said
    landscape.press("(1, 0.99) almost")
    assert (landscape.start, landscape.fate) == ([1, 0.99], "converges")
    assert "lets go" in landscape.said
    landscape.press("(1, 1) full rank")
    assert (landscape.start, landscape.fate) == ([1, 1], "stuck")
    assert "stuck at the saddle" in landscape.said
    seen = set()
    for _ in range(4):
        landscape.press("Surprise me")
        seen.add(tuple(landscape.start))
    assert len(seen) > 1


def test_a_dragged_start_draws_another_path_and_says_what_becomes_of_it(landscape: Landscape):
    path = landscape.section.locator(".plane svg").first
    loss = landscape.section.locator("[aria-label^='The loss'] svg polyline").last
    before = path.inner_html(), loss.get_attribute("points"), landscape.said
    landscape.drag_by(0, 60)
    first, second = landscape.start
    assert first == pytest.approx(1, abs=0.03)
    assert second < 0.9
    assert landscape.fate == "converges"
    after = path.inner_html(), loss.get_attribute("points"), landscape.said
    assert not [part for part, was in zip(after, before, strict=True) if part == was]


def test_the_start_goes_to_where_a_reader_clicks(landscape: Landscape):
    box = landscape.section.locator(".plane svg").first.bounding_box()
    landscape.page.mouse.click(box["x"] + 0.75 * box["width"], box["y"] + 0.75 * box["height"])
    assert landscape.start[0] > 0.3
    assert landscape.start[1] < -0.3


def test_the_start_obeys_the_arrow_keys_and_the_page_stays(landscape: Landscape):
    address = landscape.page.url.split("#")[0]
    landscape.handle.focus()
    landscape.handle.press("ArrowLeft")
    landscape.handle.press("ArrowUp")
    assert landscape.start == [0.95, 1.05]
    landscape.handle.press("Shift+ArrowDown")
    landscape.handle.press("Shift+ArrowRight")
    assert landscape.start == [0.96, 1.04]
    assert landscape.page.url.split("#")[0] == address
    assert landscape.handle.get_attribute("aria-label").startswith("Start at 0.96, 1.04")


def test_a_finger_drags_the_start_and_scrolls_beside_it(chromium, bases, site: Path):
    context = chromium.new_context(viewport=PHONE, has_touch=True, is_mobile=True)
    try:
        page = context.new_page()
        page.goto(bases["http"] + required_page(site, TITLE))
        page.locator("section.landscape[data-ready]").wait_for()
        handle = page.locator("section.landscape button.handle")
        assert handle.evaluate("e => getComputedStyle(e).touchAction") == "none"
        assert page.locator(".plane svg").first.evaluate("e => getComputedStyle(e).touchAction") == "auto"
        handle.scroll_into_view_if_needed()
        box = handle.bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        touch = context.new_cdp_session(page)
        for kind, points in (
            ("touchStart", [{"x": x, "y": y}]),
            ("touchMove", [{"x": x, "y": y + 20}]),
            ("touchMove", [{"x": x, "y": y + 40}]),
            ("touchEnd", []),
        ):
            touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
        moved = json.loads(f"[{page.locator('section.landscape').get_attribute('data-start')}]")
        assert moved[0] == pytest.approx(1, abs=0.05)
        assert moved[1] < 0.9
    finally:
        context.close()


def test_the_address_carries_the_start(landscape: Landscape):
    landscape.press("(1, 0.99) almost")
    landscape.page.wait_for_url("**#start=1,0.99")
    landscape.page.goto(f"{landscape.visit.base}{TITLE}#start=4,-3.5")
    landscape.page.wait_for_function("document.querySelector('section.landscape').dataset.start === '4,-3.5'")
    landscape.page.reload()
    landscape.page.wait_for_function("document.querySelector('section.landscape').dataset.start === '4,-3.5'")
    assert landscape.visit.errors == []


def test_far_out_a_start_diverges(landscape: Landscape):
    landscape.page.goto(f"{landscape.visit.base}{TITLE}#start=6,6")
    landscape.page.wait_for_function("document.querySelector('section.landscape').dataset.fate === 'diverges'")
    assert "diverges" in landscape.said


@pytest.mark.parametrize("width", [1300, PHONE["width"]])
def test_letters_of_the_landscape_can_be_read_and_lie_inside(opened, site: Path, width: int):
    visit = opened(required_page(site, TITLE), "http")
    visit.page.set_viewport_size({"width": width, "height": 900})
    landscape = Landscape(visit)
    visit.page.wait_for_function("document.querySelector('.plane svg').getBoundingClientRect().right <= innerWidth")
    letters = landscape.section.locator("svg text").evaluate_all("""all => all.map(e => {
        const { left, right } = e.getBoundingClientRect();
        return [parseFloat(getComputedStyle(e).fontSize), left, right];
    })""")
    assert letters
    assert min(size for size, _, _ in letters) >= 10
    assert min(left for _, left, _ in letters) >= 0
    assert max(right for _, _, right in letters) <= width


def test_there_is_a_tile_for_every_chapter_and_it_leads_there(site: Path):
    page = required_page(site, TITLE)
    markup = (site / page).read_text(encoding="utf-8")
    links = re.findall(r'<a href="([^"]+)">', markup[markup.index('<ul class="tiles">') :].split("</ul>")[0])
    assert links
    for link in links:
        path, _ = built_book.target(page, link)
        assert (site / path).is_file()


def test_the_page_after_the_title_is_the_first_chapter_and_its_pages_number_from_one(site: Path):
    page = required_page(site, TITLE)
    following = [a["href"] for _, a in built_book.document(site / page).elements if a.get("class") == "right-next"]
    assert len(following) == 1
    path, _ = built_book.target(page, following[0])
    assert path.endswith("/index.html")
    assert "1.1. " in re.sub(r"<[^>]+>", "", (site / path).read_text(encoding="utf-8"))


# Maps of chapters ------------------------------------------------------------------------------------------


@pytest.mark.pages_with('class="claim-map"')
def test_a_map_has_the_verdicts_of_its_table_and_fits_its_column(visit):
    page = visit.page
    boxes = dict(
        page.locator(".claim-map .badge").evaluate_all("all => all.map(e => [e.dataset.claim, e.textContent])")
    )
    rows = dict(
        page.locator("table.claims .badge").evaluate_all("all => all.map(e => [e.dataset.claim, e.textContent])")
    )
    assert rows
    assert {id: boxes[id] for id in rows} == rows
    map_, column = page.locator(".claim-map > div"), page.locator(".bd-article")
    assert map_.bounding_box()["width"] <= column.bounding_box()["width"] + 1
    cut = "all => all.filter(e => e.scrollHeight > e.clientHeight + 1).map(e => e.dataset.id)"
    assert page.locator(".claim-map [data-id]").evaluate_all(cut) == []


@pytest.mark.pages_with('class="claim-map"')
def test_a_phone_has_cards_instead_of_the_map(visit):
    desk = visit.page.viewport_size
    visit.page.set_viewport_size(PHONE)
    try:
        assert visit.page.locator(".claim-map").is_hidden()
        for badge in visit.page.locator("table.claims .badge").all():
            box = badge.bounding_box()
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= PHONE["width"]
    finally:
        visit.page.set_viewport_size(desk)


# The ledger ------------------------------------------------------------------------------------------------


@pytest.fixture(params=[1300, PHONE["width"]], ids=["desk", "phone"])
def ledger(request, opened, site: Path):
    visit = opened(required_page(site, LEDGER), "file")
    visit.page.set_viewport_size({"width": request.param, "height": 900})
    return visit.page


def shown(page) -> list[tuple[str, str]]:
    rows = page.locator("table.claims tbody tr")
    return [
        tuple(r)
        for r in rows.evaluate_all(
            "all => all.filter(e => e.checkVisibility()).map(e => [e.dataset.is, e.dataset.paper])"
        )
    ]


def test_every_filter_keeps_as_many_claims_as_it_says(ledger):
    total = len(shown(ledger))
    for what, place in (("is", 0), ("paper", 1)):
        buttons = ledger.locator(f"[data-filter={what}] button")
        for button in buttons.all():
            button.click()
            value, count = button.get_attribute("data-value"), int(button.locator("small").text_content())
            rows = shown(ledger)
            assert len(rows) == count
            assert {row[place] for row in rows} <= ({value} if value else {row[place] for row in rows})
            assert button.get_attribute("aria-pressed") == "true"
        buttons.first.click()
    assert len(shown(ledger)) == total


def test_filters_combine_and_the_address_carries_them(ledger):
    paper = ledger.locator("[data-filter=paper] button").nth(1)
    paper.click()
    one = shown(ledger)
    verdict = one[0][0]
    ledger.locator(f"[data-filter=is] button[data-value={verdict}]").click()
    both = shown(ledger)
    assert set(both) == {one[0]}
    assert f"{len(both)} of " in ledger.locator(".filters p").text_content()
    ledger.reload()
    assert shown(ledger) == both


def test_a_phone_shows_every_verdict_of_the_ledger(ledger):
    width = ledger.viewport_size["width"]
    edges = ledger.locator("table.claims .badge").evaluate_all("all => all.map(e => e.getBoundingClientRect().right)")
    assert edges
    assert max(edges) <= width


def test_without_a_script_the_ledger_shows_all_claims(chromium, bases, site: Path):
    context = chromium.new_context(java_script_enabled=False)
    try:
        page = context.new_page()
        page.goto(bases["file"] + required_page(site, LEDGER))
        rows = page.locator("table.claims tbody tr")
        assert rows.count() > 0
        assert rows.first.is_visible()
        assert page.locator(".filters").is_hidden()
    finally:
        context.close()
