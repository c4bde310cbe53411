"""Verdicts follow from evidence alone; cards say what was measured and let no text become markup."""

import itertools
import json
import re
from dataclasses import asdict, replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from firststep.book import claims
from firststep.book.evidence import below, equal

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.usefixtures("clean_environment")

LEDGER = """
papers: {toy: {title: Toy, authors: us, year: 2000, chapter: book/toy, key: null}}
claims:
  - {id: toy.algebra, title: Algebra, locator: "Eq. (1)", statement: "$a < b$ & so on", criterion: "all of 10",
     page: book/toy, needs: smoke, pinned: holds}
  - {id: toy.training, title: Training, locator: new, statement: it trains, criterion: most, page: book/toy,
     needs: cpu, pinned: null}
  - {id: toy.large, title: Large, locator: new, statement: it scales, criterion: all, page: null,
     needs: gpu, pinned: null}
"""
MET, MISSED = below("error", 0.1, 1), below("error", 2, 1)
EVIDENCE = {
    "prediction": "one", "printed": [MET], "control": [equal("failures", 3, 3)], "seeds": "0–9", "dtype": "float64",
}  # fmt: skip


@pytest.fixture
def book(tmp_path, clean_environment):
    """A book of three claims, which the working directory lies in; yields what is displayed."""
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "claims.yml").write_text(LEDGER, encoding="utf-8")
    clean_environment.chdir(tmp_path / "book")
    shown = []
    clean_environment.setattr(claims, "display", lambda bundle, **options: shown.append((bundle, options)))
    claims.ledger.cache_clear()
    yield shown
    claims.ledger.cache_clear()


def record(**changes):
    whole = claims.Record(
        id="toy.algebra", verdict="holds", prediction="p", rows={"printed": [MET]}, criterion="c", no_control="k",
        repair=None, reduced=None, undecided=None, scale="cpu", dtype="float64", seeds="0", seconds=1.5,
        versions={"torch": "2"},
    )  # fmt: skip
    return replace(whole, **changes)


REFUTED = {"verdict": "refuted", "rows": {"printed": [MISSED]}}


# Verdicts


def by_hand(printed, repaired, ours, control, decides, reduced, undecided):
    """The verdict as the ledger's header words it, case by case; what the book predicts beyond the paper is no case."""
    match (undecided, control, decides, printed, reduced, repaired):
        case (str(), _, _, _, _, _):
            return "inconclusive"
        case (None, False, _, _, _, _) | (None, _, False, _, _, _):
            return "inconclusive"  # a check that passes without its assumption shows nothing
        case (None, _, _, True, None, _):
            return "holds"
        case (None, _, _, True, str(), _):
            return "holds_reduced"
        case (None, _, _, False, _, True):
            return "corrected"
        case _:
            return "refuted"


@pytest.mark.parametrize(
    "printed, repaired, ours, control, decides, reduced, undecided",
    list(itertools.product((True, False), *[(None, True, False)] * 4, (None, "half"), (None, "too few"))),
)
def test_the_verdict_follows_from_the_rows(printed, repaired, ours, control, decides, reduced, undecided):
    given = {"printed": printed, "repaired": repaired, "ours": ours, "control": control, "decides_if": decides}
    rows = {group: [MET, MET if met else MISSED] for group, met in given.items() if met is not None}
    expected = by_hand(printed, repaired, ours, control, decides, reduced, undecided)
    assert claims.verdict(rows, reduced=reduced, undecided=undecided) == expected
    assert expected in claims.VERDICTS


# Settling


def test_settling_shows_a_card_and_leaves_the_same_record_on_disk(book, tmp_path):
    claims.settle("toy.algebra", **EVIDENCE)
    (found,) = claims.records().values()
    assert (found.id, found.verdict, found.scale, found.criterion) == ("toy.algebra", "holds", "cpu", "all of 10")
    assert {"firststep", "python", "torch", "numpy", "scipy"} == set(found.versions)
    assert found.seconds >= 0
    assert list((tmp_path / "_build" / "verdicts").iterdir()) == [tmp_path / "_build" / "verdicts" / "toy.algebra.json"]
    ((bundle, options),) = book
    assert options["metadata"]["firststep"] == asdict(found)
    assert bundle["text/plain"].splitlines() == [
        "toy.algebra: holds", "  ✓ printed: error: 0.1, below 1", "  ✓ control: failures: 3, asked for 3",
    ]  # fmt: skip
    for text in ("failures", "float64", "0–9", "cpu scale", "all of 10", "Eq. (1)"):
        assert text in bundle["text/html"]


