"""The one way an image becomes 8-bit RGB pixels: upright, on white, in sRGB.

Used for training, calibration, evaluation, chat, probes, augmentation, terminal and export, so that a model
sees in each of them what a person sees. Needs Pillow only.
"""

from __future__ import annotations

import io
import logging
import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from kore.errors import DataError

MOST_PIXELS = 60_000_000
"""A small file may decode to more than the memory holds."""
ImageSource = str | Path | bytes | Image.Image
CONVERT = "convert it to PNG or JPEG first, for example with ImageMagick: magick IN OUT.png"
_HEIF = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_VECTOR = ("EPS", "WMF")  # Pillow would start another program for these

logging.getLogger("PIL").addHandler(logging.NullHandler())  # else its remarks are printed


def open_image(
    source: ImageSource,
    where: str | None = None,
    *,
    name: str = "",
    about: tuple[int, int] | None = None,
    notes: list[str] | None = None,
) -> Image.Image:
    """Open an image as 8-bit RGB.

    The EXIF orientation is applied, transparency is composited on white, 16-bit, float and CMYK values are
    scaled by their type's range (floats by 0 to 1), an ICC profile is converted to sRGB; of an animation the
    first frame is taken.

    Args:
        source: a path, the encoded bytes, or an image of Pillow.
        where: place in the data that named it, for errors.
        name: of an image given as bytes, for errors.
        about: decode at no less than about this size where the format allows (JPEG).
        notes: collects Pillow's warnings, which are never printed.

    Raises:
        DataError: missing, unreadable, broken, unsupported or too large.
    """
    if isinstance(source, Image.Image):
        return to_rgb(source)
    with opened(source, where, name=name, notes=notes) as image:
        if about:
            image.draft("RGB", about)
        return to_rgb(image)


def check_image(path: str | Path, where: str | None = None) -> None:
    """Check an image by its header, without decoding it.

    Raises:
        DataError: missing, unreadable, unsupported or too large.
    """
    with opened(path, where):
        return


def image_size(path: str | Path, where: str | None = None) -> tuple[int, int]:
    """Width and height as the file stores them, by its header.

    Raises:
        DataError: as `check_image`.
    """
    with opened(path, where) as image:
        return image.size


def open_as_vlmevalkit(data: bytes, name: str, where: str | None = None) -> Image.Image:
    """Open an image of a benchmark TSV as VLMEvalKit does, so that scores are comparable with published ones.

    It drops transparency rather than compositing it, ignores EXIF orientation and ICC profiles, and encodes
    an image that the benchmark names ``.jpg`` once more as JPEG. For everything else use `open_image`.

    Raises:
        DataError: broken, unsupported or too large.
    """
    with opened(data, where, name=name) as image:
        if not name.lower().endswith((".jpg", ".jpeg")):
            return image.convert("RGB")
        stream = io.BytesIO()
        (image.convert("RGB") if image.mode in ("RGBA", "P", "LA") else image).save(stream, "JPEG")
        with Image.open(stream) as again:
            return again.convert("RGB")


@contextmanager
def opened(
    source: str | Path | bytes, where: str | None = None, *, name: str = "", notes: list[str] | None = None
) -> Iterator[Image.Image]:
    """An image as Pillow opens it, closed at the end; any failure, also inside the block, is a DataError."""
    named = name or ("" if isinstance(source, bytes) else str(source))
    of = f": {named}" if named else ""
    found: list[str] = [] if notes is None else notes
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    try:
        with _WARNINGS.collected(found), Image.open(file) as image:
            if image.width * image.height > MOST_PIXELS:
                raise Image.DecompressionBombError
            if image.format in _VECTOR:
                raise DataError(f"{image.format} images are not supported{of}", where=where, hint=CONVERT)
            yield image
    except FileNotFoundError as error:
        hint = "relative paths start from the file that names them, or --image-root"
        raise DataError(f"no such picture{of}", where=where, hint=hint) from error
    except Image.DecompressionBombError as error:
        hint = f"make it smaller: at most {MOST_PIXELS:,} pixels"
        raise DataError(f"too large a picture{of}", where=where, hint=hint) from error
    except UnidentifiedImageError as error:
        if kind := unsupported(source):
            raise DataError(f"{kind} images are not supported{of}", where=where, hint=CONVERT) from error
        hint = "not an image, or its format is unknown"
        raise DataError(f"broken picture{of}", where=where, hint=hint) from error
    except (OSError, ValueError, SyntaxError) as error:
        hint = "; ".join([str(error), *found])
        raise DataError(f"broken picture{of}", where=where, hint=hint) from error


