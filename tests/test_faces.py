"""Folders of real faces: every file accounted for, duplicates together, splits and batches that repeat."""

import base64
import hashlib
import io
import json
import os
import struct
import sys
import unicodedata
import zlib

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, features
from prepared import prepare_manifest

from facedata import scan as scanned
from facedata.duplicates import _MIRROR, _hamming, _near_pairs, find_duplicates
from facedata.journal import examine
from facedata.reasons import why_unused
from facedata.scan import perceptual_hash
from facedata.split import _closest_subset, held_out, split_faces
from studies.data_report import data_report, split_counts
from xfrlib.data import faces

HEIC = base64.b64decode(  # 40x32 pixels, all of one red
    "AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAX1tZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAAAAAA"
    "ACJpbG9jAAAAAERAAAEAAQAAAAABoQABAAAAAAAAABgAAAAjaWluZgAAAAAAAQAAABVpbmZlAgAAAAABAABodmMxAAAAAA5waXRt"
    "AAAAAAABAAAA/WlwcnAAAADdaXBjbwAAAHZodmNDAQNwAAAAkAAAAAAAHvAA/P34+AAADwNgAAEAGEABDAH//wNwAAADAJAAAAMA"
    "AAMAHroCQGEAAQAqQgEBA3AAAAMAkAAAAwAAAwAeoCCBBZbq5Ka5uAhoMCAAAAMDIAAAAwAhYgABAAZEAcFzwIkAAAATY29scm5j"
    "bHgAAQANAAaAAAAAFGlzcGUAAAAAAAAAQAAAAEAAAAAoY2xhcAAAACgAAAABAAAAIAAAAAH////oAAAAAv///+AAAAACAAAAEHBp"
    "eGkAAAAAAwgICAAAABhpcG1hAAAAAAAAAAEAAQWBAgMFhAAAACBtZGF0AAAAFCgBrwQY+Mpx1//w2R+QgLgBkhHn"
)


def picture(seed, size=48):
    """A picture with structure of its own: smooth noise, unlike any other seed's."""
    noise = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((size, size), Image.Resampling.BICUBIC)


def save(image, path, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)


def people(root, **counts):
    """`counts` pictures of each named person, all different."""
    for name, count in counts.items():
        for k in range(count):
            save(picture(zlib.crc32(f"{name}{k}".encode())), root / name / f"{k:03}.png")
    return root


def scan(root, **options):
    return scanned.scan_faces(root, progress=False, **options).set_index("path")


def prepare(root, **options):
    return prepare_manifest(root, **options)


def table_of(sizes, groups=None):
    """A table with duplicate groups by hand: sizes {identity: n}, groups {path: group}."""
    paths = [f"{name}/{k:03}.png" for name, n in sizes.items() for k in range(n)]
    table = pd.DataFrame({"path": paths})
    table["identity"] = table["path"].str.split("/").str[0]
    table["sha256"] = [hashlib.sha256(path.encode()).hexdigest() for path in paths]
    table = table.assign(status="used", note="", duplicate_kind="")
    table["duplicate_group"] = table["path"].map(groups or {}).fillna(-1).astype(int)
    return table


# --- reading pictures -------------------------------------------------------------------------------------------------


def test_modes_become_rgb_with_known_values(tmp_path):
    def pixel(image, suffix="png", **options):
        path = tmp_path / f"x.{suffix}"
        image.save(path, **options)
        loaded = faces.load_image(path, None)
        assert loaded.shape == (image.height, image.width, 3) and loaded.dtype == np.uint8
        return loaded[0, 0].tolist()

    assert pixel(Image.new("L", (4, 3), 77)) == [77, 77, 77]
    assert pixel(Image.new("1", (4, 3), 1)) == [255, 255, 255]
    for value in (0, 100, 255):
        sixteen = Image.fromarray(np.full((3, 4), 257 * value, np.uint16))
        assert pixel(sixteen) == [value] * 3  # neither clipped nor wrapped
    assert pixel(Image.new("RGBA", (4, 3), (255, 0, 0, 0))) == [255, 255, 255]  # transparent: the white beneath
    assert pixel(Image.new("RGBA", (4, 3), (255, 0, 0, 102))) == [255, 153, 153]  # 40 % red over white
    assert pixel(Image.new("LA", (4, 3), (0, 0))) == [255, 255, 255]
    palette = Image.new("P", (4, 3), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    assert pixel(palette) == [10, 20, 30]
    assert pixel(palette, transparency=1) == [255, 255, 255]
    assert pixel(Image.new("CMYK", (4, 3), (0, 255, 255, 0)), "tif") == [255, 0, 0]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_as_pillow_would(tmp_path, orientation):
    from PIL import ImageOps

    image = Image.fromarray(np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3) * 10)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / "x.png", exif=exif)
    with Image.open(tmp_path / "x.png") as stored:
        expected = np.asarray(ImageOps.exif_transpose(stored))
    assert np.array_equal(faces.load_image(tmp_path / "x.png", None), expected)


