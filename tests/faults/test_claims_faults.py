"""Damaged ledgers and records, wrong calls, and a run that is killed while it writes."""

import os
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from firststep.book import claims
from firststep.book.evidence import below

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.usefixtures("clean_environment")
MET = below("error", 0.1, 1)
EVIDENCE = {"prediction": "p", "printed": [MET], "control": [MET], "seeds": "0", "dtype": "float64"}
ENTRY = {
    "id": "toy.one", "title": "One", "locator": "new", "statement": "s", "criterion": "c", "page": None,
    "needs": "smoke", "pinned": None,
}  # fmt: skip


def record(**changes):
    whole = {
        "id": "toy.one", "verdict": "holds", "prediction": "p", "rows": {"printed": [MET]}, "criterion": "c",
        "no_control": "k", "repair": None, "reduced": None, "undecided": None, "scale": "cpu", "dtype": "float64",
        "seeds": "0", "seconds": 1.0, "versions": {},
    }  # fmt: skip
    return claims.Record(**whole | changes)


def ledger(tmp_path, *entries):
    """Read a ledger of these entries, from a file of its own."""
    path = tmp_path / f"{os.urandom(8).hex()}.yml"
    path.write_text(yaml.safe_dump({"papers": {}, "claims": list(entries)}), encoding="utf-8")
    return claims.ledger(path)


# Interrupted writing


def test_a_run_killed_before_the_rename_leaves_the_old_record_and_nothing_that_is_read(tmp_path, monkeypatch):
    claims.write(record(prediction="old"), tmp_path)

    def killed(*paths):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        claims.write(record(prediction="new"), tmp_path)
    assert claims.records(tmp_path)["toy.one"].prediction == "old"
    assert list(claims.records(tmp_path)) == ["toy.one"]


def test_a_run_killed_in_the_middle_of_writing_leaves_the_old_record(tmp_path, monkeypatch):
    claims.write(record(prediction="old"), tmp_path)

    def stopped(descriptor):
        os.truncate(descriptor, 40)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", stopped)
    with pytest.raises(KeyboardInterrupt):
        claims.write(record(prediction="new"), tmp_path)
    assert claims.records(tmp_path)["toy.one"].prediction == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["toy.one.json"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_process_that_dies_without_warning_leaves_the_old_record(tmp_path):
    claims.write(record(prediction="old"), tmp_path)
    child = os.fork()
    if child == 0:
        os.replace = lambda *paths: os._exit(9)
        claims.write(record(prediction="new"), tmp_path)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert claims.records(tmp_path)["toy.one"].prediction == "old"


def test_the_next_run_succeeds_where_one_was_killed(tmp_path):
    (tmp_path / "tmpabc.tmp").write_text('{"id": "toy.o')
    claims.write(record(), tmp_path)
    assert list(claims.records(tmp_path)) == ["toy.one"]


# Damaged records


@pytest.mark.parametrize("text", [
    "", "{", "null", "[]", "3", '"holds"', "{}", '{"id": "toy.one"}', '{"id": "toy.one", "surprise": 1}', "\x00",
])  # fmt: skip
def test_a_damaged_record_is_named_and_never_becomes_a_verdict(tmp_path, text):
    claims.write(record(), tmp_path)
    (tmp_path / "toy.two.json").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"record must be one that settle\(\) wrote, got toy.two.json"):
        claims.records(tmp_path)


def test_a_record_that_is_not_text_is_named(tmp_path):
    (tmp_path / "toy.two.json").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(ValueError, match=r"got toy\.two\.json"):
        claims.records(tmp_path)


@given(verdict=st.text(max_size=12).filter(lambda word: word not in claims.VERDICTS) | st.none() | st.integers())
def test_a_verdict_typed_into_a_record_must_be_one_of_the_known_words(tmp_path_factory, verdict):
    folder = tmp_path_factory.mktemp("verdicts")
    claims.write(record(verdict=verdict), folder)
    with pytest.raises(ValueError, match=r"got toy\.one\.json: verdict must be one of corrected, holds") as caught:
        claims.records(folder)
    assert repr(verdict) in str(caught.value)


# A damaged ledger


