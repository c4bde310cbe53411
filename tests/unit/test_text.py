"""Numbers in the text: glue for the book, a script for JupyterLab."""

import json
import re

import pytest

from firststep.book import text

pytestmark = pytest.mark.usefixtures("clean_environment")


@pytest.fixture
def shown(clean_environment):
    glued, displayed = {}, []
    clean_environment.setattr(text.myst_nb, "glue", lambda name, value, display: glued.update({name: (value, display)}))
    clean_environment.setattr(text.IPython.display, "display", lambda bundle, raw: displayed.append(bundle))
    return glued, displayed


def test_in_the_book_a_number_is_glued_and_nothing_else(shown, monkeypatch):
    monkeypatch.setenv("FIRSTSTEP_BUILD", "1")
    text.glue("slope", "0.5")
    assert shown == ({"slope": ("0.5", False)}, [])


def test_in_jupyterlab_a_script_fills_it_in_and_no_value_ends_the_script(shown):
    text.glue("slope", "</script><b>")
    glued, (bundle,) = shown
    assert glued == {"slope": ("</script><b>", False)}
    script = bundle["text/html"]
    assert script.count("</script>") == 1
    name, value = re.search(r'numbers\[(".*?")\] = (".*?");', script).groups()
    assert (json.loads(name), json.loads(value)) == ("slope", "</script><b>")


@pytest.mark.parametrize("name", ["", "  ", None, 3])
def test_a_number_needs_a_name(shown, name):
    with pytest.raises(ValueError, match=r"^name must be"):
        text.glue(name, 1)
    assert shown == ({}, [])


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("2e+08×", "2·10⁸×"), ("1e-13", "10⁻¹³"), ("8.4e-04", "8.4·10⁻⁴"), ("0e+00", "0"), ("1.5e+00", "1.5"),
        ("3.0 ± 1e-12", "3.0 ± 10⁻¹²"), ("1.0e-10 to 2.5e-09", "1.0·10⁻¹⁰ to 2.5·10⁻⁹"), (1e-300, "10⁻³⁰⁰"),
        ("one, 12 and 0.5", "one, 12 and 0.5"), (17, "17"), ("the2e-5th", "the2e-5th"),
    ],
)  # fmt: skip
def test_powers_of_ten_are_written_as_such(shown, value, words):
    text.glue("number", value)
    assert shown[0] == {"number": (words, False)}


@pytest.mark.parametrize("value", ["$d = 8$", "**8**", "`8`"])
def test_marks_of_markdown_would_be_shown_and_are_refused(shown, value):
    with pytest.raises(ValueError, match=r"^value must be plain text"):
        text.glue("number", value)
