"""One line a group at the end: how many times longer each alternative takes than this package."""

from collections import defaultdict

import pytest

_best: dict[str, dict[str, float]] = defaultdict(dict)  # group → what was timed → seconds of the fastest round


@pytest.fixture
def timed(benchmark):
    """Time ``function`` under a label in a group; returns what it computed, so that alternatives can be compared."""

    def run(function, *, group, label, rounds):
        benchmark.group = group
        result = benchmark.pedantic(function, rounds=rounds, iterations=1, warmup_rounds=1)
        if benchmark.stats is not None:  # none with --benchmark-disable
            _best[group][label] = benchmark.stats.stats.min
            ours = _best[group].get("firststep")
            if ours is not None:
                benchmark.extra_info["times_firststep"] = round(_best[group][label] / ours, 3)
        return result

    return run


def pytest_terminal_summary(terminalreporter):
    if not _best:
        return
    terminalreporter.section("times of the alternatives, in times of firststep (fastest rounds)")
    for group, seconds in _best.items():
        if "firststep" not in seconds:
            continue
        ours = seconds["firststep"]
        terminalreporter.write_line(f"{group}: firststep {1e3 * ours:.2f} ms")
        for label, theirs in seconds.items():
            if label != "firststep":
                terminalreporter.write_line(f"    {theirs / ours:6.2f} × {label}")
