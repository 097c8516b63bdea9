"""Raw detections: a table of every view, that grows in parts."""

import dataclasses
import tracemalloc
import weakref

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn
from toy import toy_config

from kit.boxes.geometry import flip_horizontally
from kit.config import InferenceConfig, preset
from kit.core.errors import KitError
from kit.core.threads import made_ahead
from kit.data.competition import load_test
from kit.data.pixel_cache import open_cache
from kit.detectors import inference, networks, weights
from kit.detectors.inference import Source, detect
from kit.detectors.tta import View, views
from kit.evaluation.predict import predict
from kit.runs import detecting
from kit.runs.detecting import store_detections
from kit.runs.detections import detections_key, read_detections
from kit.runs.folder import Run
from kit.schemas.detections import DETECTION_COLUMNS


class Finder(nn.Module):
    """A stand-in detector that finds the brightest pixel's row and column, in the picture it is shown."""

    def __init__(self, label=1, found=True):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.label, self.found, self.calls = label, found, 0

    def forward(self, images):
        self.calls += 1
        return [self._one(image[0]) for image in images]

    def _one(self, image):
        if not self.found:
            return {
                "boxes": torch.zeros(0, 4),
                "labels": torch.zeros(0, dtype=torch.int64),
                "scores": torch.zeros(0),
            }
        rows, columns = torch.nonzero(image > 0.5 * image.max(), as_tuple=True)
        box = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]).float()
        return {"boxes": box[None], "labels": torch.tensor([self.label]), "scores": torch.tensor([0.5])}


def squares(folder, sizes):
    """The cache of images with one bright square each."""
    (folder / "images").mkdir()
    for i, (height, width) in enumerate(sizes):
        image = np.zeros((height, width), dtype=np.uint8)
        image[20:60, 10:50] = 150
        Image.fromarray(image).save(folder / "images" / f"{i:03d}.png")
    return open_cache(folder / "images", folder / "cache", 1.0)


def source(**options):
    return Source("run", 0, "a" * 64, ("Mass",), 100, InferenceConfig(**options))


def test_no_images_are_an_empty_table(tmp_path):
    table = detect(source(), Finder(), squares(tmp_path, []), [])
    assert list(table.columns) == list(DETECTION_COLUMNS)
    assert len(table) == 0


def test_nothing_found_is_an_empty_table(tmp_path):
    pixels = squares(tmp_path, [(100, 100)])
    assert len(detect(source(), Finder(found=False), pixels, list(pixels.facts))) == 0


def test_every_view_finds_the_square_in_the_originals_pixels(tmp_path):
    pixels = squares(tmp_path, [(100, 100), (100, 200), (150, 100), (100, 100)])
    table = detect(source(batch_size=2), Finder(), pixels, list(pixels.facts))
    assert table.groupby("image_id")["view"].apply(list).tolist() == [list(InferenceConfig().views)] * 4
    boxes = table[["x_min", "y_min", "x_max", "y_max"]].to_numpy()
    assert np.abs(boxes - [10, 20, 50, 60]).max() <= 2.5  # a pixel of a picture half the size, and its blur


def test_stored_detections_stay_those_of_their_run_with_another_batch_size_but_not_with_other_views(tmp_path):
    pixels = squares(tmp_path, [(100, 100)])
    key = detections_key(source(batch_size=4), pixels, list(pixels.facts))
    assert detections_key(source(batch_size=1), pixels, list(pixels.facts)) == key
    assert detections_key(source(views=("plain",)), pixels, list(pixels.facts)) != key


def test_batches_find_what_single_images_find(tmp_path):
    pixels = squares(tmp_path, [(100, 100), (100, 200), (150, 100), (100, 100), (100, 100)])
    torch.manual_seed(1)  # with other weights there may be no detection, or two of equal scores
    detector = networks.build(weights.resolve_norms(preset("demo").model), 1).eval()
    origin = dataclasses.replace(source(batch_size=3), image_size_px=64)
    together = detect(origin, detector, pixels, list(pixels.facts))
    single = pd.concat([detect(origin, detector, pixels, [name]) for name in pixels.facts])
    assert len(together) == len(single) > 100
    keys = ["image_id", "view", "label"]
    assert together[keys].to_numpy().tolist() == single[keys].to_numpy().tolist()
    assert np.abs(together["score"].to_numpy() - single["score"].to_numpy()).max() < 1e-5
    corners = ["x_min", "y_min", "x_max", "y_max"]
    assert np.abs(together[corners].to_numpy() - single[corners].to_numpy()).max() < 1e-2


def test_views_that_are_made_ahead_for_a_gpu_are_those_made_in_turn(tmp_path):
    pixels = squares(tmp_path, [(100, 100), (100, 200), (100, 100)])
    in_turn, ahead = (
        list(of(inference._shown(source(batch_size=2), pixels, list(pixels.facts)))) for of in (iter, made_ahead)
    )
    assert [made[:3] for made in in_turn] == [made[:3] for made in ahead]
    assert len(ahead) == 2 * len(source().inference.views)
    for one, other in zip(in_turn, ahead, strict=True):
        assert all(torch.equal(*images) for images in zip(one[3], other[3], strict=True))


def test_of_each_image_one_view_is_in_memory_at_a_time(tmp_path):
    side, count = 512, 4

    pixels = squares(tmp_path, [(side, side)] * count)
    origin = dataclasses.replace(source(batch_size=count), image_size_px=side)
    network = Finder(found=False)
    detect(origin, network, pixels, list(pixels.facts))
    tracemalloc.start()
    detect(origin, network, pixels, list(pixels.facts))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.5 * (1.1 * side) ** 2  # numpy's: the view of one image, on its way into a tensor


