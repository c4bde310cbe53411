"""A chapter's claims as a map: a lane for each page, a box for each claim, an arrow from a claim to what uses it.

The layout is made of plain numbers, so that it can be tested; the boxes are links of the page, over a drawing of the
arrows. Within a lane the boxes take the order in which their arrows are shortest.
"""

import html
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from firststep.book import claims
from firststep.book.claims import Claim, Record

ACROSS = 4  # boxes side by side
BOX = (150, 76)  # width and height
GAPS = (8, 30)  # between boxes, and between lanes
LABEL = 112  # the room for the names of the lanes
WIDTH = LABEL + ACROSS * BOX[0] + (ACROSS - 1) * GAPS[0]


@dataclass(frozen=True)
class Layout:
    """Where things stand, in pixels.

    Attributes:
        height: of the whole map.
        lanes: top of each lane, by name.
        boxes: left and top of each box, by claim.
        arrows: from a claim to one that uses it, as the commands of an SVG path.
    """

    height: int
    lanes: dict[str, int]
    boxes: dict[str, tuple[int, int]]
    arrows: dict[tuple[str, str], str]


def layout(lanes: Mapping[str, Sequence[str]], uses: Sequence[tuple[str, str]]) -> Layout:
    """Place claims in lanes, and draw the arrows between them.

    Args:
        lanes: the claims of each lane, lanes from top to bottom; a lane of more than ``ACROSS`` claims takes two rows.
        uses: pairs of a claim and one that it is used by; pairs of claims that stand in no lane are left out.
    """
    standing = {id for lane in lanes.values() for id in lane}
    pairs = [(a, b) for a, b in uses if a in standing and b in standing]
    boxes: dict[str, tuple[int, int]] = {}
    tops, top = {}, 0
    for name, lane in lanes.items():
        tops[name] = top
        for row in _rows(lane):
            boxes |= {id: (_left(k), top) for k, id in enumerate(_ordered(row, boxes, pairs))}
            top += BOX[1] + GAPS[1]
    return Layout(max(top, 1), tops, boxes, _arrows(boxes, pairs))


def _rows(lane: Sequence[str]) -> list[Sequence[str]]:
    return [lane[k : k + ACROSS] for k in range(0, len(lane), ACROSS)]


def _left(place: int) -> int:
    return LABEL + place * (BOX[0] + GAPS[0])


def _ordered(row: Sequence[str], boxes: Mapping[str, tuple[int, int]], pairs: Sequence[tuple[str, str]]) -> Sequence:
    """The row in the order whose arrows from the boxes above are shortest; as given where there are none."""
    above = [(boxes[a][0], b) for a, b in pairs if a in boxes and b in row]
    above += [(boxes[b][0], a) for a, b in pairs if b in boxes and a in row]

    def sideways(order: Sequence[str]) -> int:
        return sum(abs(x - _left(order.index(id))) for x, id in above)

    return min(itertools.permutations(row), key=sideways)  # the first of equals, which is as given


