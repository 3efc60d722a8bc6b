"""No method's numbers change without its version: three training steps against stored values."""

from __future__ import annotations

import json

import pytest
from golden import FILE, numbers

from mer_bench.fusion import METHODS

STORED = json.loads(FILE.read_text(encoding="utf-8"))


def check(name: str, version: int, found: list[float]) -> None:
    """The tolerance is three times the rounding differences of processors, far below the effect of another formula."""
    assert version == STORED[name]["version"], (
        f"{name} has version {version}, but its stored numbers do not: run make golden"
    )
    assert found == pytest.approx(STORED[name]["values"], rel=2e-4, abs=2e-4), (
        f"{name}: its numbers changed without a bump of its revision "
        "(or of SHARED_VERSION in fusion/base.py, if the change concerns all methods)"
    )


def test_every_method_has_stored_numbers_and_no_other() -> None:
    assert list(STORED) == list(METHODS), "the methods are not those with stored numbers: run make golden"


@pytest.mark.parametrize("name", METHODS)
def test_numbers_change_with_the_version_alone(name: str) -> None:
    check(name, METHODS[name].version, numbers(name))


def test_a_change_of_numbers_and_a_change_of_version_are_distinguished() -> None:
    stored = STORED["late_average"]
    with pytest.raises(AssertionError, match="late_average: its numbers changed without a bump of its revision"):
        check("late_average", stored["version"], [1.01 * value for value in stored["values"]])
    with pytest.raises(AssertionError, match=r"late_average has version .*: run make golden"):
        check("late_average", stored["version"] + 1, stored["values"])