def test_resizing_keeps_proportions_and_leaves_the_right_size_alone(tmp_path):
    wide = np.zeros((20, 60, 3), np.uint8)
    wide[:, 20:40] = 200  # the central square
    Image.fromarray(wide).save(tmp_path / "wide.png")
    cut = faces.load_image(tmp_path / "wide.png", 10)
    assert cut.shape == (10, 10, 3) and (cut[:, 2:-2] == 200).all()  # the outermost pixels blend with the black beside
    save(picture(1, 112), tmp_path / "exact.png")
    assert np.array_equal(faces.load_image(tmp_path / "exact.png"), np.asarray(picture(1, 112)))


@pytest.mark.parametrize("size", [None, 112])
def test_unreadable_pictures_name_file_and_reason(tmp_path, size):
    with pytest.raises(faces.FaceImageError, match=r"gone\.jpg: cannot be read: No such file"):
        faces.load_image(tmp_path / "gone.jpg", size)
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(faces.FaceImageError, match=r"empty\.jpg: empty file"):
        faces.load_image(tmp_path / "empty.jpg", size)
    Image.new("F", (9, 9), 0.5).save(tmp_path / "float.tif")
    with pytest.raises(faces.FaceImageError, match=r"float\.tif: floating-point"):
        faces.load_image(tmp_path / "float.tif", size)
    (tmp_path / "program.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")
    with pytest.raises(faces.FaceImageError, match="not a picture of a known format"):
        faces.load_image(tmp_path / "program.png", size)


# --- scanning ---------------------------------------------------------------------------------------------------------


