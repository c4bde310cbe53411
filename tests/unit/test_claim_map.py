"""The map of a chapter: boxes that do not overlap, arrows that end where they should."""

import itertools
import re

import pytest

from firststep.book import claim_map, claims
from firststep.book.claim_map import ACROSS, BOX, GAPS, WIDTH, layout

LANES = {"first": ["a", "b", "c"], "second": ["d", "e"], "third": ["f"]}


def ends(path):
    numbers = [float(number) for number in re.findall(r"-?[\d.]+", path)]
    return numbers[:2], numbers[-2:]


def overlap(one, other):
    return abs(one[0] - other[0]) < BOX[0] and abs(one[1] - other[1]) < BOX[1]


def test_no_two_boxes_overlap_and_all_stand_inside():
    lanes = {"wide": list("abcdefghi"), "narrow": ["x"]}
    placed = layout(lanes, [("a", "x"), ("h", "x")])
    assert set(placed.boxes) == set("abcdefghix")
    assert not [pair for pair in itertools.combinations(placed.boxes.values(), 2) if overlap(*pair)]
    for x, y in placed.boxes.values():
        assert 0 <= x <= WIDTH - BOX[0]
        assert 0 <= y <= placed.height - BOX[1]


def test_a_lane_of_more_claims_than_fit_side_by_side_takes_more_rows():
    placed = layout({"wide": list("abcdefghi"[: ACROSS + 1]), "next": ["x"]}, [])
    assert placed.lanes["next"] == 2 * (BOX[1] + GAPS[1])


def test_lanes_stand_in_the_order_given_each_below_the_one_before():
    placed = layout(LANES, [])
    assert list(placed.lanes) == list(LANES)
    assert list(placed.lanes.values()) == sorted(placed.lanes.values())
    for name, ids in LANES.items():
        assert {placed.boxes[id][1] for id in ids} == {placed.lanes[name]}


def test_an_arrow_leads_from_the_lower_edge_of_a_claim_to_the_upper_edge_of_its_user():
    placed = layout(LANES, [("a", "d"), ("c", "f")])
    for (source, user), path in placed.arrows.items():
        (x1, y1), (x2, y2) = ends(path)
        left, top = placed.boxes[source]
        assert left < x1 < left + BOX[0]
        assert y1 == top + BOX[1]
        left, top = placed.boxes[user]
        assert left < x2 < left + BOX[0]
        assert y2 == top


def test_arrows_of_one_claim_leave_it_side_by_side():
    placed = layout(LANES, [("a", "d"), ("a", "e"), ("a", "f")])
    assert len({tuple(ends(path)[0]) for path in placed.arrows.values()}) == 3


def test_an_arrow_within_a_lane_goes_round_below():
    placed = layout({"lane": ["a", "b"]}, [("a", "b")])
    (_, y1), (_, y2) = ends(placed.arrows["a", "b"])
    assert y1 == y2 == BOX[1]


def test_a_lane_takes_the_order_in_which_its_arrows_are_shortest():
    crossed = layout({"above": ["a", "b"], "below": ["c", "d"]}, [("a", "d"), ("b", "c")])
    assert crossed.boxes["d"][0] < crossed.boxes["c"][0]
    assert layout({"above": ["a", "b"], "below": ["c", "d"]}, []).boxes["c"][0] < crossed.boxes["c"][0]


def test_what_uses_a_claim_that_is_not_on_the_map_has_no_arrow():
    assert layout(LANES, [("elsewhere", "a"), ("a", "elsewhere")]).arrows == {}


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


NAMES = {"book/one/q": "Second", "book/one/p": "First"}


def test_lanes_are_the_pages_in_reading_order_and_what_other_chapters_have_to_do_with_them(ledger):
    assert claim_map.lanes_of("one", NAMES) == {
        "Second": ["one.b"],
        "First": ["one.a"],
        "Not settled yet": ["one.c"],
        "Used in other chapters": ["two.d"],
    }
    assert claim_map.lanes_of("two", {"book/two/r": "R"}) == {"From other chapters": ["one.b"], "R": ["two.d"]}


def test_every_box_links_to_its_card_and_carries_its_verdict(ledger):
    markup = claim_map.render("one", NAMES, {}, lambda page: f"../{page}.html")
    assert 'href="../book/one/p.html#one.a"' in markup
    assert set(re.findall(r'data-claim="([^"]+)"', markup)) == {"one.a", "one.b", "one.c", "two.d"}
    assert r"\(b &lt; 1\)" in markup
    assert 'data-from="one.a" data-to="one.b"' in markup
    assert "one.c.html" not in markup
