"""The book at a glance: the landscape of the title page, a tile for each chapter, and tables of claims.

Everything here is HTML made from the ledger and its records; the scripts only add to what can be read without them.
"""

import html
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from firststep import checks
from firststep.book import claims, figures
from firststep.book.claims import Claim, Record

FATES = {  # of gradient descent on the landscape, each with its colour
    "converges": (figures.COLORS["blue"], "reaches a minimum"),
    "stuck": (figures.COLORS["vermilion"], "held up on the way, the longer the darker"),
    "diverges": (figures.COLORS["purple"], "diverges"),
}
_FIRST_LINES = re.compile(r"\A# (?P<title>[^\n]+)\n+\*(?P<question>[^*\n]+\?)\*", re.MULTILINE)


def landscape(*, eta: float, steps: int, starts: Mapping[str, tuple[float, float]]) -> str:
    """The landscape ½(w₂w₁ + 1)² with a start that a reader drags; the script ``landscape.js`` shows and draws it.

    Args:
        eta: the step size.
        steps: the length of a run.
        starts: starts to try, by name.
    """
    setting = {"eta": eta, "steps": steps, "colors": {name: color for name, (color, _) in FATES.items()}}
    buttons = [
        f'<button type="button" data-to="{w1:g},{w2:g}">({w1:g}, {w2:g}) {html.escape(name)}</button>'
        for name, (w1, w2) in starts.items()
    ]
    key = [f'<li><i style="background: {color}"></i>{words}</li>' for color, words in FATES.values()]
    plane = "The landscape of one half of (w2 w1 plus 1) squared, shaded by the fate of each start, with one path"
    return (
        f'<section class="landscape" aria-label="Try a start" data-setting="{html.escape(json.dumps(setting))}" hidden>'
        f'<div class="starts">{"".join(buttons)}<button type="button" class="surprise">Surprise me</button>'
        '<button type="button" class="zoom">Zoom out</button></div>'
        f'<div class="views"><div class="plane"><div role="img" aria-label="{plane}"><canvas></canvas><svg></svg></div>'
        '<button type="button" class="handle" aria-label="Start"></button></div>'
        '<div role="img" aria-label="The loss of this run at each step"><svg></svg></div>'
        f'<p class="fate" aria-live="polite"></p></div><ul class="key">{"".join(key)}</ul></section>'
    )


def question(chapter: str) -> tuple[str, str]:
    """Title and question of a chapter, as the first lines of its index say them.

    Raises:
        ValueError: the chapter's index does not begin so.
    """
    path = claims.root() / f"{claims.papers()[chapter]['chapter']}.md"
    found = _FIRST_LINES.match(path.read_text(encoding="utf-8"))
    checks.require(found is not None, "chapter", chapter, "one whose index begins with a title and a question in *…?*")
    return found["title"], found["question"]


def chapters() -> list[str]:
    """The prefixes of the chapters that stand in the book, in the order of the ledger."""
    return [key for key, paper in claims.papers().items() if (claims.root() / f"{paper['chapter']}.md").is_file()]


def counted(listed: Iterable[Claim], records: Mapping[str, Record]) -> dict[str, int]:
    """How many claims have each verdict, best first; ``open`` is what is not settled yet. Zeros are left out."""
    found = Counter(records[claim.id].verdict if claim.id in records else "open" for claim in listed)
    return {verdict: found[verdict] for verdict in [*claims.VERDICTS, "open"] if found[verdict]}


def named(verdict: str) -> str:
    """A verdict in words: ``holds, reduced``."""
    return "not settled yet" if verdict == "open" else verdict.replace("_", ", ")


def bar(counts: Mapping[str, int]) -> str:
    """The verdicts as a bar, with the same in words below."""
    parts = "".join(f'<span class="{verdict}" style="flex: {n}"></span>' for verdict, n in counts.items())
    words = " · ".join(f"{n} {named(verdict)}" for verdict, n in counts.items())
    return f'<div class="verdict-bar" aria-hidden="true">{parts}</div><small>{words}</small>'