def test_every_file_has_a_row_and_a_reason(tmp_path):
    root, good = tmp_path / "root", picture(0)
    person = root / 'Ann O\'Neil, Jr. "é"'
    stored = io.BytesIO()
    good.save(stored, "JPEG")
    save(good, person / "good.JPG")
    save(good.convert("L"), person / "grey.png")
    save(good.convert("RGBA"), person / "alpha.png")
    save(good.convert("CMYK"), person / "cmyk.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6
    save(good.crop((0, 0, 48, 40)), person / "turned.jpg", exif=exif)
    save(good, person / "frames.gif", save_all=True, append_images=[picture(1)])
    save(Image.new("RGB", (48, 48), "red"), person / "plain.png")
    save(good, person / "png named.jpg", format="PNG")
    save(Image.new("RGB", (1, 1)), person / "dot.png")
    save(good.resize((200, 31)), person / "thin.png")
    (person / "zero.jpg").touch()
    (person / "cut.jpg").write_bytes(stored.getvalue()[:-400])
    (person / "text.jpg").write_text("not a picture")
    (person / "list.txt").write_text("1\n")
    (person / ".DS_Store").write_bytes(b"x")
    (person / "._good.jpg").write_bytes(b"x")
    (person / "bare").write_bytes(b"x")
    (person / "link.png").symlink_to(person / "alpha.png")
    (person / "broken.png").symlink_to(person / "nothing.png")
    os.mkfifo(person / "pipe.png")
    save(good, person / "deeper" / "x.png")
    save(good, root / "beside.png")
    save(good, root / ".hidden" / "x.png")
    (root / "Nobody").mkdir()
    save(good, tmp_path / "elsewhere" / "x.png")
    (root / "Linked").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    if sys.platform == "linux":  # other systems refuse such a name
        with open(os.fsencode(person) + b"/J\xf6rg.png", "wb") as file:
            file.write(stored.getvalue())

    table = scan(root)
    on_disk = {os.path.join(at, name) for at, _, names in os.walk(root, followlinks=True) for name in names}
    assert len(table) == len(on_disk) + 1  # and the empty folder
    assert list(table.index) == sorted(table.index)
    seen = {path.removeprefix(person.name + "/"): tuple(row) for path, row in table[["status", "note"]].iterrows()}
    cut = seen.pop("cut.jpg")
    assert cut[0] == "unreadable" and "truncated" in cut[1]
    expected = {
        "good.JPG": ("used", ""),
        "grey.png": ("used", "grey->RGB"),
        "alpha.png": ("used", "RGBA composited on white"),
        "link.png": ("used", "RGBA composited on white"),
        "cmyk.jpg": ("used", "CMYK->RGB"),
        "turned.jpg": ("used", "EXIF rotated"),
        "frames.gif": ("used", seen["frames.gif"][1]),
        "plain.png": ("used", ""),
        "png named.jpg": ("used", ""),
        "Linked/x.png": ("used", ""),
        "dot.png": ("too_small", "shorter side below 32 pixels"),
        "thin.png": ("too_small", "shorter side below 32 pixels"),
        "zero.jpg": ("unreadable", "empty file"),
        "text.jpg": ("unreadable", "not a picture of a known format"),
        "broken.png": ("unreadable", "broken link"),
        "pipe.png": ("unreadable", "not a regular file"),
        "J\\xf6rg.png": ("unreadable", "the name is not valid UTF-8: rename it"),
        "list.txt": ("not_an_image", "the suffix is not that of a picture"),
        "bare": ("not_an_image", "not a picture of a known format"),
        ".DS_Store": ("not_an_image", "hidden"),
        "._good.jpg": ("not_an_image", "hidden"),
        ".hidden/x.png": ("not_an_image", "hidden"),
        "deeper/x.png": ("misplaced", "not at <identity>/<picture>"),
        "beside.png": ("misplaced", "not at <identity>/<picture>"),
        "Nobody/": ("too_few_images", "no file in this folder, or no right to list it"),
    }
    if sys.platform != "linux":
        del expected["J\\xf6rg.png"]
    assert seen == expected
    assert seen["frames.gif"][1].startswith("first of several frames")
    turned = table.loc[f"{person.name}/turned.jpg"]
    assert (turned["width"], turned["height"]) == (40, 48)
    assert table.loc[f"{person.name}/plain.png", "phash"] == ""
    assert table.loc[f"{person.name}/cmyk.jpg", "mode"] == "CMYK"
    whole = person / "good.JPG"
    assert table.loc[f"{person.name}/good.JPG", "sha256"] == hashlib.sha256(whole.read_bytes()).hexdigest()
    assert table.equals(scan(root))  # no message holds an address or a time


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        (["1.png", "2.png"], "holds no identity folders; put the pictures at <identity>/<picture>"),
        (
            ["train/Ann/1.png", "test/Ann/2.png", "train/LABELS"],
            r"its people lie deeper, in test and train \(such as test/Ann/2.png\); name one of these folders",
        ),
        (
            ["set/images/val/Ann/1.png", "set/a.txt"],
            r"lie deeper, in set/images/val \(such as set/images/val/Ann/1.png",
        ),
        (["Train/1.png", "test/2.png"], "its pictures lie in Train and test, which are parts of a set and no people"),
    ],
)
def test_people_at_another_level_are_recognised_and_named(tmp_path, files, sentence):
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    for read in (scanned.list_faces, scan):
        with pytest.raises(ValueError, match=sentence):
            read(tmp_path)


def test_pictures_without_a_suffix_keep_their_people_where_they_are(tmp_path):
    for path in ("Ann/1", "Ann/2", "Ann/more/3.png"):
        save(picture(1), tmp_path / path, format="PNG")
    assert scan(tmp_path)["status"].to_dict() == {"Ann/1": "used", "Ann/2": "used", "Ann/more/3.png": "misplaced"}