def unsupported(source: str | Path | bytes) -> str | None:
    """The name of a known format that Pillow cannot read, by the first bytes."""
    if isinstance(source, bytes):
        head = source[:1024]
    else:
        with open(source, "rb") as stream:
            head = stream.read(1024)
    if head[4:8] == b"ftyp":
        return "HEIC" if head[8:12] in _HEIF else "AVIF" if head[8:12] in (b"avif", b"avis") else None
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return (
        "SVG" if text.startswith((b"<svg", b"<?xml", b"<!doctype svg", b"<!--")) and b"<svg" in text else None
    )


def to_rgb(image: Image.Image) -> Image.Image:
    """A new 8-bit RGB image from one in any mode of Pillow, see `open_image`."""
    profile = image.info.get("icc_profile")
    pixels = _eight_bits(_upright(image))
    alpha = None
    if pixels.has_transparency_data:
        layer = pixels.convert("RGBA")
        alpha = layer.getchannel("A")
        pixels = layer.getchannel("R") if pixels.mode in ("1", "L", "LA") else layer.convert("RGB")
    rgb = _srgb(pixels, profile).convert("RGB")
    if alpha is not None:
        ground = Image.new("RGB", rgb.size, "white")
        ground.paste(rgb, mask=alpha)
        rgb = ground
    rgb.info.clear()  # what it said of orientation and colours has been applied
    return rgb


def _upright(image: Image.Image) -> Image.Image:
    try:
        if image.getexif().get(ExifTags.Base.Orientation, 1) == 1:
            return image
        return ImageOps.exif_transpose(image)
    except (SyntaxError, ValueError, KeyError, TypeError, struct.error):  # broken EXIF data turns nothing
        return image


def _eight_bits(image: Image.Image) -> Image.Image:
    """Modes with more than 8 bits per value, scaled to 8."""
    if image.mode == "F":
        most = 1.0
    elif image.mode.startswith("I;16"):
        most = 65535.0
        image = image.convert("I")
    elif image.mode == "I":
        most = _most_of_integers(image)
    else:
        return image
    small = image.point(lambda value: value * (255 / most) + 0.5).convert("L")
    key = small.info.get("transparency")
    if isinstance(key, int):
        small.info["transparency"] = min(255, round(key * 255 / most))
    return small


def _most_of_integers(image: Image.Image) -> float:
    """The largest value of the type that mode ``I`` was read from: Pillow widens 16 bits to it."""
    tags: Any = getattr(image, "tag_v2", None)
    if tags is None:
        return 65535.0
    bits, signed = tags.get(258, (16,))[0], tags.get(339, (1,))[0] == 2
    return float((1 << (bits - 1 if signed or bits == 32 else bits)) - 1)


def _srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Colours converted to sRGB by the image's profile; one that is broken or of another mode is ignored."""
    if not profile and image.mode != "LAB":
        return image
    from PIL import ImageCms

    try:
        if image.mode == "LAB":
            own: Any = ImageCms.createProfile("LAB")
        else:
            assert profile is not None
            own = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            space = own.profile.xcolor_space.strip()
            if space == "RGB":
                if "srgb" in ImageCms.getProfileDescription(own).lower():
                    return image
                image = image.convert("RGB")
            elif {"GRAY": "L"}.get(space, space) != image.mode:
                return image
        target = ImageCms.createProfile("sRGB")
        return ImageCms.profileToProfile(image, own, target, outputMode="RGB") or image
    except (ImageCms.PyCMSError, OSError, ValueError, ImportError):
        return image


class _Warnings:
    """Collects Pillow's warnings of several threads at once.

    `warnings.catch_warnings` replaces the filters of the whole process, so threads that leave it in another
    order than they entered would leave the wrong filters behind: here the first one enters and the last one
    leaves.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._own = threading.local()
        self._context: Any = None

    @contextmanager
    def collected(self, notes: list[str]) -> Iterator[None]:
        """Add this thread's warnings to `notes` while the block runs."""
        outer = getattr(self._own, "notes", None)
        with self._lock:
            if not self._inside:
                self._enter()
            self._inside += 1
        self._own.notes = notes
        try:
            yield
        finally:
            self._own.notes = outer
            with self._lock:
                self._inside -= 1
                if not self._inside:
                    self._context.__exit__(None, None, None)

    def _enter(self) -> None:
        self._context = warnings.catch_warnings()
        self._context.__enter__()
        warnings.filterwarnings("always", module=r"(PIL|kore\.io\.images)(\.|$)")
        show = warnings.showwarning

        def collect(message: Warning | str, *args: Any, **options: Any) -> None:
            notes = getattr(self._own, "notes", None)
            if notes is None:  # another thread's, about something else
                show(message, *args, **options)
            elif str(message) not in notes:
                notes.append(str(message))

        warnings.showwarning = collect


_WARNINGS = _Warnings()
