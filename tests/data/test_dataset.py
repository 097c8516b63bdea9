"""From files to samples: the patients of images, and a cache that equals the files."""

import contextlib
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from command_line import PATIENCE_SECONDS
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from repository import ROOT
from toy import toy_config

from kit.config import AugmentationConfig
from kit.core.errors import KitError
from kit.core.threads import Threads
from kit.data.competition import load_training, patients
from kit.data.dataset import DetectionDataset, EpochSampler, collate, loader, training_dataset
from kit.data.images import pixel_digest, read_grey
from kit.data.pixel_cache import open_cache
from kit.detectors.hardware import explain_failures

NIH = r"^(\d{8})_\d{3}"


class TestPatients:
    def test_nih_names_carry_their_patient(self):
        found = patients(["00013118_008.png", "00013118_001.png", "scan.png"], NIH, {})
        assert found == {"00013118_008.png": "00013118", "00013118_001.png": "00013118", "scan.png": "scan.png"}

    def test_another_pattern_says_it_for_other_names(self):
        assert patients(["p7-a.png", "p7-b.png"], r"(p\d+)-", {}) == {"p7-a.png": "p7", "p7-b.png": "p7"}

    def test_a_pattern_without_a_group_is_the_patient_itself(self):
        assert patients(["p7-a.png"], r"p\d+", {}) == {"p7-a.png": "p7"}


class TestPixelCache:
    def test_it_holds_the_very_pixels_of_the_files(self, toy):
        cache = open_cache(toy / "data" / "train", toy / ".cache", 1.0)
        for image_id, facts in cache.facts.items():
            assert (cache.read(image_id) == read_grey(facts.path)).all()

    def test_rows_by_number_are_the_images_by_name_in_the_order_asked_for(self, toy):
        cache = open_cache(toy / "data" / "train", toy / ".cache", 1.0)
        assert len(cache.rows([]).offsets) == 0
        names = sorted(cache.facts)[::-3]
        rows = pickle.loads(pickle.dumps(cache.rows(names)))  # as a loader's worker gets them
        assert all((rows.read(place) == cache.read(name)).all() for place, name in enumerate(names))

    def test_every_image_has_the_digest_of_its_pixels_whatever_the_file(self, toy):
        folder, cache = toy / "data" / "train", toy / ".cache"
        digests = open_cache(folder, cache, 1.0).digests
        assert list(digests) == sorted(path.name for path in folder.iterdir())
        assert all(digest == pixel_digest(read_grey(folder / name)) for name, digest in digests.items())
        first, second = sorted(digests)[:2]
        with Image.open(folder / first) as image:
            image.save(folder / first, compress_level=1)
        (folder / second).write_bytes(b"nothing")
        again = open_cache(folder, cache, 1.0).digests
        assert again == {name: digest for name, digest in digests.items() if name != second}

    def test_an_index_of_an_earlier_version_is_made_anew_and_that_is_said(self, toy, caplog):
        caplog.set_level("INFO", "kit")
        folder, cache = toy / "data" / "train", toy / ".cache"
        digests = open_cache(folder, cache, 1.0).digests
        index = json.loads((cache / "train.json").read_text())
        earlier = {name: value for name, value in index.items() if name != "digests"} | {"key": "0" * 16}
        (cache / "train.json").write_text(json.dumps(earlier))
        assert not caplog.text
        assert open_cache(folder, cache, 1.0).digests == digests
        assert "made by an earlier version" in caplog.text
        assert json.loads((cache / "train.json").read_text()) == index

    def test_a_second_opening_knows_the_same_of_every_file(self, toy):
        folder, cache = toy / "data" / "train", toy / "fresh"
        (folder / "broken.png").write_bytes(b"nothing")
        (folder / "gone.png").symlink_to(folder / "nowhere.png")
        first, second = open_cache(folder, cache, 1.0), open_cache(folder, cache, 1.0)
        assert second == first
        assert second.facts["broken.png"].fault and second.facts["gone.png"].fault
        assert len(second.facts) == 34

    def test_an_index_of_other_files_is_refused(self, toy):
        open_cache(toy / "data" / "train", toy / ".cache", 1.0)
        path = toy / ".cache" / "train.json"
        index = json.loads(path.read_text())
        path.write_text(json.dumps(index | {"widths_px": index["widths_px"][1:]}))
        with pytest.raises(KitError, match=r"sizes and digests of 32 images\n.*31\n.*delete"):
            open_cache(toy / "data" / "train", toy / ".cache", 1.0)

    def test_it_is_built_once_and_again_when_a_file_changed(self, toy):
        folder, cache = toy / "data" / "train", toy / ".cache"
        first = open_cache(folder, cache, 1.0)
        assert open_cache(folder, cache, 1.0).file == first.file
        name = sorted(first.facts)[0]
        os.utime(folder / name, ns=(1, 1))
        second = open_cache(folder, cache, 1.0)
        assert second.file != first.file
        assert [path.name for path in cache.glob("train-*.u8")] == [second.file.name]

    def test_an_unreadable_image_is_a_fact_and_remembered(self, toy):
        folder = toy / "data" / "train"
        name = sorted(path.name for path in folder.glob("*.png"))[0]
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: len(data) // 2])
        for _ in range(2):
            assert "truncated" in open_cache(folder, toy / ".cache", 1.0).facts[name].fault

    def test_a_cache_that_is_too_large_names_its_knob(self, toy):
        with pytest.raises(KitError, match=r"--set data\.cache_max_gib=1,") as caught:
            open_cache(toy / "data" / "train", toy / "elsewhere", 1e-6)
        advised = float(re.findall(r"cache_max_gib=(\d+)", caught.value.do)[0])
        assert open_cache(toy / "data" / "train", toy / "elsewhere", advised).digests

    def test_an_empty_folder_is_an_empty_cache(self, tmp_path):
        (tmp_path / "train").mkdir()
        assert open_cache(tmp_path / "train", tmp_path / "c", 1.0).facts == {}

    def test_a_broken_index_is_an_error_that_says_what_to_delete(self, toy):
        (toy / ".cache" / "train.json").write_text("{")
        with pytest.raises(KitError, match="delete"):
            open_cache(toy / "data" / "train", toy / ".cache", 1.0)


