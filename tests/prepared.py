"""A folder of faces, prepared as the first chapter prepares it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from facedata.duplicates import NEAR_WITHIN, find_duplicates
from facedata.scan import scan_faces
from facedata.split import split_faces


def prepare_manifest(
    root: str | Path,
    *,
    fractions: Sequence[float] = (0.8, 0.1, 0.1),
    near_threshold: int | None = NEAR_WITHIN,
    seed: int = 0,
    **options: Any,
) -> pd.DataFrame:
    """The manifest of a folder of identities; `options` are those of `scan_faces`."""
    table = scan_faces(root, seed=seed, progress=False, **{"min_images": 3, **options})
    return split_faces(find_duplicates(table, near_threshold=near_threshold), fractions, seed=seed)
