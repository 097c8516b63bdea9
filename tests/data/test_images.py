"""Radiographs of every kind become grey bytes, or an error that says why."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from kit.data.images import ImageError, as_read, decode, fitted_size, read_grey, resize_longest
from kit.schemas.image_headers import image_headers


def saved(path, image, **options):
    image.save(path, **options)
    return path


GREY = np.arange(0, 240, 2, dtype=np.uint8).reshape(10, 12)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P"])
def test_eight_bit_modes_give_the_same_grey_levels(mode, tmp_path):
    path = saved(tmp_path / "a.png", Image.fromarray(GREY).convert(mode))
    assert np.abs(read_grey(path).astype(int) - GREY).max() <= (1 if mode == "P" else 0)


def test_a_transparent_rgba_keeps_its_pixels(tmp_path):
    image = Image.fromarray(GREY).convert("RGBA")
    image.putalpha(0)
    assert (read_grey(saved(tmp_path / "a.png", image)) == GREY).all()


def test_sixteen_bits_are_scaled_by_their_own_range_and_not_saturated(tmp_path):
    deep = np.array([[1000, 2000], [3000, 4000]], dtype=np.uint16)
    path = saved(tmp_path / "a.png", Image.fromarray(deep))
    # (2000 - 1000) / (4000 - 1000) x 255 = 85; PIL's own conversion gives 255 everywhere
    assert read_grey(path).tolist() == [[0, 85], [170, 255]]


def test_a_flat_sixteen_bit_image_is_black(tmp_path):
    path = saved(tmp_path / "a.png", Image.fromarray(np.full((2, 2), 700, dtype=np.uint16)))
    assert read_grey(path).tolist() == [[0, 0], [0, 0]]


def test_a_jpeg_is_read(tmp_path):
    path = saved(tmp_path / "a.jpg", Image.fromarray(np.full((8, 8), 100, dtype=np.uint8)))
    assert np.abs(read_grey(path).astype(int) - 100).max() <= 1


def broken_files():
    whole = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)).save(whole, "png")
    data = whole.getvalue()
    return {"empty": b"", "text": b"not an image", "truncated": data[: len(data) // 2], "header": data[:30]}


@pytest.mark.parametrize("kind", ["empty", "text", "truncated", "header"])
def test_a_broken_file_is_an_image_error(kind, tmp_path):
    (tmp_path / "a.png").write_bytes(broken_files()[kind])
    with pytest.raises(ImageError):
        read_grey(tmp_path / "a.png")


def test_a_missing_file_and_a_folder_are_image_errors(tmp_path):
    for path in (tmp_path / "none.png", tmp_path):
        with pytest.raises(ImageError):
            read_grey(path)


# Pillow warns between its limit and twice that; the refusal above it is what is tested.
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_decompression_bomb_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    path = saved(tmp_path / "a.png", Image.fromarray(np.zeros((30, 30), dtype=np.uint8)))
    with pytest.raises(ImageError, match="bomb"):
        read_grey(path)


def test_resizing_keeps_the_aspect_and_returns_what_already_fits():
    image = np.zeros((50, 100), dtype=np.uint8)
    assert resize_longest(image, 40).shape == (20, 40)
    assert resize_longest(image, 200).shape == (100, 200)
    assert resize_longest(image, 100) is image
    assert fitted_size(1000, 1, 10) == (10, 1)


def test_shrinking_averages_the_pixels():
    image = np.array([[0, 100], [100, 200]], dtype=np.uint8)
    assert resize_longest(image, 1).tolist() == [[100]]


# Every kind of PNG: the depths of each colour type, and its channels.
DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 4: (8, 16), 6: (8, 16)}
CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}
WHOLE = [(0, 0, 1, 1)]
ADAM7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(cells, depth, colour, interlaced=False, before=b"", behind=b""):
    """A PNG of cells (h, w, channels) of any depth, with further chunks before and behind the pixels."""
    height, width = cells.shape[:2]
    lines = []
    for x, y, dx, dy in ADAM7 if interlaced else WHOLE:
        for row in cells[y::dy, x::dx]:
            bits = (row.reshape(-1, 1) >> np.arange(depth)[::-1]) & 1
            lines += [b"\0" + np.packbits(bits.ravel().astype(np.uint8)).tobytes()] if row.size else []
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    body = chunk(b"IDAT", zlib.compress(b"".join(lines)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + before + body + behind + chunk(b"IEND", b"")


def luma(cells, colour):
    """ITU-R 601-2 in whole numbers, as Pillow computes it; the alpha is left out."""
    if colour in (0, 4):
        return cells[..., 0].astype(np.int64)
    return (cells[..., :3].astype(np.int64) @ [19595, 38470, 7471] + 2**15) >> 16


@st.composite
def png_cells(draw):
    colour = draw(st.sampled_from(sorted(DEPTHS)))
    depth = draw(st.sampled_from(DEPTHS[colour]))
    # Less than a hundred pixels: none of them is left out as an outlier.
    height, width = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    used = draw(st.integers(1, depth))  # 12 of 16 bits, for example
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return rng.integers(0, 2**used, (height, width, CHANNELS[colour])), depth, colour, draw(st.booleans())


@given(png_cells())
def test_any_png_gives_its_luma_and_one_of_sixteen_bits_its_luma_over_its_range(tmp_path_factory, image):
    cells, depth, colour, interlaced = image
    path = tmp_path_factory.getbasetemp() / "any.png"
    path.write_bytes(png(cells, depth, colour, interlaced))
    if depth < 16:
        expected = luma(cells * (255 // (2**depth - 1)), colour)
    else:
        levels = luma(cells, colour)
        low, high = levels.min(), levels.max()
        expected = np.round((levels - low) * (255 / max(high - low, 1)))
        assert decode(path).levels.lowest == low and decode(path).levels.highest == high
    assert (read_grey(path) == expected).all()


TWELVE_BITS = np.linspace(0, 4095, 120 * 100).astype(np.int64).reshape(120, 100)


@pytest.mark.parametrize("colour", sorted(CHANNELS))
def test_twelve_bits_in_sixteen_are_the_same_picture_in_every_mode(colour, tmp_path):
    cells = np.repeat(TWELVE_BITS[..., None], CHANNELS[colour], axis=2)
    if colour in (4, 6):
        cells[..., -1] = 65535
    (tmp_path / "a.png").write_bytes(png(cells, 16, colour))
    assert (read_grey(tmp_path / "a.png") == np.round(TWELVE_BITS * (255 / 4095))).all()


def test_a_large_file_of_sixteen_bit_colours_is_read_whatever_the_size_of_its_parts(tmp_path):
    cells = np.random.default_rng(0).integers(0, 4096, (1000, 1500, 3)).astype(">u2")  # 9 MB
    lines = zlib.compress(b"".join(b"\0" + row.tobytes() for row in cells), 0)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 1500, 1000, 16, 2, 0, 0, 0))
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", lines) + chunk(b"IEND", b""))
    levels = luma(cells, 2)
    expected = np.round((levels - levels.min()) * (255 / (levels.max() - levels.min())))
    assert (read_grey(tmp_path / "a.png") == expected).all()


@pytest.mark.parametrize("colour", sorted(CHANNELS))
@given(marked=st.integers(0, 110), dead=st.integers(0, 110))
def test_a_few_pixels_far_from_the_others_cost_these_no_grey_level(colour, marked, dead, tmp_path_factory):
    """Of 12,000 pixels up to 110 are a saturated marker, and up to 110 are dead."""
    anatomy = TWELVE_BITS + 20_000
    levels = anatomy.copy()
    levels.flat[:dead] = 0
    levels.flat[levels.size - marked :] = 65535
    path = tmp_path_factory.getbasetemp() / "marked.png"
    path.write_bytes(png(np.repeat(levels[..., None], CHANNELS[colour], axis=2), 16, colour))
    decoded = decode(path)
    low, high = anatomy.flat[dead], anatomy.flat[anatomy.size - marked - 1]
    assert (decoded.pixels == np.round((np.clip(levels, low, high) - low) * (255 / (high - low)))).all()
    assert decoded.levels.outside == marked + dead
    assert (decoded.levels.lowest, decoded.levels.highest) == (levels.min(), levels.max())
    assert (decoded.levels.low, decoded.levels.high) == (low, high)


@pytest.mark.parametrize("colour", [0, 2])
@given(share=st.floats(0.011, 0.05), at_black=st.booleans(), edge=st.integers(0, 6))
def test_a_marker_beyond_a_gap_costs_the_others_no_grey_level(colour, share, at_black, edge, tmp_path_factory):
    """A twentieth of the pixels at most; some pixels of its soft edge lie in the gap."""
    anatomy = TWELVE_BITS + 20_000
    levels, marked = anatomy.copy(), int(share * anatomy.size)
    levels.flat[levels.size - marked :] = 65535
    levels.flat[levels.size - marked : levels.size - marked + edge] = 45_000
    others = anatomy.flat[: levels.size - marked]
    if at_black:
        levels, others = 65535 - levels, 65535 - others
    path = tmp_path_factory.getbasetemp() / "beyond.png"
    path.write_bytes(png(np.repeat(levels[..., None], CHANNELS[colour], axis=2), 16, colour))
    decoded = decode(path)
    assert (decoded.levels.low, decoded.levels.high) == (others.min(), others.max())
    assert decoded.levels.outside == marked
    assert len(np.unique(decoded.pixels)) == 256


def test_two_levels_stay_black_and_white_whatever_their_share(tmp_path):
    for share in (0.005, 0.02, 0.5, 0.97):
        levels = np.full(TWELVE_BITS.shape, 100)
        levels.flat[: int(share * levels.size)] = 60_000
        Image.fromarray(levels.astype(np.uint16)).save(tmp_path / "a.png")
        assert sorted(np.unique(read_grey(tmp_path / "a.png"))) == [0, 255]


def test_a_bright_part_of_more_than_a_twentieth_is_part_of_the_picture(tmp_path):
    levels = TWELVE_BITS.copy()
    levels.flat[-610:] = 65535
    Image.fromarray(levels.astype(np.uint16)).save(tmp_path / "a.png")
    decoded = decode(tmp_path / "a.png")
    assert decoded.levels.outside == 0 and decoded.levels.high == 65535


def test_levels_that_are_not_far_from_the_others_stay_whatever_their_number(tmp_path):
    levels = TWELVE_BITS.copy()
    levels.flat[-1] = 8000  # the middle 98% are 4013 levels wide, and end at 4054: 8000 is less than that away
    Image.fromarray(levels.astype(np.uint16)).save(tmp_path / "a.png")
    assert decode(tmp_path / "a.png").levels.outside == 0


def exif(orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def exif_chunk(orientation):
    return chunk(b"eXIf", exif(orientation).tobytes().removeprefix(b"Exif\0\0"))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_eight_orientations_are_those_of_pillow(orientation, tmp_path):
    path = saved(tmp_path / "a.png", Image.fromarray(GREY), exif=exif(orientation))
    assert decode(path).orientation == orientation
    assert (decode(path).pixels == GREY).all()
    with Image.open(path) as image:
        upright = np.asarray(ImageOps.exif_transpose(image))
    assert (as_read(GREY, orientation, False) == upright).all()
    assert (as_read(GREY, orientation, True) == 255 - upright).all()


@pytest.mark.parametrize("behind", [False, True])
def test_a_tag_behind_the_pixels_counts_as_one_before_them(behind, tmp_path):
    words = {"behind" if behind else "before": exif_chunk(6)}
    (tmp_path / "a.png").write_bytes(png(GREY[..., None].astype(int), 8, 0, **words))
    assert decode(tmp_path / "a.png").orientation == 6
    facts = image_headers(tmp_path, "exif")["a.png"]
    assert (facts.width_px, facts.height_px, facts.turn) == (10, 12, 6)
    facts = image_headers(tmp_path)["a.png"]
    assert (facts.width_px, facts.height_px, facts.turn) == (12, 10, 1)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@given(st.one_of(st.binary(max_size=60), st.integers(0, 65535).map(lambda value: exif(value).tobytes()[6:])))
def test_no_exif_data_make_a_picture_unreadable(suffix, tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / f"exif.{suffix}"
    if suffix == "png":
        path.write_bytes(png(GREY[..., None].astype(int), 8, 0, before=chunk(b"eXIf", data)))
    else:
        Image.fromarray(GREY).save(path, exif=b"Exif\0\0" + data)
    decoded = decode(path)
    assert np.abs(decoded.pixels.astype(int) - GREY).max() <= (0 if suffix == "png" else 40)
    assert decoded.orientation in range(1, 9)


@given(png_cells(), st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=4), st.floats(0.2, 1.5))
def test_a_damaged_png_of_any_kind_is_a_picture_of_its_size_or_an_image_error(
    tmp_path_factory, image, changes, kept
):
    cells, depth, colour, interlaced = image
    data = bytearray(png(cells, depth, colour, interlaced))
    for where, value in changes:
        data[int(where * (len(data) - 1))] = value
    path = tmp_path_factory.getbasetemp() / "damaged.png"
    path.write_bytes(data[: int(kept * len(data))])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of odd parts that it passes over
        try:
            pixels = read_grey(path)
        except ImageError as error:
            assert str(error)
        else:
            with Image.open(path) as opened:
                assert pixels.shape == (opened.height, opened.width)