class TestDataset:
    def dataset(self, toy, augmentation=None):
        data = load_training(toy, toy_config())
        return data, DetectionDataset(data, data.image_ids, 64, 5, augmentation)

    def test_boxes_follow_the_resize_and_labels_begin_at_one(self, toy):
        data, dataset = self.dataset(toy)
        for place, image_id in enumerate(data.image_ids):
            sample = dataset[place]
            rows = data.annotations[data.annotations["image_id"] == image_id]
            expected = rows[["x_min", "y_min", "x_max", "y_max"]].to_numpy() * 64 / 96
            assert np.allclose(sample.boxes.numpy(), expected, atol=1e-4)
            assert [data.labels[number - 1] for number in sample.labels] == rows["label"].tolist()
            assert sample.image.shape == (1, 64, 64)
        assert min(int(dataset[i].labels.min()) for i in range(len(dataset))) == 1

    def test_a_sample_is_a_function_of_seed_epoch_and_index(self, toy):
        _, one = self.dataset(toy, AugmentationConfig())
        _, other = self.dataset(toy, AugmentationConfig())
        keys = [(epoch, place) for epoch in range(2) for place in range(4)]
        first = [one[key] for key in keys]
        second = [other[key] for key in reversed(keys)][::-1]
        assert all(bool((a.image == b.image).all()) for a, b in zip(first, second, strict=True))
        assert any(bool((a.image != b.image).any()) for a, b in zip(first[:4], first[4:], strict=True))

    def test_an_index_past_the_end_wraps_round_and_does_not_count(self, toy):
        _, dataset = self.dataset(toy)
        wrapped = dataset[(0, len(dataset) + 2)]
        assert (wrapped.image_index, wrapped.counted) == (2, False)
        assert dataset[(0, 2)].counted

    def test_one_byte_per_pixel_travels(self, toy):
        _, dataset = self.dataset(toy)
        assert dataset[0].image.element_size() * dataset[0].image.nelement() == 64 * 64

    def test_an_image_without_boxes_is_a_sample(self, toy):
        data = load_training(toy, toy_config())
        first = data.image_ids[0]
        bare = data.annotations[data.annotations["image_id"] != first]
        (toy / "data" / "train.csv").write_text(bare.to_csv(index=False))
        data = load_training(toy, toy_config())
        sample = DetectionDataset(data, [first], 64, 0, AugmentationConfig())[0]
        assert sample.boxes.shape == (0, 4)
        assert sample.labels.shape == (0,)

    def test_a_batch_keeps_images_apart(self, toy):
        _, dataset = self.dataset(toy)
        batch = collate([dataset[0], dataset[(0, len(dataset))]])
        assert [len(batch.images), batch.indices, batch.counted] == [2, [0, 0], [True, False]]

    def test_the_public_training_dataset_needs_the_training_half_only(self, toy):
        (toy / "data" / "ID_to_Image_Mapping.csv").unlink()
        for folder in (toy / "data" / "test", toy / ".cache"):
            shutil.rmtree(folder, ignore_errors=True)
        dataset = training_dataset(toy, image_size_px=48)
        assert len(dataset) == 32
        assert dataset[0].image.shape == (1, 48, 48)
        assert dataset[31].boxes.shape[1] == 4
        for size_px in (0, -5):
            with pytest.raises(KitError, match="image_size_px"):
                training_dataset(toy, image_size_px=size_px)

    def test_workers_live_over_the_epochs_and_a_gpu_copies_from_pinned_memory(self, toy):
        dataset = training_dataset(toy, image_size_px=48)
        batches = loader(dataset, EpochSampler(len(dataset), 0), 4, workers=2, pinned=True)
        assert batches.persistent_workers and batches.pin_memory
        alone = loader(dataset, EpochSampler(len(dataset), 0), 4, workers=0, pinned=False)
        assert not alone.persistent_workers and not alone.pin_memory