def test_links_are_followed_at_every_level_and_none_for_ever(tmp_path):
    people(tmp_path / "store", Ann=2)
    root = people(tmp_path / "root", Bob=2)
    (root / "Ann").symlink_to(tmp_path / "store/Ann")
    (root / "Bob/up").symlink_to(root)
    (tmp_path / "store/Ann/itself").symlink_to(tmp_path / "store/Ann")
    (root / "loop").symlink_to("loop")
    (tmp_path / "split").mkdir()
    (tmp_path / "split/train").symlink_to(root)
    assert scanned.find_files(root) == ["Ann/000.png", "Ann/001.png", "Bob/000.png", "Bob/001.png", "loop"]
    assert [f"train/{path}" for path in scanned.find_files(root)] == scanned.find_files(tmp_path / "split")
    assert scan(root).query("status == 'used'")["identity"].tolist() == ["Ann", "Ann", "Bob", "Bob"]


def test_a_name_in_two_unicode_forms_is_one_person(tmp_path):
    forms = {form: unicodedata.normalize(form, "Zoë") for form in ("NFC", "NFD")}
    people(tmp_path, Bob=3, **{forms["NFC"]: 2, forms["NFD"]: 1})
    if len(list(tmp_path.iterdir())) < 3:
        pytest.skip("this disk takes the two forms for one name")
    manifest = prepare(tmp_path)
    assert manifest["identity"].unique().tolist() == ["Bob", forms["NFC"]]
    assert split_counts(manifest).sum(axis=1).tolist() == [3, 3]


@pytest.mark.parametrize(
    ("name", "status"),
    [
        *(("4f3a9c", "used"), ("Mr. Smith 2", "used"), ("Ann.2019", "used"), ("a.jpg_large", "used")),
        *(("a.cr2", "not_an_image"), ("a.txt", "not_an_image"), ("a.png.part", "not_an_image")),
    ],
)
def test_a_picture_may_have_no_suffix(tmp_path, name, status):
    save(picture(1), tmp_path / "Ann" / name, format="PNG")
    assert scan(tmp_path)["status"].to_dict() == {f"Ann/{name}": status}


@pytest.mark.parametrize("kind", ["AVIF", "HEIC"])
def test_pictures_of_telephones_are_read_where_pillow_can(tmp_path, kind):
    (tmp_path / "Ann").mkdir()
    path = tmp_path / "Ann" / f"a.{kind.lower()}"
    if kind == "HEIC":
        pytest.importorskip("pi_heif", reason="HEIC needs the extra photos")
        path.write_bytes(HEIC)
    else:
        if not features.check("avif"):
            pytest.skip("this Pillow was built without AVIF")
        Image.new("RGB", (40, 32), (200, 40, 40)).save(path)
    assert scan(tmp_path)[["status", "width", "height"]].to_numpy().tolist() == [["used", 40, 32]]
    assert np.abs(faces.load_image(path, None)[5, 5].astype(int) - [200, 40, 40]).max() <= 3
    assert examine(path.read_bytes(), "").suffix == path.suffix  # and by whoever downloads them


def test_what_pillow_cannot_read_is_counted_with_its_mend(tmp_path, monkeypatch):
    monkeypatch.setattr(scanned, "IMAGE_SUFFIXES", scanned.IMAGE_SUFFIXES - {".heic"})  # as without the extra
    people(tmp_path, Ann=2, Bob=1)
    for k in range(6):
        (tmp_path / "Bob" / f"{k}.HEIC").write_bytes(HEIC)
    (tmp_path / "Bob/empty.jpg").touch()
    with pytest.raises(
        ValueError, match="^0 identities .* not used: 6 .heic: convert to JPEG, 3 too_few_images, 1 empty"
    ):
        prepare(tmp_path)


def test_reasons_are_counted_and_the_rare_ones_together():
    rows = [{"status": "unreadable", "note": f"fault {k}"} for k in range(12) for _ in range(20 - k)]
    told = why_unused([{"status": "used", "note": "grey->RGB"}, {"status": "", "note": ""}, *rows])
    assert told.startswith("20 fault 0, 19 fault 1,") and told.endswith(", 12 fault 8, 3 more reasons")
    assert why_unused([{"status": "used", "note": ""}]) == ""


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(faces.FaceImageError, match="a.png: not a regular file"):
        faces.load_image(tmp_path / "a.png")