@pytest.mark.parametrize("scale_, verdicts", [
    ("smoke", {"toy.algebra": "holds", "toy.training": "inconclusive", "toy.large": "inconclusive"}),
    ("cpu", {"toy.algebra": "holds", "toy.training": "holds", "toy.large": "inconclusive"}),
    ("gpu", {"toy.algebra": "holds", "toy.training": "holds", "toy.large": "holds"}),
])  # fmt: skip
def test_a_run_below_the_scale_that_a_claim_needs_settles_nothing(book, monkeypatch, scale_, verdicts):
    monkeypatch.setenv("FIRSTSTEP_SCALE", scale_)
    for id in verdicts:
        claims.settle(id, **EVIDENCE)
    found = claims.records()
    assert {id: r.verdict for id, r in found.items()} == verdicts
    for r in found.values():
        assert (r.undecided is None) == (r.verdict == "holds")
        assert r.undecided is None or scale_ in r.undecided


def test_settling_again_replaces_the_record(book):
    claims.settle("toy.algebra", **EVIDENCE)
    claims.settle("toy.algebra", **EVIDENCE | {"printed": [MISSED]})
    assert claims.records()["toy.algebra"].verdict == "refuted"


def test_a_repair_that_passes_corrects_and_is_shown(book):
    claims.settle("toy.algebra", **EVIDENCE | {"printed": [MISSED]}, repair="a ≤ b", repaired=[MET])
    assert claims.records()["toy.algebra"].verdict == "corrected"
    assert "<p><b>Repair:</b> a ≤ b</p>" in book[0][0]["text/html"]


def test_numpy_evidence_makes_a_record_that_is_plain_json(book, tmp_path):
    numbers = [below("array", np.float32(0.5), torch.tensor(1.0)), equal("count", np.int64(3), torch.tensor(4))]
    claims.settle("toy.algebra", **EVIDENCE | {"control": numbers})
    text = (tmp_path / "_build" / "verdicts" / "toy.algebra.json").read_text(encoding="utf-8")
    assert json.loads(text)["verdict"] == "inconclusive"


# Records

words = st.text(max_size=20)


@given(
    prediction=words, no_control=words, repair=st.none() | words, seconds=st.floats(0, 1e6),
    value=st.floats() | st.integers(),
)  # fmt: skip
def test_a_record_that_is_written_is_read_back_unchanged(tmp_path_factory, value, **fields):
    rows = {"printed": [below("value", value, 3)]}
    fields |= {"rows": rows, "verdict": claims.verdict(rows)}
    folder = tmp_path_factory.mktemp("verdicts")
    claims.write(record(**fields), folder)
    assert claims.records(folder) == {"toy.algebra": record(**fields)}


def test_records_come_in_the_order_of_their_ids_and_an_absent_folder_has_none(tmp_path):
    for id in ("b.x", "a.y", "a.x"):
        claims.write(record(id=id), tmp_path / "new" / "folder")
    assert list(claims.records(tmp_path / "new" / "folder")) == ["a.x", "a.y", "b.x"]
    assert claims.records(tmp_path / "absent") == {}


# Drift


def test_drift_is_where_a_measured_verdict_differs_from_its_pin(book):
    ledger = claims.ledger()
    assert claims.drift(ledger, {"toy.algebra": record()}) == []
    (sentence,) = claims.drift(ledger, {"toy.algebra": record(**REFUTED)})
    assert sentence == "toy.algebra: measured 'refuted', pinned 'holds' in book/claims.yml"


def test_a_verdict_without_a_pin_is_drift_and_so_is_a_claim_that_the_ledger_does_not_know(book):
    found = {id: record(id=id) for id in ("toy.training", "toy.forgotten")}
    assert len(claims.drift(claims.ledger(), found)) == 2


@pytest.mark.parametrize("id, scale_, judged", [
    ("toy.algebra", "smoke", True), ("toy.algebra", "cpu", True), ("toy.algebra", "gpu", True),
    ("toy.training", "smoke", False), ("toy.training", "cpu", True), ("toy.training", "gpu", True),
    ("toy.large", "cpu", False), ("toy.large", "gpu", True),
])  # fmt: skip
def test_a_record_is_compared_with_its_pin_from_the_scale_on_that_its_claim_needs(book, id, scale_, judged):
    found = {id: record(id=id, scale=scale_, **REFUTED)}
    assert bool(claims.drift(claims.ledger(), found)) is judged


def test_the_command_that_ends_the_notebooks_run_fails_with_a_sentence_where_a_verdict_drifted(book, capsys):
    claims.write(record())
    assert claims.main() == 0
    claims.write(record(**REFUTED))
    assert claims.main() == 1
    assert "toy.algebra: measured 'refuted'" in capsys.readouterr().err


# Evidence that is none


@pytest.mark.parametrize("name", ["printed", "repaired", "ours", "control", "decides_if"])
@pytest.mark.parametrize("value", [True, 1.0, "yes", [True], [MET, None], {"a": MET}, [MET, MET]])
def test_what_decides_are_rows_that_say_different_things(book, name, value):
    with pytest.raises(ValueError, match=name):
        claims.settle("toy.algebra", **EVIDENCE | {"repair": "r", "repaired": [MET]} | {name: value})
    assert claims.records() == {}


