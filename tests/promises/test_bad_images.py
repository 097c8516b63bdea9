"""Images of every kind under one roof: each becomes the grey levels that it holds, or a fault that says why."""

import io
import random
import struct
import tracemalloc
import zlib

import numpy as np
import pandas as pd
import pytest
from mutations import snapshot
from PIL import Image, ImageCms, PngImagePlugin

from kit.core.errors import KitError
from kit.data.images import read_grey
from kit.data.pixel_cache import open_cache
from kit.schemas.csv_text import TableError
from kit.schemas.tables import read_annotations

CUTS, FLIPS = 60, 120
GREY = (np.arange(24 * 16, dtype=np.uint32).reshape(24, 16) * 7 % 251).astype(np.uint8)
WIDE_PX, BOMB_PX = 20_000, 60_000


def encoded(image, kind="PNG", **options):
    goal = io.BytesIO()
    image.save(goal, kind, **options)
    return goal.getvalue()


def chunk(name, content):
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(width, height, depth, colour, lines, extra=b""):
    """A PNG written by hand: any depth, any size, and whatever chunks stand before the pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + line for line in lines), 9))
    return b"\x89PNG\r\n\x1a\n" + header + extra + body + chunk(b"IEND", b"")


def whole_images():
    """Name to (bytes, the grey levels that they hold, how far off each may be)."""
    image, big = Image.fromarray(GREY), np.arange(WIDE_PX, dtype=np.uint32)[None].repeat(2, 0).astype(np.uint8)
    deep = GREY.astype(np.uint16) * 257
    low, high = int(deep.min()), int(deep.max())
    scaled = np.round((deep.astype(float) - low) * 255 / (high - low)).astype(np.uint8)
    see_through = image.convert("RGBA")
    see_through.putalpha(Image.fromarray(255 - GREY))
    notes = PngImagePlugin.PngInfo()
    notes.add_text("note", "x" * 10_000, zip=True)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    lines = [bytes(row) for row in GREY]
    bits = (GREY > 120).astype(np.uint8)
    return {
        "grey": (encoded(image), GREY, 0),
        "rgb": (encoded(image.convert("RGB")), GREY, 0),
        "rgba": (encoded(see_through), GREY, 0),
        "grey-alpha": (encoded(see_through.convert("LA")), GREY, 0),
        "palette": (encoded(image.convert("P")), GREY, 0),
        "palette-web": (encoded(image.quantize(256)), GREY, 3),
        "clear-colour": (encoded(image, transparency=7), GREY, 0),
        "sixteen": (encoded(Image.fromarray(deep)), scaled, 0),
        "sixteen-by-hand": (png(16, 24, 16, 0, [row.astype(">u2").tobytes() for row in deep]), scaled, 0),
        "rgb-sixteen": (
            png(16, 24, 16, 2, [np.repeat(row, 3).astype(">u2").tobytes() for row in deep]), scaled, 0,
        ),
        "grey-alpha-sixteen": (png(16, 24, 16, 4, with_alpha(deep, 1)), scaled, 0),
        "rgba-sixteen": (png(16, 24, 16, 6, with_alpha(deep, 3)), scaled, 0),
        "rgb-twelve-of-sixteen": (
            png(16, 24, 16, 2, [np.repeat(row // 16, 3).astype(">u2").tobytes() for row in deep]), scaled, 1,
        ),
        "exif-broken": (png(16, 24, 8, 0, lines, chunk(b"eXIf", b"MM\0*\0\0\0\x08\xff\xff")), GREY, 0),
        "exif-rubbish": (encoded(image, "JPEG", quality=95, exif=b"Exif\0\0rubbish"), GREY, 40),
        "exif-ninth-way": (png(16, 24, 8, 0, lines, chunk(b"eXIf", orientation_tag(9))), GREY, 0),
        "one-bit": (png(16, 24, 1, 0, [np.packbits(row).tobytes() for row in bits]), bits * 255, 0),
        "four-bit": (
            png(16, 24, 4, 0, [bytes(row[::2] << 4 | row[1::2]) for row in bits]), bits * 17, 0,
        ),
        "fast-packed": (encoded(image, compress_level=0), GREY, 0),
        "icc": (encoded(image.convert("RGB"), icc_profile=profile), GREY, 0),
        "icc-rubbish": (encoded(image, icc_profile=b"no profile at all"), GREY, 0),
        "icc-broken": (png(16, 24, 8, 0, lines, chunk(b"iCCP", b"x\0\0not deflated")), GREY, 0),
        "gamma": (png(16, 24, 8, 0, lines, chunk(b"gAMA", struct.pack(">I", 10))), GREY, 0),
        "notes": (encoded(image, pnginfo=notes), GREY, 0),
        "unknown-chunk": (png(16, 24, 8, 0, lines, chunk(b"teSt", b"\xff" * 99)), GREY, 0),
        "more-after-the-end": (encoded(image) + b"<script>", GREY, 0),
        "one-pixel": (encoded(Image.fromarray(GREY[:1, :1])), GREY[:1, :1], 0),
        "one-row": (encoded(Image.fromarray(GREY[:1])), GREY[:1], 0),
        "wide": (encoded(Image.fromarray(big)), big, 0),
        "tall": (encoded(Image.fromarray(big.T)), big.T, 0),
        "black": (encoded(Image.fromarray(GREY * 0)), GREY * 0, 0),
        "sixteen-flat": (encoded(Image.fromarray(deep * 0 + 700)), GREY * 0, 0),
        "jpeg": (encoded(image, "JPEG", quality=95), GREY, 40),
        "jpeg-colour": (encoded(image.convert("RGB"), "JPEG", quality=95), GREY, 40),
        "jpeg-progressive": (encoded(image, "JPEG", quality=95, progressive=True), GREY, 40),
        "jpeg-turned": (encoded(image, "JPEG", quality=95, exif=turned()), GREY, 40),
        "jpeg-cmyk": (encoded(image.convert("CMYK"), "JPEG", quality=95), GREY, 40),
    }  # fmt: skip


def with_alpha(deep, channels):
    """Lines of 16-bit pixels: a picture's levels in each channel, and an alpha that shows half of them."""
    cells = np.stack([*[deep] * channels, np.where(deep % 2, 65535, 7)], axis=2).astype(">u2")
    return [row.tobytes() for row in cells]