def test_a_picture_too_large_to_open_is_a_row_and_not_a_crash(tmp_path, monkeypatch):
    people(tmp_path, Ann=2)

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"0")) + chunk(b"IEND", b"")
    (tmp_path / "Ann" / "bomb.png").write_bytes(bomb)
    row = scan(tmp_path).loc["Ann/bomb.png"]
    assert row["status"] == "unreadable" and "limit" in row["note"]
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 48 * 48 - 1)  # up to twice the limit Pillow only warns
    with pytest.warns(Image.DecompressionBombWarning):
        assert set(scan(tmp_path)["status"]) == {"unreadable"}


def test_broken_exif_does_not_cost_the_picture(tmp_path, monkeypatch):
    def refuse(self):
        raise SyntaxError("not a TIFF file")

    save(picture(3), tmp_path / "Ann" / "x.jpg")
    monkeypatch.setattr(Image.Image, "getexif", refuse)
    assert scan(tmp_path)["status"].tolist() == ["used"]


def test_too_few_and_too_many_pictures(tmp_path):
    people(tmp_path, Few=3, Exact=4, Many=9)
    (tmp_path / "Few" / "more.jpg").touch()  # not usable: does not count
    table = scan(tmp_path, min_images=4, max_images=5)
    status = table.groupby("identity")["status"].value_counts().to_dict()
    assert status == {
        ("Exact", "used"): 4,
        ("Few", "too_few_images"): 3,
        ("Few", "unreadable"): 1,
        ("Many", "used"): 5,
        ("Many", "over_max_images"): 4,
    }
    assert table.loc["Few/000.png", "note"] == "3 usable pictures of Few, 4 asked for"
    draws = {tuple(scan(tmp_path, max_images=5, seed=s).query("status == 'over_max_images'").index) for s in range(4)}
    assert len(draws) > 1 and all(len(left_out) == 4 for left_out in draws)
    with pytest.raises(ValueError, match="max_images = 2: must not be below min_images = 3"):
        scan(tmp_path, min_images=3, max_images=2)


def test_roots_that_cannot_be_scanned_say_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder of pictures"):
        scan(tmp_path / "missing")
    with pytest.raises(ValueError, match="holds no identity folders"):
        scan(tmp_path)
    save(picture(0), tmp_path / "x.png")
    with pytest.raises(ValueError, match="holds no identity folders"):
        scan(tmp_path)
    (tmp_path / "Nobody").mkdir()
    with pytest.raises(ValueError, match="0 identities .* not used: 1 too_few_images, 1 not at <identity>/<picture>$"):
        prepare(tmp_path)
    people(tmp_path, Ann=5)
    with pytest.raises(ValueError, match="1 identities with enough usable pictures, at least 2"):
        prepare(tmp_path)


# --- duplicates -------------------------------------------------------------------------------------------------------


def test_exact_near_and_mirrored_copies_are_grouped_and_strangers_are_not(tmp_path):
    people(tmp_path, Ann=6, Bob=6)
    original = picture(99, 112)
    save(original, tmp_path / "Ann" / "a.png")
    save(original, tmp_path / "Bob" / "other name.png")  # one photograph under two names
    save(original, tmp_path / "Ann" / "b.jpg", quality=60)
    save(original.resize((64, 64)).point(lambda v: v * 0.6 + 40), tmp_path / "Ann" / "dull.png")
    save(original.transpose(Image.Transpose.FLIP_LEFT_RIGHT), tmp_path / "Ann" / "mirror.png")
    table = find_duplicates(scanned.scan_faces(tmp_path, progress=False)).set_index("path")
    group = table[table["duplicate_group"] >= 0]
    assert group["duplicate_group"].unique().tolist() == [0]
    assert group["duplicate_kind"].to_dict() == {
        "Ann/a.png": "exact",
        "Ann/b.jpg": "near",
        "Ann/dull.png": "near",
        "Ann/mirror.png": "near",
        "Bob/other name.png": "exact",
    }
    only_exact = find_duplicates(table.reset_index(), near_threshold=None).set_index("path")
    assert only_exact.index[only_exact["duplicate_group"] >= 0].tolist() == ["Ann/a.png", "Bob/other name.png"]