def tiles(records: Mapping[str, Record], href: Callable[[str], str]) -> str:
    """A tile for each chapter: its name, its question, and the verdicts on its claims.

    Args:
        records: what was measured, by id.
        href: the address of a page of the book, from where the tiles stand.
    """
    items = []
    for chapter in chapters():
        title, asked = question(chapter)
        counts = counted((claim for claim in claims.ledger().values() if claim.chapter == chapter), records)
        link = f'<a href="{href(claims.papers()[chapter]["chapter"])}">{claims.typeset(title)}</a>'
        items.append(f"<li>{link}<p>{claims.typeset(asked)}</p>{bar(counts)}</li>")
    return f'<ul class="tiles">{"".join(items)}</ul>'


def meanings(counts: Mapping[str, int]) -> str:
    """What the verdicts mean, and how many claims have each."""
    words = claims.VERDICTS | {"open": "its page is still to be written"}
    badges = {verdict: claims.badge(verdict if verdict != "open" else None) for verdict in words}
    items = "".join(
        f"<div><dt>{badge} {counts.get(verdict, 0)}</dt><dd>{words[verdict]}</dd></div>"
        for verdict, badge in badges.items()
    )
    return f'<dl class="verdicts">{items}</dl>'


# Tables of claims


def table(
    listed: Iterable[Claim],
    records: Mapping[str, Record],
    href: Callable[[str], str],
    names: Mapping[str, str] | None = None,
) -> str:
    """Claims with their verdicts, a row each; on a phone a card each.

    Args:
        listed: which claims, in order.
        records: what was measured, by id.
        href: the address of a page of the book, from where the table stands.
        names: what pages are called; with them a column names the page of each claim, else one says how it was run.
    """
    last = "page" if names is not None else "evidence"
    body = "".join(_row(claim, records.get(claim.id), href, names) for claim in listed)
    head = "".join(f'<th scope="col">{word}</th>' for word in ("verdict", "claim", "where", last))
    return f'<table class="claims"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def _row(claim: Claim, record: Record | None, href: Callable[[str], str], names: Mapping[str, str] | None) -> str:
    verdict = record.verdict if record else "open"
    badge = claims.badge(record and record.verdict, claims.marks(claim.id, record))
    title = claims.typeset(claim.title)
    name = f'<a href="{href(claim.page)}#{claim.id}">{title}</a>' if claim.page else title
    if names is not None:
        page = claim.page and f'<a href="{href(claim.page)}">{html.escape(names[claim.page])}</a>'
    else:
        met, rows = record.counted if record else (0, 0)
        page = record and f"{met} of {rows} rows met · {record.scale},\u00a0{record.seconds:.0f}\u00a0s"
    return (
        f'<tr data-paper="{claim.chapter}" data-is="{verdict}"><td>{badge}</td>'
        f"<td>{name} <small><code>{claim.id}</code></small></td><td>{html.escape(claim.locator)}</td>"
        f"<td>{page or '–'}</td></tr>"
    )


def filters(listed: Iterable[Claim], records: Mapping[str, Record]) -> str:
    """Buttons that keep the rows of one verdict and of one paper, each with its count; the script shows them."""
    listed = list(listed)
    verdicts = {named(verdict): (verdict, n) for verdict, n in counted(listed, records).items()}
    papers = Counter(claim.chapter for claim in listed)
    titles = {key: question(key)[0] if key in chapters() else paper["title"] for key, paper in claims.papers().items()}
    found = {titles[key]: (key, papers[key]) for key in titles if papers[key]}
    groups = _buttons("is", "Verdict", verdicts, len(listed)) + _buttons("paper", "Chapter", found, len(listed))
    return f'<div class="filters" hidden>{groups}<p aria-live="polite"></p></div>'


def _buttons(what: str, name: str, choices: Mapping[str, tuple[str, int]], total: int) -> str:
    buttons = "".join(
        f'<button type="button" data-value="{value}" aria-pressed="{str(not value).lower()}">'
        f"{claims.typeset(words)} <small>{n}</small></button>"
        for words, (value, n) in ({"all": ("", total)} | dict(choices)).items()
    )
    return f'<div role="group" aria-label="{name}" data-filter="{what}"><b>{name}</b>{buttons}</div>'