def _arrows(boxes: Mapping[str, tuple[int, int]], pairs: Sequence[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """From the lower edge of a claim to the upper edge of its user; where the user stands no lower, round below."""
    ports: dict[tuple[str, str], dict[tuple[str, str], float]] = {}
    for pair in pairs:
        a, b = pair
        down = boxes[b][1] > boxes[a][1]
        ports.setdefault((a, "below"), {})[pair] = boxes[b][0]
        ports.setdefault((b, "above" if down else "below"), {})[pair] = boxes[a][0]

    def port(id: str, side: str, pair: tuple[str, str]) -> tuple[float, int]:
        others = sorted(ports[id, side], key=lambda p: (ports[id, side][p], p))
        x, y = boxes[id]
        return x + BOX[0] * (others.index(pair) + 1) / (len(others) + 1), y + (BOX[1] if side == "below" else 0)

    drawn = {}
    for a, b in pairs:
        down = boxes[b][1] > boxes[a][1]
        (x1, y1), (x2, y2) = port(a, "below", (a, b)), port(b, "above" if down else "below", (a, b))
        bend = max(GAPS[1] * 0.8, 0.35 * abs(y2 - y1))
        end = y2 - bend if down else y2 + bend
        drawn[a, b] = f"M{x1:.0f},{y1} C{x1:.0f},{y1 + bend:.0f} {x2:.0f},{end:.0f} {x2:.0f},{y2}"
    return drawn


def lanes_of(chapter: str, names: Mapping[str, str]) -> dict[str, list[str]]:
    """The lanes of a chapter's map: what it uses from others, its pages in order, and what of others uses it.

    Args:
        chapter: prefix of its claims.
        names: what its pages are called, in reading order.
    """
    ledger = claims.ledger()
    own = [claim for claim in ledger.values() if claim.chapter == chapter]
    used = {id for claim in own for id in claim.uses if ledger[id].chapter != chapter}
    users = {
        c.id for c in ledger.values() if c.chapter != chapter and any(ledger[u].chapter == chapter for u in c.uses)
    }
    lanes = {"From other chapters": [id for id in ledger if id in used]}
    for page, name in names.items():
        lanes[name] = [claim.id for claim in own if claim.page == page]
    lanes["On other pages"] = [claim.id for claim in own if claim.page and claim.page not in names]
    lanes["Not settled yet"] = [claim.id for claim in own if not claim.page]
    lanes["Used in other chapters"] = [id for id in ledger if id in users - used]
    return {name: ids for name, ids in lanes.items() if ids}


def render(chapter: str, names: Mapping[str, str], records: Mapping[str, Record], href: Callable[[str], str]) -> str:
    """The map of a chapter as HTML.

    Args:
        chapter: prefix of its claims.
        names: what its pages are called, in reading order.
        records: what was measured, by id.
        href: the address of a page of the book, from where the map stands.
    """
    ledger = claims.ledger()
    lanes = lanes_of(chapter, names)
    placed = layout(lanes, [(id, claim.id) for claim in ledger.values() for id in claim.uses])
    pages = {name: page for page, name in names.items()}
    labels = "".join(
        f'<div class="lane" style="top: {top}px">'
        + (f'<a href="{href(pages[name])}">{html.escape(name)}</a>' if name in pages else html.escape(name))
        + "</div>"
        for name, top in placed.lanes.items()
    )
    boxes = "".join(_box(ledger[id], records.get(id), at, chapter, href) for id, at in placed.boxes.items())
    paths = "".join(
        f'<path d="{d}" data-from="{a}" data-to="{b}" marker-end="url(#arrowhead)"/>'
        for (a, b), d in placed.arrows.items()
    )
    words = f"{len(placed.arrows)} arrows, each from a claim to one that uses it"
    size = f'width="{WIDTH}" height="{placed.height}" viewBox="0 0 {WIDTH} {placed.height}"'
    drawing = (
        f'<div role="img" aria-label="{words}"><svg {size}><defs><marker id="arrowhead" viewBox="0 0 8 8" refX="7" '
        'refY="4" markerWidth="8" markerHeight="8" markerUnits="userSpaceOnUse" orient="auto">'
        f'<path d="M0,0.5 L7.5,4 L0,7.5 z"/></marker></defs>{paths}</svg></div>'
    )
    style = f"width: {WIDTH}px; height: {placed.height - GAPS[1]}px; --box: {BOX[0]}px; --tall: {BOX[1]}px"
    caption = "A row is a page, an arrow leads from a claim to one that uses it. Each box links to its verdict."
    return (
        f'<nav class="claim-map" aria-label="Map of the claims"><div style="{style}">{drawing}{labels}{boxes}</div>'
        f"<p>{caption}</p></nav>"
    )


def _box(claim: Claim, record: Record | None, at: tuple[int, int], chapter: str, href: Callable[[str], str]) -> str:
    verdict = record.verdict if record else "open"
    word = claims.badge(record and record.verdict, claims.marks(claim.id, record))
    foreign = "" if claim.chapter == chapter else " foreign"
    inside = f"{word}<span>{claims.typeset(claim.title)}</span>"
    style = f'class="{verdict}{foreign}" style="left: {at[0]}px; top: {at[1]}px" data-id="{claim.id}"'
    if claim.page is None:
        return f"<div {style}>{inside}</div>"
    return f'<a {style} href="{href(claim.page)}#{claim.id}">{inside}</a>'