def test_near_pairs_match_a_loop_over_all_pairs():
    rng = np.random.default_rng(5)
    bits = rng.integers(0, 2, (150, 256), dtype=np.uint8)
    columns = np.arange(256) % 16
    for k in range(0, 60, 2):  # pairs 0 to 58 bits apart, every third of them mirrored
        bits[149 - k] = bits[k] ^ ((columns % 2).astype(np.uint8) if k % 3 == 0 else 0)
        bits[149 - k, rng.choice(256, k, replace=False)] ^= 1
    bits = rng.permutation(bits)  # so that pairs lie in all blocks of rows
    people = rng.integers(0, 2, 150)
    words = np.packbits(bits, axis=1).view(np.uint64)
    found = {tuple(map(int, pair)) for block in _near_pairs(words, people, 50, 40) for pair in block.T}
    expected = set()
    for i in range(150):
        for j in range(i + 1, 150):
            plain = (bits[i] != bits[j]).sum()
            mirrored = (bits[i] != bits[j] ^ columns % 2).sum()
            if plain <= (50 if people[i] == people[j] else 40) or mirrored <= 40:
                expected.add((i, j))
    assert found == expected and len(expected) >= 20


def test_hash_distance_of_opposites_does_not_overflow():
    zeros, ones = np.zeros((1, 4), np.uint64), np.full((1, 4), 2**64 - 1, np.uint64)
    assert _hamming(zeros, ones.T).item() == 256


def test_mirror_mask_fits_the_hash():
    image = picture(7, 112)
    mirrored = perceptual_hash(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    as_words = [np.frombuffer(bytes.fromhex(h), np.uint64)[None] for h in (perceptual_hash(image), mirrored)]
    assert (
        _hamming(as_words[0] ^ _MIRROR, as_words[1].T).item() <= 40 < 90 < _hamming(as_words[0], as_words[1].T).item()
    )


# --- split ------------------------------------------------------------------------------------------------------------


def test_split_counts_by_hand():
    manifest = split_faces(table_of({"a": 3, "b": 10, "c": 11, "d": 20, "e": 92}))
    assert split_counts(manifest).to_numpy().tolist() == [
        [1, 1, 1],
        [8, 1, 1],
        [7, 2, 2],
        [16, 2, 2],
        [72, 10, 10],
    ]
    assert manifest.groupby("identity")["label"].unique().map(list).to_dict() == {
        "a": [0],
        "b": [1],
        "c": [2],
        "d": [3],
        "e": [4],
    }
    assert data_report(manifest)["missed_shares"] == []


def test_held_out_rounds_up_without_binary_error():
    assert [held_out(n, 0.1) for n in (1, 10, 11, 30)] == [1, 1, 2, 3]
    assert held_out(100, 0.07) == 7  # 0.07 * 100 is 7.000000000000001
    assert held_out(9, 0.0) == 0


def test_split_ignores_row_order_and_follows_the_seed():
    table = table_of({"a": 30, "b": 30})
    split = split_faces(table, seed=1).set_index("path")["split"]
    shuffled = split_faces(table.sample(frac=1, random_state=0), seed=1).set_index("path")["split"]
    assert split.to_dict() == shuffled.to_dict()
    assert split.to_dict() != split_faces(table, seed=2).set_index("path")["split"].to_dict()
    decomposed = split_faces(table.assign(path=table["path"].str.replace("a/", unicodedata.normalize("NFD", "é/"))))
    composed = split_faces(table.assign(path=table["path"].str.replace("a/", "é/")))
    assert decomposed["split"].tolist() == composed["split"].tolist()


def test_every_picture_is_as_likely_to_be_held_out():
    table = table_of({"a": 10, "b": 10}, {f"a/{k:03}.png": 0 for k in (3, 7)})
    times = sum((split_faces(table, seed=s)["split"] == "test").to_numpy() for s in range(60))
    assert times[[3, 7]].sum() == 0  # one place in the test part cannot hold the pair
    assert times[:10].sum() == times[10:].sum() == 60 and times[10:].min() >= 1


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=3, max_size=12), st.integers(0, 5))
def test_groups_stay_whole_and_training_is_never_empty(sizes, seed):
    paths = [f"a/{k:03}.png" for k in range(sum(sizes))]
    owner = np.repeat(np.arange(len(sizes)), sizes)
    groups = {path: int(g) for path, g in zip(paths, owner, strict=True) if sizes[g] > 1}
    manifest = split_faces(table_of({"a": sum(sizes), "b": 5}, groups), seed=seed)
    mine = manifest[manifest["identity"] == "a"]
    assert (mine.groupby(owner)["split"].nunique() == 1).all()
    assert (mine["split"] == "train").any() and set(mine["split"]) <= set(faces.SPLITS)
    singles, target = sizes.count(1), held_out(sum(sizes), 0.1)
    if singles > 2 * target:
        assert split_counts(manifest).loc["a"].tolist() == [sum(sizes) - 2 * target, target, target]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 5), max_size=7), st.integers(0, 8))