class TestSampler:
    def test_the_order_is_a_function_of_seed_and_epoch(self):
        sampler = EpochSampler(10, 3)
        first = list(sampler)
        sampler.set_epoch(1)
        second = list(sampler)
        sampler.set_epoch(0)
        assert list(sampler) == first
        assert sorted(place for _, place in first) == sorted(place for _, place in second) == list(range(10))
        assert [place for _, place in first] != [place for _, place in second]

    @settings(deadline=None)
    @given(st.integers(1, 30), st.integers(1, 4))
    def test_processes_share_equally_and_count_every_image_once(self, count, processes):
        shares = [list(EpochSampler(count, None, rank, processes)) for rank in range(processes)]
        assert len({len(share) for share in shares}) == 1
        counted = [place for share in shares for _, place in share if place < count]
        assert sorted(counted) == list(range(count))


@pytest.mark.slow
def test_workers_start_after_opencv_has_used_its_threads(toy):
    code = f"""
import cv2, numpy as np
from pathlib import Path
from kit.config import Config
from kit.data import DetectionDataset, EpochSampler, load_training, loader
cv2.setNumThreads(4)
cv2.warpAffine(np.zeros((2000, 2000), np.uint8), np.eye(2, 3), (2000, 2000))  # large enough for all of them
data = load_training(Path({str(toy)!r}), Config())
dataset = DetectionDataset(data, data.image_ids, 64, 0, Config().augmentation)
print(sum(len(batch.images) for batch in loader(dataset, EpochSampler(len(dataset), 0), 4, 2, pinned=False)))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS,
        cwd=ROOT,
    )  # fmt: skip
    assert done.stdout.split() == ["32"], done.stderr


def test_an_interrupted_decoding_waits_for_what_has_begun_only():
    done, interrupted = [], threading.Event()

    def slowly(number):
        interrupted.wait()
        time.sleep(0.2)
        done.append(number)

    with pytest.raises(KeyboardInterrupt), contextlib.closing(Threads(1)) as pool:
        pool.map(slowly, range(100))
        interrupted.set()
        raise KeyboardInterrupt
    assert len(done) < 50  # two; all of them if what has not begun were not given up


@pytest.mark.parametrize(
    "text", ["", "no such file: 'train.u8'", "Caught in a worker\nTraceback\nno such file: 'train.u8'"]
)
def test_a_file_that_vanishes_under_the_network_is_said_in_words(text):
    with (
        pytest.raises(KitError, match="rebuilds the cache") as error,
        explain_failures(4, 128, "training.batch_size"),
    ):
        raise FileNotFoundError(text)
    assert error.value.found == ("no such file: 'train.u8'" if text else "a deleted file")


@pytest.mark.parametrize(("batch", "lowered"), [(4, True), (1, False)])
def test_a_batch_that_does_not_fit_names_only_what_can_be_lowered(batch, lowered):
    with (
        pytest.raises(KitError, match="to fit the memory") as error,
        explain_failures(batch, 128, "training.batch_size under another --run NAME"),
    ):
        raise MemoryError
    assert ("lower training.batch_size" in error.value.do) == lowered
    assert "a smaller model.image_size_px under another --run NAME" in error.value.do


def test_a_deleted_cache_is_said_in_words(toy):
    cache = open_cache(toy / "data" / "train", toy / ".cache", 1.0)
    shutil.rmtree(toy / ".cache")
    with pytest.raises(KitError, match="to exist while it is used"):
        cache.read(next(iter(cache.facts)))
