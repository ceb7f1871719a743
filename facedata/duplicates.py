"""Pictures that occur twice in a table of faces, byte for byte or nearly."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from facedata.scan import HASH_SIDE, path_order

# Aligned faces all look alike to a coarse hash: of 12 aligned people of FaceScrub (1 664 pictures, 1.4 million pairs)
# and 158 of LFW (4 324, 9.3 million) the usual 64-bit dHash puts pairs of *different* people at 2 bits. With the
# 256-bit pHash the nearest different people differ in 56 bits in both sets, and below 80 bits the number of such pairs
# halves every 2 bits. A look at the pictures: up to 40 bits a pair is nearly always one photograph recompressed,
# recoloured or cropped anew (198 pairs in FaceScrub, 20 in LFW); from 42 to 50 so it is in most pairs of FaceScrub, and
# in LFW mostly another shot of the same session; above that, more and more merely a similar pose. Within an identity a
# wrong pair costs nothing but its free place in the split, so the limit is wider there than across identities, where a
# pair also means a wrong name. No second comparison of pixels: it would refuse the recoloured copies.
NEAR_WITHIN = 50  # bits of 256
NEAR_ACROSS = 40  # bits of 256; also for mirrored pairs: FaceScrub has four true ones, up to 36, and a false one at 46
# Mirroring changes the sign of the cosine terms of odd horizontal frequency, so it inverts those bits of the pHash (all
# but about 6, because the threshold is the terms' median and not 0): mirrored copies need no second hash.
_MIRROR = np.packbits(np.tile(np.arange(HASH_SIDE) % 2, HASH_SIDE)).view(np.uint64)


def find_duplicates(table: pd.DataFrame, *, near_threshold: int | None = NEAR_WITHIN) -> pd.DataFrame:
    """Add duplicate_group (-1: alone) and duplicate_kind ("", "exact", "near") to the table of `scan_faces`.

    Exact: equal SHA-256. Near: the 256-bit hashes differ in at most `near_threshold` bits within an identity, and in no
    more than `NEAR_ACROSS` between identities or when one is mirrored. None: exact ones only. Groups are closed under
    both relations (if A is like B and B like C, the three are one group). Only used rows count.
    """
    table = table.assign(duplicate_group=-1, duplicate_kind="")
    used = table[table["status"] == "used"].sort_values("path", key=lambda paths: paths.map(path_order))
    same_file = used.groupby("sha256", sort=False).ngroup().to_numpy()
    first = pd.Series(np.arange(len(used))).groupby(same_file).transform("first").to_numpy()
    pairs = [np.stack([first, np.arange(len(used))])]
    hashed = np.flatnonzero(used["phash"] != "")
    if near_threshold is not None and len(hashed):
        words = np.frombuffer(bytes.fromhex("".join(used["phash"].iloc[hashed])), np.uint64).reshape(len(hashed), -1)
        people = used["identity"].iloc[hashed].factorize()[0]
        across = min(near_threshold, NEAR_ACROSS)
        pairs += [hashed[pair] for pair in _near_pairs(words, people, near_threshold, across)]
    left, right = np.concatenate(pairs, axis=1)
    links = coo_array((np.ones(len(left), bool), (left, right)), shape=(len(used), len(used)))
    group = pd.Series(connected_components(links, directed=False)[1], index=used.index)
    group = group[group.groupby(group).transform("size") > 1]
    copies = pd.Series(same_file, index=used.index).groupby(same_file).transform("size") > 1
    table.loc[group.index, "duplicate_group"] = group.factorize()[0]  # numbered in the order of the paths
    table.loc[group.index, "duplicate_kind"] = np.where(copies[group.index], "exact", "near")
    return table


def _near_pairs(words: np.ndarray, people: np.ndarray, within: int, across: int) -> Iterator[np.ndarray]:
    """Pairs i < j, (2, n), of hashes uint64 (N, 4) that lie within the limits; a block of rows at a time."""
    columns, mirrored = np.ascontiguousarray(words.T), np.ascontiguousarray((words ^ _MIRROR).T)
    for start in range(0, len(words), 64):
        rows = words[start : start + 64]
        distance = _hamming(rows, columns[:, start:])
        near = distance <= across
        near |= (distance <= within) & (people[start : start + 64, None] == people[None, start:])
        near |= _hamming(rows, mirrored[:, start:]) <= across
        found = np.argwhere(np.triu(near, 1)).T
        if found.size:
            yield found + start


def _hamming(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Number of differing bits, (A, B), of hashes uint64 (A, K) and, one to a column, (K, B)."""
    bits = [np.bitwise_count(rows[:, k, None] ^ column) for k, column in enumerate(columns)]
    return np.add.reduce(bits, dtype=np.uint16)
