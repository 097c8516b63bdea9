"""One picture is recognised whatever its name, size, compression or brightness; two patients stay two."""

import io

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from kit.data import alignment
from kit.data.duplicates import Prints, common_pictures, duplicate_groups, joined_groups, likeness, take_prints
from kit.data.images import pixel_digest
from kit.data.perceptual_hash import dct_bits
from kit.data.synthetic.generator import draw_findings, render


def drawn(seed, size_px=256):
    rng = np.random.default_rng(seed)
    return render(rng, draw_findings(rng, ["Mass"], size_px), size_px)


def prints(*images):
    digests = {str(index): pixel_digest(image) for index, image in enumerate(images)}
    return take_prints(digests, lambda name: images[int(name)])


def groups(*images):
    return duplicate_groups(prints(*images))


def compressed(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=30)
    return np.asarray(Image.open(file))


COPIES = {
    "compressed": compressed,
    "smaller": lambda image: cv2.resize(image, (128, 128), interpolation=cv2.INTER_AREA),
    "larger": lambda image: cv2.resize(image, (700, 700), interpolation=cv2.INTER_LINEAR),
    "brighter": lambda image: np.clip(image * 1.2, 0, 255).astype(np.uint8),
    "paler": lambda image: (image * 0.7 + 20).astype(np.uint8),
    "much brighter": lambda image: np.clip(image * 1.5, 0, 255).astype(np.uint8),
    "mirrored": lambda image: np.ascontiguousarray(image[:, ::-1]),
    "inverted": lambda image: 255 - image,
    "cropped by 2%": lambda image: image[5:-5, 5:-5],
    "cropped at one side": lambda image: image[:, 12:],
    "mirrored, cropped, brighter, smaller": lambda image: np.clip(
        cv2.resize(image[5:-5, 250:5:-1], (150, 150), interpolation=cv2.INTER_AREA) * 1.2, 0, 255
    ).astype(np.uint8),
    "all of these": lambda image: compressed(cv2.resize((image * 0.9 + 10).astype(np.uint8), (200, 200))),
}


def test_no_images_have_no_duplicates():
    assert groups() == []


def test_two_equal_images_are_a_group_and_a_third_is_not_in_it():
    assert groups(drawn(1), drawn(2), drawn(1)) == [(0, 2)]


def test_groups_are_joined_along_links_and_by_none_they_stay():
    group_of = np.array([0, 1, 1, 2, 3])
    assert joined_groups(group_of, np.zeros((0, 2), dtype=np.int64)).tolist() == [0, 1, 1, 2, 3]
    joined = joined_groups(group_of, np.array([[0, 1], [2, 3]]))  # all but the last, one of them by its group alone
    assert len(set(joined[:4])) == 1 and joined[4] not in joined[:4]


@pytest.mark.parametrize("copy", COPIES)
def test_a_changed_copy_is_found_among_others(copy):
    originals = [drawn(seed) for seed in range(4)]
    assert groups(*originals, COPIES[copy](originals[2])) == [(2, 4)]


def test_copies_of_copies_are_one_group_however_many():
    image = drawn(1)
    assert groups(image, *(copy(image) for copy in COPIES.values()), image) == [tuple(range(len(COPIES) + 2))]


def test_pictures_of_two_sets_are_paired_by_pixels_or_by_likeness():
    ours = [drawn(seed) for seed in range(3)]
    theirs = [drawn(7), np.ascontiguousarray(ours[2][5:-5, 250:5:-1]), ours[0], np.zeros((9, 9), np.uint8)]
    assert common_pictures(prints(*ours), prints(*theirs)).tolist() == [[0, 2], [2, 1]]
    assert common_pictures(prints(), prints(*theirs)).tolist() == []
    assert common_pictures(prints(*ours), prints()).tolist() == []


def test_the_order_of_two_pictures_does_not_count():
    wholes = [drawn(seed) for seed in range(6)]
    crops = [whole[by : len(whole) - by, by : len(whole) - by] for whole in wholes for by in (9, 12, 14)]
    ours, theirs = prints(*wholes), prints(*crops)
    forth, back = common_pictures(ours, theirs), common_pictures(theirs, ours)
    assert sorted(forth.tolist()) == sorted(back[:, ::-1].tolist())
    assert 0 < len(forth) < len(crops)  # some crops are near the limit


def test_a_crop_is_laid_over_the_whole_before_they_are_compared():
    image = drawn(1)
    near = likeness(prints(image, image[10:-10, -10:10:-1]), 0, 1)
    assert near.mirrored and near.aligned > 0.97 > near.correlation