def test_a_sound_ledger_is_read_in_its_own_order(tmp_path):
    two = ENTRY | {"id": "toy.two", "pinned": "holds", "page": "book/toy"}
    assert list(ledger(tmp_path, two, ENTRY)) == ["toy.two", "toy.one"]


@pytest.mark.parametrize("key", ENTRY)
def test_an_entry_without_one_of_its_keys_is_shown(tmp_path, key):
    with pytest.raises(ValueError, match=r"entry must be a mapping with the keys .*" + re.escape(repr(key))):
        ledger(tmp_path, {k: v for k, v in ENTRY.items() if k != key})


def test_an_entry_with_an_unknown_key_is_shown(tmp_path):
    with pytest.raises(ValueError, match=r"entry must be a mapping .*'verdict': 'holds'"):
        ledger(tmp_path, ENTRY | {"verdict": "holds"})


@pytest.mark.parametrize("entry", [None, "toy.one", ["toy.one"], 3])
def test_an_entry_that_is_no_mapping_is_shown(tmp_path, entry):
    with pytest.raises(ValueError, match="entry must be a mapping .*" + re.escape(f"entry={entry!r}")):
        ledger(tmp_path, entry)


def test_an_id_that_stands_twice_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"id must be unique in the ledger, got id='toy\.one'"):
        ledger(tmp_path, ENTRY, ENTRY)


@pytest.mark.parametrize("needs", ["tpu", None, 3, ["cpu"], ""])
def test_an_unknown_scale_is_named(tmp_path, needs):
    with pytest.raises(ValueError, match="needs must be one of cpu, gpu, smoke, got " + re.escape(f"needs={needs!r}")):
        ledger(tmp_path, ENTRY | {"needs": needs})


@pytest.mark.parametrize("pinned", ["true", True, ["holds"], "Holds", ""])
def test_an_unknown_pin_is_named(tmp_path, pinned):
    with pytest.raises(ValueError, match="pinned must be one of corrected, .*" + re.escape(f"pinned={pinned!r}")):
        ledger(tmp_path, ENTRY | {"pinned": pinned})


def test_a_ledger_cannot_run_code(tmp_path):
    path, canary = tmp_path / "claims.yml", tmp_path / "canary"
    path.write_text(f"claims: [!!python/object/apply:os.mkdir ['{canary}']]", encoding="utf-8")
    with pytest.raises(yaml.YAMLError):
        claims.ledger(path)
    assert not canary.exists()


def test_no_ledger_in_sight_says_where_it_is_looked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(claims, "__file__", str(tmp_path / "site-packages" / "firststep" / "claims.py"))
    with pytest.raises(ValueError, match="book/claims.yml must lie in a folder above .*" + re.escape(str(tmp_path))):
        claims.root()


# Wrong calls


@pytest.fixture
def silent(tmp_path, monkeypatch):
    """No card is shown, and no record of the checkout is touched."""
    shown = []
    monkeypatch.setattr(claims, "display", lambda *bundle, **options: shown.append(bundle))
    monkeypatch.setattr(claims, "write", shown.append)
    monkeypatch.chdir(ROOT)
    claims.ledger.cache_clear()
    yield shown
    claims.ledger.cache_clear()


@pytest.mark.parametrize("id", ["full_rank.lemma99", "", "lemma1", None, 3, ["full_rank.lemma1"]])
def test_an_unknown_id_settles_nothing(silent, id):
    with pytest.raises(ValueError, match="id must be an id of book/claims.yml, got " + re.escape(f"id={id!r}")):
        claims.settle(id, **EVIDENCE)
    assert silent == []


@pytest.mark.parametrize("half", [{"repair": "use ≤"}, {"repaired": [MET]}])
def test_a_repair_is_stated_and_judged_or_neither(silent, half):
    with pytest.raises(ValueError, match="repair must be given together with repaired, got repair="):
        claims.settle("full_rank.lemma1", **EVIDENCE | half)
    assert silent == []


@pytest.mark.parametrize("missing", [name for name in EVIDENCE if name != "control"])
def test_no_verdict_without_all_of_the_evidence(silent, missing):
    with pytest.raises(TypeError, match=missing):
        claims.settle("full_rank.lemma1", **{k: v for k, v in EVIDENCE.items() if k != missing})
    assert silent == []
