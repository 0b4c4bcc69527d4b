"""Every image becomes the RGB pixels that a person sees, whatever its file says and holds."""

from __future__ import annotations

import io
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image, ImageCms

from kore.demo.archive import demo_data
from kore.errors import DataError
from kore.io.images import check_image, open_as_vlmevalkit, open_image, to_rgb
from kore.training.dataset import check_pictures, located
from tests.unit.test_train_data import conversation

UPRIGHT = Image.new("RGB", (16, 24), "white")
UPRIGHT.paste("red", (0, 0, 8, 8))
UPRIGHT.paste("blue", (8, 16, 16, 24))
# how an image is stored that each orientation turns upright
STORED = {
    1: [],
    2: [Image.Transpose.FLIP_LEFT_RIGHT],
    3: [Image.Transpose.ROTATE_180],
    4: [Image.Transpose.FLIP_TOP_BOTTOM],
    5: [Image.Transpose.TRANSPOSE],
    6: [Image.Transpose.ROTATE_90],
    7: [Image.Transpose.TRANSVERSE],
    8: [Image.Transpose.ROTATE_270],
}


def saved(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def pixel(data: bytes | Image.Image) -> tuple[int, ...]:
    value = open_image(data).getpixel((0, 0))
    assert isinstance(value, tuple)
    return value


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", STORED)
def test_the_orientation_is_applied(orientation: int, kind: str) -> None:
    image = UPRIGHT
    for step in STORED[orientation]:
        image = image.transpose(step)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = (
        {"quality": 100, "subsampling": 0} if kind == "JPEG" else {"lossless": True} if kind == "WEBP" else {}
    )
    shown = open_image(saved(image, kind, exif=exif, **options))
    assert shown.size == UPRIGHT.size
    for place in ((2, 2), (12, 2), (2, 20), (12, 20)):
        found, wanted = shown.getpixel(place), UPRIGHT.getpixel(place)
        assert isinstance(found, tuple) and isinstance(wanted, tuple)
        assert max(abs(a - b) for a, b in zip(found, wanted, strict=True)) < 24
    assert shown.getexif().get(0x0112) is None and to_rgb(shown).tobytes() == shown.tobytes()


def test_transparency_is_composited_on_white() -> None:
    clear = Image.new("RGBA", (4, 4), (10, 200, 30, 0))
    assert pixel(saved(clear)) == (255, 255, 255)
    assert pixel(saved(Image.new("RGBA", (4, 4), (0, 0, 0, 128)))) == (127, 127, 127)
    assert pixel(saved(Image.new("LA", (4, 4), (0, 0)))) == (255, 255, 255)
    assert pixel(saved(Image.new("P", (4, 4), 0), transparency=0)) == (255, 255, 255)
    palette = UPRIGHT.quantize(8)
    assert pixel(saved(palette)) == UPRIGHT.getpixel((0, 0))
    assert pixel(saved(palette, transparency=bytes(8))) == (255, 255, 255)
    assert pixel(saved(Image.new("L", (4, 4), 7), transparency=7)) == (255, 255, 255)
    assert pixel(saved(Image.new("RGB", (4, 4), (1, 2, 3)), transparency=(1, 2, 3))) == (255, 255, 255)
    assert pixel(saved(clear, "GIF")) == (255, 255, 255)
    assert pixel(saved(Image.new("RGBA", (4, 4), (10, 200, 30, 255)))) == (10, 200, 30)


@pytest.mark.parametrize(
    ("image", "kind", "expected"),
    [
        (Image.new("I;16", (2, 2), 128 * 257), "PNG", 128),
        (Image.new("I;16", (2, 2), 65535), "TIFF", 255),
        (Image.new("I;16B", (2, 2), 40 * 257), "TIFF", 40),
        (Image.new("I", (2, 2), 2**30), "TIFF", 128),
        (Image.new("F", (2, 2), 0.5), "TIFF", 128),
        (Image.new("F", (2, 2), 7.0), "TIFF", 255),
        (Image.new("F", (2, 2), -1.0), "TIFF", 0),
        (Image.new("L", (2, 2), 99), "PNG", 99),
        (Image.new("1", (2, 2), 1), "PNG", 255),
    ],
)
def test_values_are_scaled_by_the_range_of_their_type(image: Image.Image, kind: str, expected: int) -> None:
    assert pixel(saved(image, kind)) == (expected,) * 3


def test_cmyk_and_other_colour_spaces_become_rgb() -> None:
    assert pixel(saved(Image.new("CMYK", (2, 2), (0, 255, 255, 0)), "TIFF")) == (255, 0, 0)
    red, green, blue = pixel(saved(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG"))
    assert red > 240 and green < 15 and blue < 15
    assert pixel(Image.new("YCbCr", (2, 2), (255, 128, 128))) == (255, 255, 255)
    assert min(pixel(Image.new("LAB", (2, 2), (255, 128, 128)))) > 250


def test_a_colour_profile_is_converted_to_srgb() -> None:
    xyz = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image = Image.new("RGB", (2, 2), (200, 40, 40))
    assert pixel(saved(image, icc_profile=srgb)) == (200, 40, 40)
    assert pixel(saved(image, icc_profile=b"broken")) == (200, 40, 40)
    assert pixel(saved(image, icc_profile=xyz)) == (200, 40, 40), "a profile of another mode is ignored"
    swapped = swapped_primaries(srgb)
    red, green, blue = pixel(saved(image, icc_profile=swapped))
    assert green > 150 > red and blue < 100
    clear = Image.new("RGBA", (2, 2), (200, 40, 40, 255))
    assert pixel(saved(clear, icc_profile=swapped)) == (red, green, blue)


def swapped_primaries(profile: bytes) -> bytes:
    """An sRGB profile whose red and green primaries are exchanged, under another name."""
    table = {
        profile[i : i + 4]: i for i in range(132, 132 + 12 * int.from_bytes(profile[128:132], "big"), 12)
    }
    data = bytearray(profile)
    red, green = table[b"rXYZ"], table[b"gXYZ"]
    data[red + 4 : red + 12], data[green + 4 : green + 12] = (
        profile[green + 4 : green + 12],
        profile[red + 4 : red + 12],
    )
    return (
        bytes(data).replace("sRGB".encode("utf-16-be"), "swap".encode("utf-16-be")).replace(b"sRGB", b"swap")
    )


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_an_animation_shows_its_first_frame(kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = saved(frames[0], kind, save_all=True, append_images=frames[1:], duration=50, **options)
    assert pixel(data) == (255, 0, 0)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "HEIC"),
        (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
        (b'\xef\xbb\xbf<svg width="4"/>', "SVG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n", "EPS"),
    ],
)
def test_an_unsupported_kind_is_named_with_the_remedy(tmp_path: Path, data: bytes, kind: str) -> None:
    path = tmp_path / "photo.img"
    path.write_bytes(data)
    for look in (open_image, check_image):
        with pytest.raises(DataError, match=rf"{kind} images are not supported: .*photo\.img") as caught:
            look(path, "samples.jsonl:3")
        assert caught.value.where == "samples.jsonl:3" and "convert it to PNG" in str(caught.value.hint)


def test_pillows_warnings_are_collected_and_not_printed(tmp_path: Path) -> None:
    path = tmp_path / "odd.jpg"
    path.write_bytes(saved(UPRIGHT, "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01"))
    notes: list[str] = []
    assert open_image(path, notes=notes).size == UPRIGHT.size
    assert any("EXIF" in note for note in notes)
    code = f"from kore.io.images import open_image; open_image({str(path)!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "" and done.stdout == ""


def test_opening_in_threads_leaves_the_warning_filters_as_they_were(tmp_path: Path) -> None:
    paths = []
    for i in range(40):
        paths.append(tmp_path / f"{i}.png")
        Image.effect_noise((64, 64), 40 + i).convert("RGB").save(paths[-1])
    before, show = list(warnings.filters), warnings.showwarning
    for _ in range(5):
        check_pictures(located([conversation(path) for path in paths]))
        assert list(warnings.filters) == before and warnings.showwarning is show
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(open_image, paths * 5))
    assert list(warnings.filters) == before and warnings.showwarning is show


def test_a_benchmarks_image_is_opened_as_vlmevalkit_does() -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    data = saved(UPRIGHT, exif=turned)
    assert open_as_vlmevalkit(data, "x.png").size == UPRIGHT.size
    clear = saved(Image.new("RGBA", (4, 4), (10, 200, 30, 0)))
    assert open_as_vlmevalkit(clear, "x.png").getpixel((0, 0)) == (10, 200, 30)
    with pytest.raises(DataError, match=r"row 3: broken picture: x\.png"):
        open_as_vlmevalkit(b"no", "x.png", "row 3")


def test_the_opener_is_light() -> None:
    code = "import sys, kore.io.images; print({'torch', 'numpy', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_the_packaged_demo_images_are_unchanged_by_the_opener() -> None:
    folder = demo_data()
    paths = sorted(folder.rglob("*.png"))[::40]
    assert paths
    for path in paths:
        with Image.open(path) as image:
            assert open_image(path).tobytes() == image.convert("RGB").tobytes()