def test_a_way_by_which_two_are_unlike_at_once_does_not_count(monkeypatch):
    whole = drawn(0)
    pair = prints(whole, whole[8:-8, 4:-12]).copies
    coarsely, unlike = alignment._coarsely_laid, []

    def laid(first, second, scales):
        ways, near = coarsely(first, second, scales)
        return ways, near & ((scales < 1) not in unlike)

    def likeness_of_both():
        return alignment.aligned_likeness(pair[:1], pair[1:], np.array([0.95]))[0].tolist()

    monkeypatch.setattr(alignment, "_coarsely_laid", laid)
    either = likeness_of_both()
    unlike[:] = [True]
    one = likeness_of_both()
    unlike[:] = [False]
    other = likeness_of_both()
    assert one != other
    assert either == [max(both) for both in zip(one, other, strict=True)]
    unlike[:] = [True, False]
    assert likeness_of_both() == [0, 0]


def test_the_measure_of_the_docs_finds_every_resized_copy_and_no_turned_one(tmp_path):
    from benchmarks.copies import CHANGES, changed_prints, missed_share

    files = [tmp_path / f"{seed}.png" for seed in range(3)]
    for seed, path in enumerate(files):
        Image.fromarray(drawn(seed, 128)).save(path)
    originals = changed_prints(files, lambda image: image)
    missed = {name: missed_share(originals, changed_prints(files, CHANGES[name])) for name in CHANGES}
    assert missed["shrunk to 128 px"] == missed["mirrored"] == 0
    assert missed["turned by 3 degrees"] == 1


def test_pictures_of_one_grey_level_equal_only_themselves():
    black, white = np.zeros((40, 40), np.uint8), np.full((40, 40), 255, np.uint8)
    assert groups(black, white, black.copy(), np.zeros((40, 41), np.uint8)) == [(0, 2)]


def test_a_digest_tells_the_same_bytes_in_another_shape_apart():
    image = np.arange(12, dtype=np.uint8).reshape(3, 4)
    assert pixel_digest(image) == pixel_digest(image.copy())
    assert pixel_digest(image) != pixel_digest(image.reshape(4, 3))


def test_likeness_says_how_near():
    image = drawn(1)
    near = likeness(prints(image, image, 255 - image), 0, 1)
    assert (near.equal, near.bits, near.correlation) == (True, 0, pytest.approx(1))
    inverse = likeness(prints(image, 255 - image), 0, 1)
    assert inverse.correlation == pytest.approx(-1, abs=1e-3)
    assert inverse.bits > 200  # all but the mean's and the median's


def test_the_longest_wave_alone_sets_its_own_bits():
    ramp = np.cos(np.pi * (2 * np.arange(64) + 1) / 128)  # the second wave across, by its definition
    copy = np.round(127.5 + 100 * np.tile(ramp, (64, 1))).astype(np.uint8)
    (bits,) = dct_bits(copy[None])
    assert bits.reshape(16, 16)[0, 0]  # the mean
    assert bits.reshape(16, 16)[0, 1]  # across
    (turned,) = dct_bits(255 - copy[None])
    assert not turned.reshape(16, 16)[0, 1]


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.integers(2, 40), st.integers(1, 6))
def test_planted_copies_in_noise_are_found_and_nothing_else(seed, count, copies):
    rng = np.random.default_rng(seed)
    noise = rng.integers(0, 256, (count, 64, 64), dtype=np.uint8)
    chosen = rng.integers(0, count, copies)
    everything = np.concatenate([noise, noise[chosen] // 2])
    names = tuple(map(str, range(len(everything))))
    wanted = {
        (place, *(count + np.flatnonzero(chosen == place)).tolist()) for place in sorted(set(chosen.tolist()))
    }
    assert set(duplicate_groups(Prints(names, names, everything))) == wanted


@pytest.mark.parametrize("compared", [0, 1, 4, 7, 12])
def test_groups_of_the_first_images_that_are_known_change_nothing(compared):
    first, second = drawn(1), drawn(2)
    chain = [first, second, *(copy(first) for copy in COPIES.values())][:11]
    everything = prints(*chain, chain[-1])
    known = groups(*chain[:compared])
    assert duplicate_groups(everything, compared, known) == duplicate_groups(everything)
    assert [group[0] for group in duplicate_groups(everything)] == [0]


def test_images_that_were_compared_already_are_not_compared_again():
    image = drawn(1)
    everything = prints(image, compressed(image), drawn(2), COPIES["mirrored"](image))
    assert duplicate_groups(everything, 2) == [(0, 1, 3)]  # by the third alone
    assert duplicate_groups(everything, 4) == []


def test_blocks_do_not_hide_a_copy_that_is_far_away():
    rng = np.random.default_rng(0)
    many = rng.integers(0, 256, (1300, 64, 64), dtype=np.uint8)
    many[1299], many[600] = many[3], many[599]
    names = tuple(map(str, range(len(many))))
    assert duplicate_groups(Prints(names, names, many)) == [(3, 1299), (599, 600)]


def test_the_images_of_a_synthetic_competition_are_all_different(toy_source):
    from toy import toy_config

    from kit.data.competition import load_test, load_training

    halves = [load(toy_source, toy_config()).pixels for load in (load_training, load_test)]
    images = [pixels.read(name) for pixels in halves for name in pixels.facts]
    assert len(images) == 40
    assert groups(*images) == []
