"""The map of a chapter: boxes that do not overlap, arrows downwards that pass beside every box."""

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firststep.book import claim_map, claims
from firststep.book.claim_map import ACROSS, BOX, GAP, WIDTH, crossings, layout, levels, path

IDS = "abcdefghijklmnop"
graphs = st.lists(st.tuples(st.sampled_from(IDS), st.sampled_from(IDS)).filter(lambda p: p[0] != p[1]), max_size=24)


@given(graphs)
def test_no_two_boxes_overlap_and_all_stand_inside(uses):
    placed = layout(IDS, uses)
    assert set(placed.boxes) == set(IDS)
    for x, y in placed.boxes.values():
        assert -0.1 <= x <= WIDTH - BOX[0] + 0.1
        assert 0 <= y <= placed.height - BOX[1]
    for (x1, y1), (x2, y2) in itertools.combinations(placed.boxes.values(), 2):
        assert abs(x1 - x2) >= BOX[0] - 0.1 or abs(y1 - y2) >= BOX[1]


@given(graphs)
def test_every_arrow_leads_down_from_a_claim_to_its_user(uses):
    placed = layout(IDS, uses)
    for (source, user), points in placed.arrows.items():
        (x1, y1), (x2, y2) = points[0], points[-1]
        left, top = placed.boxes[source]
        assert (x1, y1) == (left + BOX[0] / 2, top + BOX[1])
        left, top = placed.boxes[user]
        assert left < x2 < left + BOX[0]
        assert y2 == top
        assert [y for _, y in points] == sorted(y for _, y in points)


@given(graphs)
def test_no_arrow_passes_behind_a_box(uses):
    placed = layout(IDS, uses)
    for points in placed.arrows.values():
        for x, y in points[1:-1]:
            behind = [
                id for id, (left, top) in placed.boxes.items() if left < x < left + BOX[0] and top <= y <= top + BOX[1]
            ]
            assert behind == []


@given(graphs)
def test_every_use_is_drawn_unless_it_closes_a_circle(uses):
    drawn = set(layout(IDS, uses).arrows)
    assert drawn <= set(uses)
    for a, b in set(uses) - drawn:  # what is left out leads back to where it came from
        reached = {b}
        for _ in IDS:
            reached |= {d for c, d in drawn if c in reached}
        assert a in reached


@given(graphs)
def test_claims_stand_below_all_that_they_use_and_never_more_than_fit(uses):
    pairs = list(layout(IDS, uses).arrows)
    level = levels(IDS, pairs)
    assert all(level[a] < level[b] for a, b in pairs)
    assert max(list(level.values()).count(row) for row in level.values()) <= ACROSS


def test_a_claim_that_is_used_late_stands_close_to_its_user():
    assert levels("abcd", [("a", "b"), ("b", "c"), ("d", "c")])["d"] == 1


def test_rows_are_turned_until_their_arrows_do_not_cross():
    placed = layout("abcd", [("a", "d"), ("b", "c")])
    assert (placed.boxes["a"] < placed.boxes["b"]) == (placed.boxes["d"] < placed.boxes["c"])
    links = [("a", "d", 0), ("b", "c", 0)]
    assert crossings(["ab", "cd"], links) == 1
    assert crossings(["ab", "dc"], links) == 0


def test_an_arrow_over_several_rows_keeps_upright_beside_them():
    placed = layout("abc", [("a", "b"), ("b", "c"), ("a", "c")])
    points = placed.arrows["a", "c"]
    assert len(points) == 4
    assert points[1][0] == points[2][0]
    assert points[2][1] - points[1][1] == BOX[1]
    assert path(points).count("L") == 1


def test_claims_that_no_arrow_touches_stand_apart_in_reading_order():
    placed = layout("abcdefg", [("f", "g")])
    assert placed.apart == 2 * (BOX[1] + GAP[1])
    assert sorted("abcde", key=lambda id: placed.boxes[id][::-1]) == list("abcde")
    assert min(placed.boxes[id][1] for id in "abcde") == placed.apart
    assert layout("fg", [("f", "g")]).apart is None


def test_what_uses_a_claim_that_is_not_on_the_map_has_no_arrow():
    assert layout("ab", [("elsewhere", "a"), ("a", "elsewhere")]).arrows == {}


CLAIM = {"locator": "new", "statement": "s", "criterion": "c", "needs": "smoke", "pinned": None}


@pytest.fixture
def ledger(monkeypatch):
    """Two chapters, of which the second builds on the first."""
    made = [
        claims.Claim(id="one.a", title="A", page="book/one/p", **CLAIM),
        claims.Claim(id="one.b", title="$b < 1$", page="book/one/q", uses=("one.a",), **CLAIM),
        claims.Claim(id="one.c", title="C", page=None, **CLAIM),
        claims.Claim(id="two.d", title="D", page="book/two/r", uses=("one.b",), **CLAIM),
    ]
    monkeypatch.setattr(claims, "ledger", lambda: {claim.id: claim for claim in made})


def test_a_chapter_stands_with_what_it_uses_and_what_uses_it(ledger):
    assert claim_map.neighbours("one") == ["one.a", "one.b", "one.c", "two.d"]
    assert claim_map.neighbours("two") == ["one.b", "two.d"]


def test_every_box_links_to_its_card_and_carries_its_verdict(ledger):
    markup = claim_map.render("one", {}, lambda page: f"../{page}.html")
    assert 'href="../book/one/p.html#one.a"' in markup
    assert set(re.findall(r'data-claim="([^"]+)"', markup)) == {"one.a", "one.b", "one.c", "two.d"}
    assert r"\(b &lt; 1\)" in markup
    assert 'data-from="one.a" data-to="one.b"' in markup
    assert "one.c.html" not in markup
    assert "Dashed boxes" in markup


def test_a_map_shows_no_arrow_that_leads_from_one_other_chapter_to_another(ledger):
    assert "data-from" in claim_map.render("two", {}, str)
    assert 'data-from="one.a"' not in claim_map.render("two", {}, str)