@pytest.mark.parametrize("control, reason", [([], None), ([MET], "none exists")])
def test_there_is_a_control_or_a_reason_why_none_exists(book, control, reason):
    with pytest.raises(ValueError, match="no_control"):
        claims.settle("toy.algebra", **EVIDENCE | {"control": control, "no_control": reason})


def test_a_verdict_that_does_not_follow_from_the_rows_of_its_record_is_noticed(book):
    claims.write(record(verdict="refuted"))
    with pytest.raises(ValueError, match="what follows from its rows, 'holds'"):
        claims.records()


def test_a_page_of_the_book_settles_a_claim_once_and_a_reader_may_run_a_cell_again(book, monkeypatch):
    monkeypatch.setattr(claims, "_settled", set())
    claims.settle("toy.algebra", **EVIDENCE)
    claims.settle("toy.algebra", **EVIDENCE)
    monkeypatch.setenv("FIRSTSTEP_BUILD", "1")
    with pytest.raises(ValueError, match="settles it twice"):
        claims.settle("toy.algebra", **EVIDENCE | {"printed": [MISSED]})


def test_a_rehearsal_settles_nothing_and_leaves_no_record(book, monkeypatch):
    monkeypatch.setenv("FIRSTSTEP_REHEARSE", "1")
    claims.settle("toy.algebra", **EVIDENCE)
    assert claims.records() == {}
    assert book[0][0]["text/plain"].startswith("toy.algebra: inconclusive")


# Cards


class Markup(HTMLParser):
    """Collects tags, attributes and text, as a browser would see them."""

    def __init__(self, source):
        super().__init__(convert_charrefs=True)
        self.tags, self.open, self.text = [], [], ""
        self.feed(source)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@given(text=st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=60))
def test_typesetting_keeps_every_character_and_makes_no_tag_but_that_of_mathematics(text):
    seen = Markup(claims.typeset(text))
    assert {tag for tag, _ in seen.tags} <= {"span"}
    assert seen.open == []
    assert seen.text == re.sub(r"\$([^$]+)\$", r"\\(\1\\)", text)


@given(text=st.text(alphabet="<>&\"'$a/!-", max_size=40))
def test_no_angle_bracket_of_a_text_survives_typesetting(text):
    bare = re.sub(r'<span class="math notranslate nohighlight">|</span>', "", claims.typeset(text))
    assert "<" not in bare
    assert ">" not in bare


def test_dollars_mark_mathematics():
    assert claims.typeset("if $x<1$ then") == ('if <span class="math notranslate nohighlight">\\(x&lt;1\\)</span> then')
    assert claims.typeset("costs 5$") == "costs 5$"


@given(texts=st.lists(st.text(alphabet="<>&\"'script=/ ", max_size=30), min_size=10, max_size=10))
def test_a_card_has_the_same_markup_whatever_the_texts_say(texts):
    def card(t):
        t = [text.strip() or "-" for text in t]
        claim = claims.Claim("toy.algebra", t[0], t[1], t[2], "c", "book/toy", "smoke", None)
        rows = {"printed": [equal(t[3], t[4], t[5])]}
        fields = zip(("prediction", "criterion", "seeds", "dtype"), t[6:], strict=True)
        seen = Markup(claims.card(claim, record(rows=rows, **dict(fields))))
        return [(tag, {k: v for k, v in a.items() if k != "class" and k != "aria-label"}) for tag, a in seen.tags]

    assert card(texts) == card(["plain"] * 10)


@pytest.mark.parametrize("verdict", [*claims.VERDICTS, None])
def test_a_badge_is_one_coloured_word_for_each_verdict_and_for_none(verdict):
    seen = Markup(claims.badge(verdict))
    assert seen.tags == [("span", {"class": f"badge {verdict or 'open'}"})]
    assert seen.text == (verdict.replace("_", ", ") if verdict else "not settled yet")


# The book's own ledger


@pytest.fixture
def ledger():
    claims.ledger.cache_clear()
    return claims.ledger(ROOT / "book" / "claims.yml")


def test_claims_stand_in_the_order_of_their_chapters(ledger):
    assert list(dict.fromkeys(claim.chapter for claim in ledger.values())) == list(claims.papers())
    assert all(re.fullmatch(r"[a-z_]+\.[a-z0-9_]+", id) for id in ledger)


def test_a_claim_without_a_page_is_not_pinned(ledger):
    assert [claim.id for claim in ledger.values() if claim.page is None and claim.pinned is not None] == []


def test_titles_are_short_and_every_text_is_there(ledger):
    for claim in ledger.values():
        assert len(claim.title.split()) <= 8, claim.id
        assert claim.statement and claim.criterion and claim.locator, claim.id
        for text in (claim.title, claim.statement, claim.criterion):
            assert text.count("$") % 2 == 0, claim.id


def test_the_root_is_found_from_any_folder_of_the_checkout_and_from_outside(monkeypatch, tmp_path):
    for folder in (ROOT, ROOT / "book", ROOT / "tests" / "unit", tmp_path):
        monkeypatch.chdir(folder)
        assert claims.root() == ROOT
