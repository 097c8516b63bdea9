"""Radiographs of every kind become grey bytes, or an error that says why."""

import io

import numpy as np
import pytest
from PIL import Image

from kit.data.images import ImageError, fitted_size, read_grey, resize_longest


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