def orientation_tag(value):
    """EXIF data with an orientation alone: a TIFF header and a directory of one entry."""
    return b"MM\0*\0\0\0\x08" + struct.pack(">HHHIHHI", 1, 0x0112, 3, 1, value, 0, 0)


def turned():
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn me": boxes were drawn on the pixels as they lie in the file
    return exif


def broken_images():
    """Name to bytes that hold no radiograph."""
    image, data = Image.fromarray(GREY), encoded(Image.fromarray(GREY))
    files = {
        "nothing": b"",
        "one-byte": b"\x89",
        "text": b"not an image",
        "web-page": b"<!doctype html><html>Sign in</html>",
        "zeros": bytes(4096),
        "signature": data[:8],
        "dicom": bytes(128) + b"DICM" + bytes(200),
        "pickle": b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94.",
        "svg": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
        "no-width": png(0, 24, 8, 0, []),
        "negative-width": png(2**32 - 16, 24, 8, 0, []),
        "bomb": png(BOMB_PX, BOMB_PX, 1, 0, [bytes(BOMB_PX // 8)]),
        "bomb-of-lines": png(16, 2**31 - 1, 8, 0, [bytes(16)]),
        "odd-depth": png(16, 24, 7, 0, []),
        "odd-colour": png(16, 24, 8, 9, []),
        "no-pixels": png(16, 24, 8, 0, []),
        "half-of-the-lines": png(16, 24, 8, 0, [bytes(16)] * 12),
        "a-line-too-few": png(16, 24, 8, 2, [bytes(48)] * 23),
        "no-palette": png(16, 24, 8, 3, [bytes(16)] * 24),
        "notes-bomb": png(
            16, 24, 8, 0, [bytes(16)] * 24, chunk(b"zTXt", b"x\0\0" + zlib.compress(bytes(2**27), 9))
        ),
    }
    for kind in ("GIF", "BMP", "TIFF", "WEBP", "PPM", "ICO", "TGA", "PCX"):
        files[f"really-{kind.lower()}"] = encoded(image, kind)
    return files


def damaged_images():
    """Whole images of four kinds, cut short or with one byte changed."""
    drawn = random.Random(11)
    sources = [(kind, whole_images()[kind][0]) for kind in ("grey", "sixteen", "rgb-sixteen", "jpeg")]
    for turn in range(CUTS):
        kind, data = sources[turn % len(sources)]
        cut = drawn.randrange(1, len(data))
        yield f"cut-{turn:03d}-{kind}", data[:cut]
    for turn in range(FLIPS):
        kind, data = sources[turn % len(sources)]
        place = drawn.randrange(len(data))
        yield (
            f"flip-{turn:03d}-{kind}",
            data[:place] + bytes([data[place] ^ (1 << drawn.randrange(8))]) + data[place + 1 :],
        )


def images_tried():
    return len(whole_images()) + len(broken_images()) + CUTS + FLIPS


def written(folder, files):
    folder.mkdir()
    for name, data in files.items():
        (folder / f"{name}.png").write_bytes(data)
    return folder


def test_a_whole_image_of_any_kind_gives_the_grey_levels_that_it_holds(tmp_path):
    whole = whole_images()
    cache = open_cache(
        written(tmp_path / "train", {name: data for name, (data, _, _) in whole.items()}), tmp_path / "c", 1
    )
    for name, (_, grey, off) in whole.items():
        facts = cache.facts[f"{name}.png"]
        assert facts.fault == "", name
        assert (facts.height_px, facts.width_px) == grey.shape, name
        assert np.abs(cache.read(f"{name}.png").astype(int) - grey).max() <= off, name


def test_a_file_that_holds_no_radiograph_is_a_fault_of_its_row(tmp_path):
    broken = broken_images()
    folder = written(tmp_path / "train", broken)
    before = snapshot(folder)
    cache = open_cache(folder, tmp_path / "c", 1)
    assert all(cache.facts[f"{name}.png"].fault for name in broken), [
        n for n in broken if not cache.facts[f"{n}.png"].fault
    ]
    table = pd.DataFrame(
        {
            "image_id": [f"{name}.png" for name in broken],
            "x_min": 0,
            "y_min": 0,
            "x_max": 5,
            "y_max": 5,
            "label": "Mass",
        }
    )
    table.to_csv(tmp_path / "train.csv", index=False)
    with pytest.raises(TableError) as caught:
        read_annotations(tmp_path / "train.csv", cache.facts)
    faults = {fault.line: fault for fault in caught.value.faults}
    for line, name in enumerate(broken, start=2):
        assert f"{name}.png" in faults[line].value
    assert snapshot(folder) == before


def test_a_damaged_image_is_the_one_it_was_or_a_fault(tmp_path):
    """A PNG has a checksum per part: no changed pixel gets through. A JPEG has none, and keeps its size alone."""
    damaged = dict(damaged_images())
    cache = open_cache(written(tmp_path / "train", damaged), tmp_path / "c", 1)
    whole = {kind: grey for kind, (_, grey, _) in whole_images().items()}
    fine = 0
    for name in damaged:
        facts, kind = cache.facts[f"{name}.png"], name.split("-", 2)[2]
        if facts.fault:
            continue
        fine += 1
        pixels = cache.read(f"{name}.png")
        assert pixels.shape == (facts.height_px, facts.width_px)
        if kind != "jpeg":
            assert (pixels == whole[kind]).all(), name
    assert 0 < fine < len(damaged) / 2


def test_images_that_would_fill_the_disk_are_refused_with_the_knob(tmp_path):
    wide = encoded(Image.new("1", (9_000, 9_000)))  # 81 million pixels from ten kilobytes: no bomb by itself
    folder = written(tmp_path / "train", {str(i): wide for i in range(14)})
    with pytest.raises(KitError, match=r"data\.cache_max_gib"):
        open_cache(folder, tmp_path / "c", 1)
    assert [path.name for path in (tmp_path / "c").iterdir()] == [".lock"]


def test_a_stream_that_goes_on_for_gigabytes_is_read_as_far_as_the_picture_goes(tmp_path):
    lines = zlib.compressobj(9)
    stream = b"".join(lines.compress(bytes(2**24)) for _ in range(16)) + lines.flush()  # 256 MiB of black
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 16, 24, 8, 0, 0, 0, 0))
    path = tmp_path / "a.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", stream) + chunk(b"IEND", b""))
    tracemalloc.start()
    try:
        assert not read_grey(path).any()
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()


def test_a_black_picture_is_whole_whatever_stands_before_its_header(tmp_path):
    whole = png(16, 24, 8, 0, [bytes(16)] * 24)
    path = tmp_path / "a.png"
    path.write_bytes(whole[:8] + chunk(b"tEXt", b"note\0x" * 9) + whole[8:])
    assert read_grey(path).shape == (24, 16)
