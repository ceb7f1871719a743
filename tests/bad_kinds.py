"""What the parts of ``bad_input.py`` share: a case, a kind of cases, and values that nobody asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from hypothesis import strategies as st


class WrongResult(AssertionError):
    """There is a result, and it is not the right one."""


class Case(NamedTuple):
    """One input: how it is tried in a folder, by which names a clear error may call it, and what it was."""

    attempt: Callable[[Path], None]
    names: tuple[str, ...]
    about: str


class Kind(NamedTuple):
    """A kind of input."""

    cases: st.SearchStrategy[Case]


def holds(condition: Any, what: str) -> None:
    """Raise `WrongResult` unless `condition` is true."""
    if not condition:
        raise WrongResult(what)


NUMBERS = st.one_of(
    st.sampled_from([float("nan"), float("inf"), -float("inf"), 1e308, 1e-320, 0, -1, 1, 2, 2.5, 0.5, 10**12]),
    st.integers(-20, 200),
    st.floats(-3, 3),
)
KNOWN_WORDS = ["", "~", "~no such user/x", "..", "a/b", "a\0b", "nan", "1e400", "[1", "null"]
WORDS = st.one_of(st.sampled_from(KNOWN_WORDS), st.text(max_size=9))
ANYTHING: st.SearchStrategy[Any] = st.one_of(
    NUMBERS, WORDS, st.none(), st.booleans(), st.lists(st.one_of(NUMBERS, WORDS), max_size=4),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)  # fmt: skip
