"""Why files of a folder are not used, in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

_OWN = ("not_an_image", "misplaced", "unreadable")  # the notes of these are of a file, of others of one person
_MOST = 9  # reasons that are named


def why_unused(rows: Iterable[Mapping[Any, Any]]) -> str:
    """Files that are not used, counted by reason: ``6 .heic: convert to JPEG, 1 hidden``.

    `rows` have a status and a note, as those of `facedata.scan.scan_faces` and `list_faces` do; a file with the
    status "used" or "" is none. Empty where all are used.
    """
    why = Counter(row["note"] if row["status"] in _OWN else row["status"] for row in rows)
    named = [f"{count} {reason}" for reason, count in why.most_common() if reason not in ("", "used")]
    return ", ".join(named[:_MOST] + ([f"{len(named) - _MOST} more reasons"] if len(named) > _MOST else []))