def test_the_tensors_of_a_view_are_gone_before_the_next_one_is_made(tmp_path, monkeypatch):
    shown, alive = inference._shown, []

    def watched(*args):
        earlier = []
        for batch in shown(*args):
            alive.extend(tensor() for tensor in earlier)
            earlier = [weakref.ref(tensor) for tensor in batch[-1]]
            held = [batch]
            del batch
            yield held.pop()

    monkeypatch.setattr(inference, "_shown", watched)
    pixels = squares(tmp_path, [(100, 100)] * 4)
    detect(source(batch_size=4), Finder(found=False), pixels, list(pixels.facts))
    assert len(alive) > 4
    assert set(alive) == {None}


def test_a_wrong_inverse_would_be_seen():
    boxes = np.array([[10.0, 20.0, 50.0, 60.0]])
    shown = flip_horizontally(boxes, 100)
    assert np.abs(View("plain").invert(shown, 100, 100, 100) - boxes).max() > 30


def test_background_is_no_detection(tmp_path):
    pixels = squares(tmp_path, [(100, 100)])
    assert len(detect(source(), Finder(label=0), pixels, list(pixels.facts))) == 0


class TestStore:
    def test_a_second_call_reads_what_is_there(self, tmp_path):
        pixels, network = squares(tmp_path, [(80, 80)] * 3), Finder()
        path = tmp_path / "d" / "test.parquet"
        first = store_detections(path, source(), lambda: network, pixels, list(pixels.facts))
        calls = network.calls
        path.with_suffix(".parts").mkdir()  # of a process that was killed before it removed them
        second = store_detections(path, source(), lambda: network, pixels, list(pixels.facts))
        assert not path.with_suffix(".parts").exists()
        assert network.calls == calls > 0
        assert first.equals(second)
        assert [part.name for part in path.parent.iterdir()] == ["test.parquet"]

    @pytest.mark.parametrize("change", ["weights", "views", "images", "pixels"])
    def test_detections_of_another_source_are_made_anew(self, change, tmp_path):
        pixels, network = squares(tmp_path, [(80, 80)] * 3), Finder()
        path, ids = tmp_path / "test.parquet", list(pixels.facts)
        store_detections(path, source(), lambda: network, pixels, ids)
        calls, origin = network.calls, source()
        if change == "weights":
            origin = Source("run", 0, "b" * 64, ("Mass",), 100, InferenceConfig())
        if change == "views":
            origin = source(views=("plain",))
        if change == "images":
            ids = ids[:2]
        if change == "pixels":
            pixels = dataclasses.replace(pixels, digests={**pixels.digests, ids[1]: "b" * 64})
        store_detections(path, origin, lambda: network, pixels, ids)
        assert network.calls > calls

    def test_an_interrupted_store_goes_on_with_the_next_chunk(self, tmp_path):
        ids = [f"{i:03d}.png" for i in range(2 * detecting.CHUNK_IMAGES + 1)]
        pixels = squares(tmp_path, [(64, 64)] * len(ids))
        path, network = tmp_path / "test.parquet", Finder()
        origin = source(views=("plain",), batch_size=detecting.CHUNK_IMAGES)

        def stopping(items, description, total):
            for number, item in enumerate(items):
                if number == 2:
                    raise KeyboardInterrupt
                yield item

        with pytest.raises(KeyboardInterrupt):
            store_detections(path, origin, lambda: network, pixels, ids, stopping)
        assert network.calls == 2
        resumed = store_detections(path, origin, lambda: network, pixels, ids)
        assert network.calls == 3
        straight = store_detections(tmp_path / "straight.parquet", origin, Finder, pixels, ids)
        assert resumed.equals(straight)

    def test_a_smaller_batch_goes_on_where_a_full_memory_ended_and_makes_nothing_anew(self, tmp_path):
        ids = [f"{i:03d}.png" for i in range(detecting.CHUNK_IMAGES + 2)]
        pixels = squares(tmp_path, [(64, 64)] * len(ids))
        path, whole, single = tmp_path / "test.parquet", Finder(), Finder()
        large = source(views=("plain",), batch_size=detecting.CHUNK_IMAGES)

        def full(items, description, total):
            yield next(iter(items))
            raise MemoryError

        with pytest.raises(MemoryError):
            store_detections(path, large, lambda: whole, pixels, ids, full)
        small = source(views=("plain",), batch_size=1)
        made = store_detections(path, small, lambda: single, pixels, ids)
        assert (whole.calls, single.calls) == (1, 2)
        assert store_detections(path, large, Finder, pixels, ids).equals(made)

    def test_a_broken_file_is_an_error_that_names_it(self, tmp_path):
        (tmp_path / "test.parquet").write_bytes(b"PAR1 nonsense")
        with pytest.raises(KitError, match=r"test\.parquet"):
            read_detections(tmp_path / "test.parquet")


def test_the_stored_table_has_the_promised_columns_fold_zero_and_every_view(trained):
    table = pd.read_parquet(Run(trained, "demo").detections("validation"))
    assert list(table.columns) == list(DETECTION_COLUMNS)
    assert set(table["run"]) == {"demo"}
    assert set(table["fold"]) == {0}
    assert set(table["view"]) == {"plain", "flip", "zoom_out"}
    assert table["score"].between(0.001, 1).all()
    assert table.groupby(["image_id", "view"]).size().max() <= 100


def test_predicted_detections_are_stored_beside_them(evaluated):
    predict(Run(evaluated, "demo"))
    table = pd.read_parquet(Run(evaluated, "demo").detections("test"))
    assert set(table["image_id"]) <= set(load_test(evaluated, toy_config()).image_ids)
    assert {view.name for view in views(toy_config().inference)} == set(table["view"])