def test_closest_subset_equals_trying_all(sizes, target):
    subsets = [[k for k in range(len(sizes)) if bits >> k & 1] for bits in range(2 ** len(sizes) - 1)] or [[]]
    best = min(abs(sum(sizes[k] for k in chosen) - target) for chosen in subsets)
    chosen = _closest_subset(sizes, target)
    assert len(set(chosen)) == len(chosen) < max(len(sizes), 1)
    assert abs(sum(sizes[k] for k in chosen) - target) == best


def test_large_groups_miss_the_shares_and_are_reported():
    groups = {f"a/{k:03}.png": 0 for k in range(9)} | {f"a/{k:03}.png": 1 for k in range(9, 18)}
    manifest = split_faces(table_of({"a": 19, "b": 10}, groups))
    assert split_counts(manifest).loc["a"].tolist() == [18, 0, 1]
    missed = data_report(manifest)["missed_shares"]
    assert missed == [{"identity": "a", "got": [18, 0, 1], "wanted": [15, 2, 2]}]


def test_a_photograph_under_two_names_is_for_training_only_and_is_named():
    table = table_of({"a": 10, "b": 10}, {"a/000.png": 4, "b/005.png": 4})
    for seed in range(20):
        manifest = split_faces(table, seed=seed)
        assert set(manifest.loc[manifest["duplicate_group"] == 4, "split"]) == {"train"}
        assert split_counts(manifest).to_numpy().tolist() == [[8, 1, 1], [8, 1, 1]]
    assert data_report(manifest)["duplicates"]["across_identities"] == [["a/000.png", "b/005.png"]]


def test_people_with_fewer_than_three_pictures_are_left_out_by_status():
    manifest = split_faces(table_of({"a": 2, "b": 4, "c": 3}))
    out = manifest[manifest["identity"] == "a"]
    assert set(out["status"]) == {"too_few_images"} and set(out["label"]) == {-1} and set(out["split"]) == {""}
    assert out["note"].iloc[0] == "2 usable pictures of a, a split needs 3"
    assert manifest.query("identity == 'b'")["label"].unique().tolist() == [0]


def test_bad_fractions_and_missing_duplicates_are_refused():
    table = table_of({"a": 5, "b": 5})
    for fractions in ((0.8, 0.1), (0.8, 0.1, 0.2), (1.2, -0.1, -0.1), (0, 0.5, 0.5)):
        with pytest.raises(ValueError, match="must sum to 1"):
            split_faces(table, fractions)
    with pytest.raises(ValueError, match="run find_duplicates"):
        split_faces(table.drop(columns="duplicate_group"))


# --- manifest ---------------------------------------------------------------------------------------------------------


def test_manifest_round_trip_is_byte_stable_and_keeps_odd_names(tmp_path):
    root = people(tmp_path / "root", **{"NA": 3, "007": 3, "null": 4, 'Zoë, "Z"\r\nx': 3})
    (root / "NA" / "bad.jpg").touch()
    manifest = prepare(root)
    scanned.write_manifest(manifest, tmp_path / "one.csv")
    back = faces.read_manifest(tmp_path / "one.csv")
    pd.testing.assert_frame_equal(back, manifest)
    scanned.write_manifest(back, tmp_path / "two.csv")
    assert (tmp_path / "one.csv").read_bytes() == (tmp_path / "two.csv").read_bytes()
    assert sorted(back["identity"].unique()) == ["007", "NA", 'Zoë, "Z"\r\nx', "null"]
    (tmp_path / "three.csv").write_text("identity,path\n")
    with pytest.raises(ValueError, match=r"three\.csv: not a manifest, it lacks sha256, phash"):
        faces.read_manifest(tmp_path / "three.csv")
    (tmp_path / "four.csv").write_bytes(bytes(range(256)))
    (tmp_path / "five.csv").touch()
    (tmp_path / "six.csv").write_text(",".join(faces.COLUMNS) + "\n" + ",".join("x" for _ in faces.COLUMNS) + "\n")
    for name in ("four", "five", "six"):
        with pytest.raises(ValueError, match=rf"{name}\.csv: not a manifest, .*; prepare the data again"):
            faces.read_manifest(tmp_path / f"{name}.csv")


