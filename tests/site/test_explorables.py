"""Every explorable answers: each control changes what is drawn, and the page says what its grid says."""

import itertools
import json
import random
from pathlib import Path

import built_book
import pytest

pytestmark = [pytest.mark.site, pytest.mark.pages_with('class="explorable"')]

PARTS = {"chart", "facts"}
TRIES = 5  # settings of the other controls at which a control may show its effect, beyond the defaults


class Panel:
    """One explorable of an open page, with the data that the page carries for it."""

    def __init__(self, visit, section):
        self.visit = visit
        self.id = section.get_attribute("id")
        self.section = section
        self.payload = json.loads(section.locator("script").text_content())
        self.controls = self.payload["controls"]
        self.start = [control["start"] for control in self.controls]

    def position(self, places: list[int]) -> int:
        """Where the grid keeps a setting: the last control moves fastest."""
        position = 0
        for place, control in zip(places, self.controls, strict=True):
            position = position * len(control["values"]) + place
        return position

    def move(self, places: list[int]) -> dict:
        shown = self.visit.probe("move", self.id, places, self.position(places))
        assert shown["drawn"] == self.position(places), f"{self.id} does not draw {places}"
        return shown

    def settings(self, index: int) -> list[list[int]]:
        """Settings from which control ``index`` is moved: the defaults, then some others, the same every time."""
        scales = [range(len(control["values"])) for control in self.controls]
        chosen = random.Random(index)
        return [self.start, *([chosen.choice(scale) for scale in scales] for _ in range(TRIES))]

    def effects(self, index: int) -> set[str]:
        """Parts of what is shown that change when control ``index`` alone is moved, at some setting of the others."""
        changed = set()
        for setting in self.settings(index):
            first = self.move([*setting[:index], 0, *setting[index + 1 :]])
            for place in self.scale(index)[1:]:
                shown = self.move([*setting[:index], place, *setting[index + 1 :]])
                changed |= {part for part in PARTS if shown[part] != first[part]}
                if changed == PARTS:
                    return changed
        return changed

    def labels(self, places: list[int]) -> list[str]:
        """What the controls show at a setting: numbers are written as JavaScript writes them."""
        values = [control["values"][place] for control, place in zip(self.controls, places, strict=True)]
        return self.visit.page.evaluate("values => values.map(String)", values)

    def scale(self, index: int) -> range:
        return range(len(self.controls[index]["values"]))


def panels(visit) -> list[Panel]:
    return [Panel(visit, section) for section in visit.page.locator("section.explorable").all()]


def test_every_explorable_starts(visit):
    assert panels(visit)
    for panel in panels(visit):
        assert panel.section.get_attribute("data-ready") == "true", panel.id
        assert panel.section.locator(".controls .control").count() == len(panel.controls)
        assert panel.move(panel.start)["chart"]


@pytest.mark.served
def test_every_control_changes_what_is_drawn_and_what_is_said(visit):
    lacking = {
        f"{panel.id}: {control['label']}": PARTS - panel.effects(index)
        for panel in panels(visit)
        for index, control in enumerate(panel.controls)
    }
    assert {control: parts for control, parts in lacking.items() if parts} == {}


@pytest.mark.served
def test_what_is_said_is_what_the_grid_holds(visit):
    for panel in panels(visit):
        scales = [range(len(control["values"])) for control in panel.controls]
        points = list(itertools.product(*scales))
        for places in map(list, random.Random(0).sample(points, min(20, len(points)))):
            outcome, shown = panel.payload["grid"][panel.position(places)], panel.move(places)
            state = {True: "survived", False: "broken", None: "silent"}[outcome["survived"]]
            assert shown["facts"] == [outcome[fact] for fact in ("prediction", "measurement", "verdict")]
            assert shown["verdict"] == f"facts {state}"
            assert shown["values"] == panel.labels(places)


@pytest.mark.served
def test_moving_every_control_and_back_leaves_no_trace(visit):
    """So a changed picture means a changed outcome; nothing depends on the order of moves."""
    for panel in panels(visit):
        before = panel.move(panel.start)
        for index in range(len(panel.controls)):
            for place in panel.scale(index):
                panel.move([*panel.start[:index], place, *panel.start[index + 1 :]])
        assert panel.move(panel.start) == before
    assert (visit.asked, visit.missing, visit.errors) == ([], [], [])


