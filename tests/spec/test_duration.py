"""Times as people write them, and limits made of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convkit.errors import UsageError
from convkit.spec.duration import parse_duration
from convkit.spec.options import LimitOptions


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        (90, 90),
        (0.5, 0.5),
        ("90s", 90),
        ("30m", 1800),
        ("30 min", 1800),
        ("1.5h", 5400),
        ("1h30m", 5400),
        (" 1d 2h 3m 4s ", 93784),
        ("10M", 600),
    ],
)
def test_a_time_is_read_as_people_write_it(text: str | float, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", " ", "m", "soon", "-5m", "1h30", "5 minutes", "1:30", "inf", "nan", "5ms"])
def test_anything_else_is_no_time(text: str) -> None:
    assert parse_duration(text) is None


@given(st.integers(0, 99), st.integers(0, 59), st.integers(0, 59))
def test_hours_minutes_and_seconds_add_up(hours: int, minutes: int, seconds: int) -> None:
    assert parse_duration(f"{hours}h{minutes}m{seconds}s") == hours * 3600 + minutes * 60 + seconds


@pytest.mark.parametrize("text", ["much", "0", "-1GB", "8 potatoes"])
def test_a_memory_limit_that_nothing_could_keep_to_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is no size"):
        _ = LimitOptions(memory=text).memory_bytes


@pytest.mark.parametrize("text", ["soon", "0s", "0"])
def test_a_time_limit_that_nothing_could_keep_to_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is no time"):
        _ = LimitOptions(time=text).seconds