def test_data_hash_covers_what_matters_and_nothing_else():
    manifest = split_faces(table_of({"a": 4, "b": 4}))
    value = faces.data_hash(manifest)
    assert len(value) == 64
    assert value == faces.data_hash(manifest.sample(frac=1, random_state=1))
    assert value == faces.data_hash(manifest.assign(note="other"))
    unused = manifest.iloc[:1].assign(path="a/x.txt", status="not_an_image")
    assert value == faces.data_hash(pd.concat([manifest, unused]))
    for column in ("identity", "path", "sha256", "split"):
        changed = manifest.copy()
        changed.loc[0, column] = "other"
        assert faces.data_hash(changed) != value, column


def test_report_is_json_and_adds_up(tmp_path):
    root = people(tmp_path, Ann=6, Bob=7)
    save(picture(5).convert("L"), root / "Ann" / "grey.png")
    save(picture(5).convert("L"), root / "Ann" / "grey again.png")
    (root / "Ann" / "bad.jpg").touch()
    (root / "Nobody").mkdir()
    manifest = prepare(root)
    report = json.loads(json.dumps(data_report(manifest)))
    assert report["files"] == 16
    assert report["statuses"] == {"too_few_images": 1, "unreadable": 1, "used": 15}
    assert report["notes"] == {"grey->RGB": 2}
    assert report["problems"] == [{"path": "Ann/bad.jpg", "status": "unreadable", "note": "empty file"}]
    assert report["identities"] == 2 and report["images"] == {"train": 11, "validation": 2, "test": 2}
    assert report["duplicates"] == {
        "groups": 1,
        "pictures": {"exact": 2},
        "largest_group": 2,
        "across_identities": [],
    }
    assert report["data_hash"] == faces.data_hash(manifest)


# --- torch ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def manifest(tmp_path):
    return prepare(people(tmp_path, Ann=12, Bob=11, Cyd=3))


def test_dataset_items_are_the_pictures(tmp_path, manifest):
    dataset = faces.FaceDataset(tmp_path, manifest, "train", size=48)
    assert dataset.identities == ["Ann", "Bob", "Cyd"] and dataset.num_classes == 3
    assert len(dataset) == len(dataset.table) == 8 + 7 + 1
    for index in (0, 10):
        image, label, same = dataset[index]
        row = dataset.table.iloc[index]
        assert same == index and dataset.identities[label] == row["identity"]
        assert image.shape == (3, 48, 48) and image.dtype == torch.float32 and image.is_contiguous()
        stored = np.asarray(Image.open(tmp_path / row["path"]))
        assert np.array_equal((image * 255).round().byte().permute(1, 2, 0).numpy(), stored)
        assert image.min() >= 0 and image.max() <= 1
    parts = [set(faces.FaceDataset(tmp_path, manifest, split).table["path"]) for split in faces.SPLITS]
    assert len(set.union(*parts)) == sum(map(len, parts)) == 26


def test_dataset_refuses_unknown_and_empty_splits_and_names_lost_files(tmp_path, manifest):
    with pytest.raises(ValueError, match=r"split = 'tset'.*validation"):
        faces.FaceDataset(tmp_path, manifest, "tset")
    with pytest.raises(ValueError, match="no picture in split 'test'"):
        faces.FaceDataset(tmp_path, manifest[manifest["split"] != "test"], "test")
    dataset = faces.FaceDataset(tmp_path, manifest, "test")
    (tmp_path / dataset.table.loc[0, "path"]).unlink()
    with pytest.raises(faces.FaceImageError, match=dataset.table.loc[0, "path"]):
        dataset[0]