@pytest.mark.served
def test_a_fast_hand_ends_where_a_slow_one_does(visit):
    for panel in panels(visit):
        ends = [len(control["values"]) - 1 for control in panel.controls]
        panel.move(panel.start)
        slow = panel.move(ends)
        panel.move(panel.start)
        visit.probe("sweep", panel.id)
        assert panel.move(ends) == slow


@pytest.mark.served
def test_controls_obey_the_keyboard(visit):
    for panel in panels(visit):
        for index, control in enumerate(panel.controls):
            panel.move(panel.start)
            place = panel.start[index]
            onward = place + 1 < len(control["values"])
            across = control["kind"] == "slider"
            key = ("ArrowRight" if across else "ArrowDown") if onward else ("ArrowLeft" if across else "ArrowUp")
            handles = panel.section.locator(".control").nth(index).locator("input[type=range], select, input:checked")
            handles.press(key)
            places = [*panel.start[:index], place + (1 if onward else -1), *panel.start[index + 1 :]]
            pressed = visit.probe("shows", panel.id)
            assert panel.move(places)["facts"] == pressed["facts"], f"{panel.id}: {control['label']}"
            assert pressed["values"] == panel.labels(places)


@pytest.mark.served
def test_presets_and_reset_put_the_controls_where_they_say(visit):
    for panel in panels(visit):
        for words, places in {**panel.payload["presets"], "Reset": panel.start}.items():
            panel.section.get_by_role("button", name=words, exact=True).click()
            assert panel.move(places)["values"] == panel.labels(places)
            assert visit.probe("shows", panel.id)["drawn"] == panel.position(places)


def test_a_link_carries_the_setting(visit):
    before = visit.page.url
    for panel in panels(visit):
        ends = [len(control["values"]) - 1 for control in panel.controls]
        panel.move(ends)
        link = panel.section.locator(".presets a")
        assert link.get_attribute("href").endswith(f"#{panel.id}")
        visit.page.goto(link.evaluate("link => link.href"))
        visit.page.wait_for_function("!document.querySelector('section.explorable:not([data-ready])')")
        assert visit.probe("shows", panel.id)["drawn"] == panel.position(ends)
        visit.page.goto(before)
        visit.page.wait_for_function("!document.querySelector('section.explorable:not([data-ready])')")


@pytest.mark.served
def test_the_plot_is_as_wide_as_its_column_on_a_desk_and_on_a_phone(visit):
    desk = visit.page.viewport_size
    for width in (desk["width"], 390):
        visit.page.set_viewport_size({"width": width, "height": desk["height"]})
        visit.page.reload()
        visit.page.wait_for_function("!document.querySelector('section.explorable:not([data-ready])')")
        for panel in panels(visit):
            box = panel.section.locator(".chart").evaluate("e => [e.scrollWidth, e.clientWidth]")
            assert box[0] <= box[1] + 1, panel.id
            sizes = panel.section.locator(".chart svg text").evaluate_all(
                """all => all.filter(e => e.getBoundingClientRect().width > 0)
                    .map(e => [parseFloat(getComputedStyle(e).fontSize), e.getScreenCTM()])
                    .map(([size, turned]) => size * Math.hypot(turned.a, turned.b))"""
            )
            assert min(sizes) >= 10, panel.id
    visit.page.set_viewport_size(desk)
    visit.page.reload()


FORGET = """document.addEventListener("DOMContentLoaded", () => {
  for (const data of document.querySelectorAll("section.explorable > script")) {
    const payload = JSON.parse(data.textContent);
    const places = payload.grid.length / payload.controls[0].values.length;
    payload.grid = payload.grid.map((_, i) => payload.grid[i % places]);
    data.textContent = JSON.stringify(payload);
  }
})"""


def test_a_dead_control_is_seen(opened, site: Path):
    """The test of the controls can fail: here every grid forgets what its first control did."""
    visit = opened(built_book.pages_with(site, 'class="explorable"')[0], "http", script=FORGET)
    for panel in panels(visit):
        assert panel.effects(0) == set()
        assert panel.effects(1) == PARTS
