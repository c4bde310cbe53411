"""A chapter's claims as a map: a box for each claim, and an arrow from it to each claim that uses it, always downwards.

The layout is made of plain numbers, so that it can be tested. Claims stand in rows, each below all that it uses; an
arrow that passes a row has a place of its own there, beside the boxes; rows take the order with the fewest crossings
that a few sweeps find. The boxes are links of the page, over a drawing of the arrows.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from firststep.book import claims
from firststep.book.claims import Claim, Record

WIDTH = 740
ACROSS = 4  # boxes side by side
BOX = (152, 76)  # width and height
GAP = (10, 38)  # between what stands in a row, and between rows
SWEEPS = 8

Pair = tuple[str, str]
Item = str | Pair  # in a row stands a box, or ("past", id): the place where arrows from a claim pass


@dataclass(frozen=True)
class Layout:
    """Where things stand, in pixels.

    Attributes:
        height: of the whole map.
        boxes: left and top of each box, by claim.
        arrows: from a claim to one that uses it, as points that the arrow goes through.
        apart: the top of the claims that no arrow touches; they stand in reading order.
    """

    height: int
    boxes: dict[str, tuple[float, int]] = field(default_factory=dict)
    arrows: dict[Pair, list[tuple[float, int]]] = field(default_factory=dict)
    apart: int | None = None


def layout(ids: Sequence[str], uses: Sequence[Pair]) -> Layout:
    """Place claims, and lead the arrows past the boxes.

    Args:
        ids: the claims, in reading order.
        uses: pairs of a claim and one that uses it; those with a claim that is not in ``ids`` are left out, and so
            are those that would close a circle.
    """
    pairs = _without_circles([(a, b) for a, b in uses if a in ids and b in ids])
    touched = [id for id in ids if any(id in pair for pair in pairs)]
    level = levels(touched, pairs)
    rows = [[id for id in touched if level[id] == k] for k in range(max(level.values(), default=-1) + 1)]
    links = _add_passes(rows, level, pairs)
    _order(rows, links)
    x = _across(rows, links)
    boxes = {id: (x[id], level[id] * (BOX[1] + GAP[1])) for id in touched}
    arrows = {pair: _way(pair, boxes, x, level, pairs) for pair in pairs}
    top = len(rows) * (BOX[1] + GAP[1])
    alone = [id for id in ids if id not in touched]
    for k, id in enumerate(alone):
        boxes[id] = (k % ACROSS * (BOX[0] + GAP[0]), top + k // ACROSS * (BOX[1] + GAP[0]))
    height = max((y + BOX[1] for _, y in boxes.values()), default=0)
    return Layout(height, boxes, arrows, top if alone else None)


def _without_circles(pairs: Sequence[Pair]) -> list[Pair]:
    kept: list[Pair] = []
    for a, b in pairs:
        reached, waiting = set(), [b]
        while waiting:
            reached.add(here := waiting.pop())
            waiting += [d for c, d in kept if c == here and d not in reached]
        if a not in reached and (a, b) not in kept:
            kept.append((a, b))
    return kept


def levels(ids: Sequence[str], pairs: Sequence[Pair]) -> dict[str, int]:
    """The row of each claim: below all that it uses, at most ``ACROSS`` in a row, and close to what uses it."""
    level: dict[str, int] = {}
    while len(level) < len(ids):
        for id in ids:
            below = [a for a, b in pairs if b == id]
            if id not in level and all(a in level for a in below):
                row = max((level[a] + 1 for a in below), default=0)
                while list(level.values()).count(row) >= ACROSS:
                    row += 1
                level[id] = row
    for id in sorted(ids, key=lambda id: -level[id]):  # lowest first, so that chains move down together
        above = min((level[b] for a, b in pairs if a == id), default=0)
        free = [row for row in range(level[id] + 1, above) if list(level.values()).count(row) < ACROSS]
        level[id] = max(free, default=level[id])
    used = sorted(set(level.values()))
    return {id: used.index(row) for id, row in level.items()}


def _add_passes(
    rows: list[list[Item]], level: Mapping[str, int], pairs: Sequence[Pair]
) -> list[tuple[Item, Item, int]]:
    """Give arrows a place in every row that they pass, one for all arrows from a claim.

    Returns:
        What is linked to what in the row below, with the number of the upper row.
    """
    links = set()
    for a, b in pairs:
        for row in range(level[a], level[b]):
            upper = a if row == level[a] else ("past", a)
            lower = b if row + 1 == level[b] else ("past", a)
            links.add((upper, lower, row))
            if lower == ("past", a) and lower not in rows[row + 1]:
                rows[row + 1].append(lower)
    return sorted(links, key=str)


def crossings(rows: Sequence[Sequence[Item]], links: Sequence[tuple[Item, Item, int]]) -> int:
    """How often arrows cross between rows."""
    total = 0
    for k in range(len(rows) - 1):
        ends = [(rows[k].index(a), rows[k + 1].index(b)) for a, b, row in links if row == k]
        total += sum((p - r) * (q - s) < 0 for i, (p, q) in enumerate(ends) for r, s in ends[:i])
    return total


def _order(rows: list[list[Item]], links: Sequence[tuple[Item, Item, int]]) -> None:
    """Sort every row by the mean place of its neighbours, downwards and upwards, and keep the best order seen."""
    best, fewest = [list(row) for row in rows], crossings(rows, links)
    for sweep in range(SWEEPS):
        down = sweep % 2 == 0
        for k in range(1, len(rows)) if down else range(len(rows) - 2, -1, -1):
            beside = rows[k - 1] if down else rows[k + 1]
            place = {item: (n + 0.5) / len(beside) for n, item in enumerate(beside)}
            near = {
                item: [place[a] for a, b, row in links if b == item and row == k - 1]
                if down
                else [place[b] for a, b, row in links if a == item and row == k]
                for item in rows[k]
            }
            own = {item: (n + 0.5) / len(rows[k]) for n, item in enumerate(rows[k])}
            rows[k].sort(key=lambda item: sum(near[item]) / len(near[item]) if near[item] else own[item])
        if (now := crossings(rows, links)) < fewest:
            best, fewest = [list(row) for row in rows], now
    rows[:] = best


def _wide(item: Item) -> int:
    return BOX[0] if isinstance(item, str) else 4


def _across(rows: Sequence[Sequence[Item]], links: Sequence[tuple[Item, Item, int]]) -> dict[Item, float]:
    """The left edge of each item: under the middle of its neighbours where the row has room, in the row's order."""
    left: dict[tuple[int, Item], float] = {}
    for sweep in range(SWEEPS):
        order = range(len(rows)) if sweep % 2 == 0 else range(len(rows) - 1, -1, -1)
        for k in order:
            wanted = []
            for item in rows[k]:
                near = [(k - 1, a) for a, b, row in links if b == item and row == k - 1]
                near += [(k + 1, b) for a, b, row in links if a == item and row == k]
                middles = [left[n] + _wide(n[1]) / 2 for n in near if n in left]
                wanted.append(sum(middles) / len(middles) - _wide(item) / 2 if middles else 0.0)
            spare = (WIDTH - sum(map(_wide, rows[k]))) / max(len(rows[k]) - 1, 1)
            left |= {(k, item): x for item, x in zip(rows[k], _apart(rows[k], wanted, min(GAP[0], spare)), strict=True)}
    return {(item if isinstance(item, str) else (*item, k)): round(x, 1) for (k, item), x in left.items()}


