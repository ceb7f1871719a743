"""How a chapter gives what it found: rows as a table for a reader, intervals and their kin as JSON."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from xfrlib.tables import in_text

NO_ROWS: list[dict[str, Any]] = [{"in this run": "nothing to list"}]  # of a table that has none


def markdown(
    rows: Iterable[Mapping[str, Any]] | pd.DataFrame,
    digits: int = 2,
    *,
    signed: bool = False,
    caption: str = "",
    name: str = "",
) -> str:
    """Rows as a table in Markdown; a cell may hold an interval, which `in_text` writes. Numbers are set as given.

    The index of a frame is the first column, unless it merely counts. A number in a string has a true minus sign. With
    a `caption`, a line of MyST, the table has a number on the page, and with a `name` too (``tab-07-falls``) the text
    refers to it: ``{numref}`tab-07-falls```. Without rows it says so there: a reference must lead somewhere.
    """

    def cell(found: Any) -> Any:
        if isinstance(found, str):
            return re.sub(r"^-(?=[\d.])", "−", found)
        if not (hasattr(found, "low") or isinstance(found, Mapping)):
            return found
        return in_text(found, digits, signed=signed).replace(", ", ",\u00a0")  # an interval stays on one line

    if isinstance(rows, pd.DataFrame) and len(rows):
        counts = isinstance(rows.index, pd.RangeIndex) and rows.index.name is None
        named = rows.rename_axis(index="" if rows.index.name is None else str(rows.index.name))
        frame = named.reset_index(drop=counts).map(cell)
    else:
        given = [] if isinstance(rows, pd.DataFrame) else list(rows)
        if not given and not caption:
            return ""
        frame = pd.DataFrame([{head: cell(found) for head, found in row.items()} for row in given or NO_ROWS])
    sides = ["right" if pd.api.types.is_numeric_dtype(kind) else "left" for kind in frame.dtypes]
    # Objects, because a whole number beside others with decimals would get some too.
    table = frame.astype(object).to_markdown(index=False, disable_numparse=True, colalign=sides)
    if not caption:
        return table
    # Colons and not ticks: where MyST is not read, ticks would show the table as code.
    return "\n".join([f":::{{table}} {caption}", *([f":name: {name}"] if name else []), "", table, "", ":::"])


def thousands(count: int) -> str:
    """A whole number for a reader, with narrow no-break spaces between its thousands."""
    return f"{count:,}".replace(",", "\u202f").replace("-", "−")


def joined(titles: Iterable[str]) -> str:
    """Titles in a sentence, "none" where there is none: "CAM; SDD, product", because a title may hold a comma."""
    return "; ".join(titles) or "none"


def counted(count: int, noun: str, plural: str = "") -> str:
    """A number of things for a reader: "1 network", "3 networks".

    Parameters
    ----------
    count : int
        How many there are.
    noun : str
        The word for one of them.
    plural : str, optional
        The word for several, where it is not `noun` with an s.

    Returns
    -------
    str
        The number and the word that goes with it.
    """
    return f"{thousands(count)} {noun if count == 1 else plural or noun + 's'}"


def scientific(value: float) -> str:
    """A number of any size for a reader, with two digits: "2.9 × 10⁻⁶".

    Parameters
    ----------
    value : float
        A finite number.

    Returns
    -------
    str
        The number as a power of ten, with true minus signs and no-break spaces; "0" for zero.
    """
    if not value:
        return "0"
    digits, power = f"{float(value):.1e}".split("e")
    raised = str(int(power)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{digits.removesuffix('.0')}\u00a0×\u00a010{raised}".replace("-", "−")


def not_made(name: str, why: str = "") -> str:
    """What stands in place of a table that this run does not make, as Markdown: references to its `name` stay whole."""
    rows = [{"in this run": f"not made: {why}" if why else "not made"}]
    return markdown(rows, caption="A table that this run does not make", name=name)


def in_place_of(cell: str) -> list[str]:
    """Lines that display `not_made` for each table that the code of a `cell` names."""
    names = re.findall(r"""\bname=["'](tab-[\w-]+)["']""", cell)
    if not names:
        return []
    given = ["from IPython.display import Markdown, display\n", "from studies.report import not_made\n"]
    return [*given, *(f'display(Markdown(not_made("{name}")))\n' for name in names)]


def plain(found: Any) -> Any:
    """What JSON can hold: intervals as dictionaries, None for NaN, and ``{(a, b): ...}`` as ``{a: {b: ...}}``."""
    if hasattr(found, "_asdict"):
        found = found._asdict()
    if isinstance(found, Mapping):
        tree: dict[str, Any] = {}
        for keys, value in found.items():
            *outer, last = keys if isinstance(keys, tuple) else (keys,)
            node = tree
            for key in outer:
                node = node.setdefault(str(key), {})
            node[str(last)] = plain(value)
        return tree
    if isinstance(found, list | tuple | np.ndarray):
        return [plain(one) for one in found]
    found = found.item() if isinstance(found, np.generic) else found
    return None if isinstance(found, float) and not np.isfinite(found) else found
