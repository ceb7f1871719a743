"""Read one picture of a face, however it is stored, or say why it cannot be read."""

from __future__ import annotations

import io
import math
from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

with suppress(ImportError):  # HEIC, with the extra train or photos; AVIF where Pillow was built with it
    from pi_heif import register_heif_opener

    register_heif_opener()
_NEW = {suffix: kind for suffix, kind in Image.registered_extensions().items() if kind in ("AVIF", "HEIF")}
IMAGE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", *_NEW)
)
# Only what faces are stored in: Pillow would hand EPS, whatever the file's suffix, to an outside program.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM", *sorted(set(_NEW.values())))
_TURNS = ["FLIP_LEFT_RIGHT", "ROTATE_180", "FLIP_TOP_BOTTOM", "TRANSPOSE", "ROTATE_270", "TRANSVERSE", "ROTATE_90"]
_UPRIGHT = {tag: Image.Transpose[turn] for tag, turn in enumerate(_TURNS, 2)}  # by EXIF's orientation tag


class FaceImageError(ValueError):
    """A picture cannot be used; the message names the file and the reason."""


def load_image(path: str | Path, size: int | None = 112) -> np.ndarray:
    """Read one picture as RGB, uint8 (H, W, 3), upright by its EXIF orientation.

    Grey and palette pictures become RGB, 16-bit grey is divided by 257, transparency is laid over white, of several
    frames the first is taken. With `size`, a picture of another size is cut to its central square, so that faces keep
    their proportions, and resized (bicubic, antialiased) to (size, size, 3).
    Raises `FaceImageError` when the file cannot be read or is not a picture.
    """
    try:
        picture, _, _ = decode_image(read_file(Path(path)))
    except (OSError, FaceImageError) as error:
        reason = f"cannot be read: {error.strerror or error}" if isinstance(error, OSError) else error
        raise FaceImageError(f"{path}: {reason}") from error
    if size is not None and picture.size != (size, size):
        picture = ImageOps.fit(picture, (size, size), method=Image.Resampling.BICUBIC)
    return np.array(picture)


def read_file(path: Path) -> bytes:
    """The bytes of a file. Raises `FaceImageError` for a pipe, which would be waited for, a device or a broken link."""
    if not path.is_file() and (path.is_symlink() or path.exists()):
        raise FaceImageError("not a regular file" if path.exists() else "broken link")
    return path.read_bytes()


def decode_image(data: bytes) -> tuple[Image.Image, str, str]:
    """The upright RGB picture in a file's bytes, its mode as stored, and what was done to it."""
    if not data:
        raise FaceImageError("empty file")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            (width, height), limit = picture.size, Image.MAX_IMAGE_PIXELS or math.inf
            if width * height > limit:  # Pillow only warns up to twice the limit
                raise FaceImageError(f"{width} x {height} pixels, more than Pillow's limit of {limit}")
            frames = "first of several frames" if getattr(picture, "is_animated", False) else ""
            picture.load()
            mode, turn = picture.mode, _UPRIGHT.get(_orientation(picture))
            rgb, note = _to_rgb(picture)
    except UnidentifiedImageError as error:  # its message holds an address in memory, and the table must be byte-stable
        raise FaceImageError("not a picture of a known format") from error
    except FaceImageError:
        raise
    except Exception as error:  # on broken files Pillow's readers raise whatever their parsing ran into
        raise FaceImageError(" ".join(f"{type(error).__name__}: {error}".split())) from error
    if turn is not None:
        rgb = rgb.transpose(turn)
    return rgb, mode, "; ".join(filter(None, (frames, note, "EXIF rotated" if turn is not None else "")))


def _orientation(picture: Image.Image) -> int:
    with suppress(Exception):  # a broken EXIF block is no reason to lose good pixels
        return int(picture.getexif().get(ExifTags.Base.Orientation, 1))
    return 1


def _to_rgb(picture: Image.Image) -> tuple[Image.Image, str]:
    if picture.mode.startswith("I"):  # convert() would clip 16 bits at 255
        values = np.asarray(picture).astype(np.float64)
        if values.min() < 0 or values.max() > 65535:
            raise FaceImageError("grey values outside 0 to 65535")
        return Image.fromarray(np.rint(values / 257).astype(np.uint8)).convert("RGB"), "16 bit grey->RGB"
    if picture.mode == "F":
        raise FaceImageError("floating-point pixels, whose range is unknown")
    if picture.has_transparency_data:
        rgba = picture.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB"), f"{picture.mode} composited on white"
    if picture.mode == "RGB":
        return picture.copy(), ""
    return picture.convert("RGB"), f"{'grey' if picture.mode in ('1', 'L') else picture.mode}->RGB"