def _apart(row: Sequence[Item], wanted: Sequence[float], gap: float) -> list[float]:
    """Places as near to the wanted ones as the row's order, its width and the gaps allow: from the left, then back."""
    places, edge = [], 0.0
    for item, x in zip(row, wanted, strict=True):
        places.append(max(x, edge))
        edge = places[-1] + _wide(item) + gap
    edge = float(WIDTH)
    for k in range(len(row) - 1, -1, -1):
        places[k] = min(places[k], edge - _wide(row[k]))
        edge = places[k] - gap
    return places


def _way(
    pair: Pair, boxes: Mapping[str, tuple[float, int]], x: Mapping, level: Mapping[str, int], pairs: Sequence[Pair]
) -> list[tuple[float, int]]:
    """From the middle of a claim's lower edge, past the rows between, to the upper edge of the claim that uses it."""
    a, b = pair
    points = [(boxes[a][0] + BOX[0] / 2, boxes[a][1] + BOX[1])]
    for row in range(level[a] + 1, level[b]):
        top, middle = row * (BOX[1] + GAP[1]), x["past", a, row] + 2
        points += [(middle, top), (middle, top + BOX[1])]

    def comes_from(source: str) -> tuple[float, str]:
        passes = level[b] - 1 > level[source]
        return (x["past", source, level[b] - 1] if passes else boxes[source][0], source)

    sources = sorted((c for c, d in pairs if d == b), key=comes_from)
    port = boxes[b][0] + BOX[0] * (sources.index(a) + 1) / (len(sources) + 1)
    return [*points, (round(port, 1), boxes[b][1])]


def path(points: Sequence[tuple[float, int]]) -> str:
    """An arrow as the commands of an SVG path: upright beside boxes, curved between rows."""
    (x, y), *others = points
    commands = [f"M{x:g},{y}"]
    for (x1, y1), (x2, y2) in zip(points, others, strict=False):
        half = (y2 - y1) / 2
        straight = x1 == x2
        commands.append(f"L{x2:g},{y2}" if straight else f"C{x1:g},{y1 + half:g} {x2:g},{y2 - half:g} {x2:g},{y2}")
    return " ".join(commands)


def neighbours(chapter: str) -> list[str]:
    """The claims of a chapter in reading order, and those of others that they use or that use them."""
    ledger = claims.ledger()
    own = {claim.id for claim in ledger.values() if claim.chapter == chapter}
    used = {id for claim in ledger.values() if claim.id in own for id in claim.uses}
    users = {claim.id for claim in ledger.values() if own & set(claim.uses)}
    return [id for id in ledger if id in own | used | users]


def render(chapter: str, records: Mapping[str, Record], href: Callable[[str], str]) -> str:
    """The map of a chapter as HTML.

    Args:
        chapter: prefix of its claims.
        records: what was measured, by id.
        href: the address of a page of the book, from where the map stands.
    """
    ledger = claims.ledger()
    shown = neighbours(chapter)
    between = [(id, c.id) for c in ledger.values() for id in c.uses if chapter in (c.chapter, ledger[id].chapter)]
    placed = layout(shown, between)
    boxes = "".join(_box(ledger[id], records.get(id), at, chapter, href) for id, at in placed.boxes.items())
    paths = "".join(
        f'<path d="{path(points)}" data-from="{a}" data-to="{b}" marker-end="url(#arrowhead)"/>'
        for (a, b), points in placed.arrows.items()
    )
    words = f"{len(placed.arrows)} arrows, each from a claim to one that uses it"
    size = f'width="{WIDTH}" height="{placed.height}" viewBox="0 0 {WIDTH} {placed.height}"'
    drawing = (
        f'<div role="img" aria-label="{words}"><svg {size}><defs><marker id="arrowhead" viewBox="0 0 8 8" refX="7" '
        'refY="4" markerWidth="8" markerHeight="8" markerUnits="userSpaceOnUse" orient="auto">'
        f'<path d="M0,0.5 L7.5,4 L0,7.5 z"/></marker></defs>{paths}</svg></div>'
    )
    rule = "" if placed.apart is None or not placed.arrows else f'<hr style="top: {placed.apart - GAP[1] // 2}px">'
    style = f"width: {WIDTH}px; height: {placed.height}px; --box: {BOX[0]}px; --tall: {BOX[1]}px"
    said = {
        "An arrow leads from a claim to one that uses it.": bool(placed.arrows),
        "Dashed boxes are claims of other chapters.": any(ledger[id].chapter != chapter for id in shown),
        "Below the line stand claims that no arrow touches.": bool(rule),
        "Each box links to its verdict.": True,
    }
    caption = " ".join(sentence for sentence, true in said.items() if true)
    return (
        f'<nav class="claim-map" aria-label="Map of the claims"><div style="{style}">{drawing}{rule}{boxes}</div>'
        f"<p>{caption}</p></nav>"
    )


def _box(claim: Claim, record: Record | None, at: tuple[float, int], chapter: str, href: Callable[[str], str]) -> str:
    verdict = record.verdict if record else "open"
    word = claims.badge(record and record.verdict, claims.marks(claim.id, record))
    foreign = "" if claim.chapter == chapter else " foreign"
    inside = f"{word}<span>{claims.typeset(claim.title)}</span>"
    style = f'class="{verdict}{foreign}" style="left: {at[0]:g}px; top: {at[1]}px" data-id="{claim.id}"'
    if claim.page is None:
        return f"<div {style}>{inside}</div>"
    return f'<a {style} href="{href(claim.page)}#{claim.id}">{inside}</a>'
