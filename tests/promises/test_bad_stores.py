"""Stored detections and checkpoints with one thing wrong: as they stand, or refused; no code runs from them."""

import csv
import io
import json
import os
import pickle
import random
import shutil

import numpy as np
import pandas as pd
import pyarrow.parquet
import pytest
import torch
from mutations import json_mutants, snapshot, table_mutants

from kit.core.errors import KitError
from kit.data.pixel_cache import open_cache
from kit.detectors.checkpoints import load_checkpoint
from kit.runs.detecting import kept_weights
from kit.runs.detections import read_detections
from kit.runs.folder import Run
from kit.schemas.detections import DETECTION_COLUMNS
from kit.submission.folders import INDEX_COLUMNS, Origin, write_index, write_submission

CUTS, FLIPS = 40, 200
TEXTS = ("run", "view", "image_id", "label")


def detections():
    rows = 6
    numbers = np.arange(rows, dtype=np.float32)
    return pd.DataFrame(
        {
            "run": "demo", "fold": np.int64(0), "view": "plain", "image_id": [f"{i}.png" for i in range(rows)],
            "x_min": numbers, "y_min": numbers, "x_max": numbers + 5, "y_max": numbers + 7.5,
            "score": numbers / 8, "label": "Mass",
        }
    )[list(DETECTION_COLUMNS)]  # fmt: skip


def parquet(table):
    goal = io.BytesIO()
    table.to_parquet(goal, index=False)
    return goal.getvalue()


def other_tables():
    """Name to table: a column of another type, with one other value, gone, added or moved."""
    whole = detections()
    kinds = ("int8", "int64", "uint64", "float16", "float32", "float64", "bool", "str", "category",
             "datetime64[ns]", "string", "bytes", "list", "none")  # fmt: skip
    made = {
        "bytes": lambda column: [str(value).encode() for value in column],
        "list": lambda column: [[value] for value in column],
        "none": lambda column: [None] * len(column),
    }
    for name in DETECTION_COLUMNS:
        for kind in kinds:
            try:
                column = made[kind](whole[name]) if kind in made else whole[name].astype(kind)
            except (ValueError, TypeError):
                continue
            yield f"{name} as {kind}", whole.assign(**{name: column})
        values = ("", " ", None, 3) if name in TEXTS else (np.nan, np.inf, -np.inf, -1.0, 2.0, 1e30, -1e30, 0.5)
        for value in values:
            column = whole[name].astype(object) if name in TEXTS else whole[name].astype(float)
            column[2] = value
            yield f"{name} with {value!r}", whole.assign(**{name: column.astype(str) if value == 3 else column})
        yield f"{name} gone", whole.drop(columns=name)
        yield f"{name} renamed", whole.rename(columns={name: name.upper()})
    yield "no rows", whole.iloc[:0]
    yield "no columns", whole[[]]
    yield "one column more", whole.assign(note="x")
    yield "upside down", whole[::-1]
    yield "columns reversed", whole[list(reversed(DETECTION_COLUMNS))]
    yield "an own index", whole.set_index("image_id", drop=False, append=True).rename_axis(["a", "b"])


def damaged(data, drawn):
    """Bytes that end early, and bytes with one bit turned."""
    for _ in range(CUTS):
        cut = drawn.randrange(1, len(data))
        yield f"cut after {cut}", data[:cut]
    for _ in range(FLIPS):
        place = drawn.randrange(len(data))
        yield f"byte {place}", data[:place] + bytes([data[place] ^ (1 << drawn.randrange(8))]) + data[place + 1 :]


def parquet_mutants():
    for name, table in other_tables():
        yield name, parquet(table) if name != "an own index" else index_kept(table)
    data = parquet(detections())
    drawn = random.Random(5)
    for name, content in {
        "nothing": b"",
        "text": b"run,fold\n",
        "zeros": bytes(5000),
        "ends alone": b"PAR1PAR1",
    }.items():
        yield name, content
    yield from damaged(data, drawn)


def index_kept(table):
    goal = io.BytesIO()
    table.to_parquet(goal)
    return goal.getvalue()


PARQUET = list(parquet_mutants())


def assert_detections_as_they_stand(table, data):
    """What pyarrow itself reads from the same bytes; and every row a box that can be scored."""
    stands = pyarrow.parquet.read_table(io.BytesIO(data)).to_pydict()
    for name in DETECTION_COLUMNS:
        ours = table[name].tolist()
        assert ours == stands[name] or np.allclose(ours, stands[name], rtol=0, atol=0)
        if name in TEXTS:
            assert all(isinstance(text, str) and text for text in ours)
    assert np.isfinite(table[["x_min", "y_min", "x_max", "y_max", "score"]].to_numpy(dtype=float)).all()
    assert ((table["x_max"] > table["x_min"]) & (table["y_max"] > table["y_min"])).all()
    assert table["score"].between(0, 1).all()
    assert table["fold"].ge(0).all()


def test_bad_detections_are_read_as_they_stand_or_refused(step, tmp_path):
    path = tmp_path / "validation.parquet"
    accepted = 0
    for name, data in PARQUET[::step]:
        path.write_bytes(data)
        try:
            try:
                table = read_detections(path)
            except KitError as error:
                assert str(path) in str(error)
                assert error.found and "delete" in error.do
            else:
                accepted += 1
                assert_detections_as_they_stand(table, data)
        except BaseException as problem:
            problem.add_note(f"mutant: {name}")
            raise
    assert 0 < accepted < len(PARQUET[::step])
    assert snapshot(tmp_path) == {path.name: data}


class Trap:
    """What a stranger would put into a checkpoint: unpickling it makes a file."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def traps(goal):
    """Name to bytes: ways to run code from a file that torch can read."""
    calls = {
        "os.system": Trap(os.system, f"touch {goal}"),
        "os.mkdir": Trap(os.mkdir, str(goal)),
        "eval": Trap(eval, f"open({str(goal)!r}, 'w')"),
        "exec": Trap(exec, f"open({str(goal)!r}, 'w')"),
        "open": Trap(open, str(goal), "w"),
        "getattr": Trap(getattr, Trap(__import__, "os"), "mkdir"),
        "torch.load": Trap(torch.load, str(goal)),
    }
    for name, trap in calls.items():
        for place, content in {
            "alone": trap,
            "in a value": {"state_dict": {}, "kit": trap},
            "in a key": {"state_dict": {"x": [trap]}},
            "as weights": {"state_dict": trap, "kit": {"epoch": 1}},
        }.items():
            yield f"{name} {place}, pickled", pickle.dumps(content)
            for zipped in (True, False):
                yield f"{name} {place}, saved {zipped}", saved(content, zipped)


def saved(content, zipped=True):
    goal = io.BytesIO()
    torch.save(content, goal, _use_new_zipfile_serialization=zipped)
    return goal.getvalue()


def test_no_checkpoint_runs_code(tmp_path):
    path, goal = tmp_path / "best.ckpt", tmp_path / "it-ran"
    tried = 0
    for name, data in traps(goal):
        path.write_bytes(data)
        with pytest.raises(KitError, match=r"best\.ckpt"):
            load_checkpoint(path, "restore it")
        assert not goal.exists(), name
        tried += 1
    assert tried == TRAPS
    os.system(f"touch {goal}")  # the trap itself works
    assert goal.exists()


TRAPS = 7 * 4 * 3


def whole_checkpoint():
    return {
        "state_dict": {"a.weight": torch.arange(6.0).reshape(2, 3), "a.count": torch.tensor(3)},
        "kit": {"epoch": 2, "labels": ["Mass"], "model": {"norm": "batch", "norm_eps": 1e-5}},
    }


def checkpoint_mutants():
    whole = whole_checkpoint()
    yield "whole", saved(whole)
    yield "whole, the old format", saved(whole, zipped=False)
    for name, content in {
        "a tensor": torch.zeros(2), "a list": [whole], "a text": "weights", "none": None, "a number": 3,
        "empty": {}, "no kit": {"state_dict": whole["state_dict"]}, "no weights": {"kit": whole["kit"]},
    }.items():  # fmt: skip
        yield name, saved(content)
    for key in ("state_dict", "kit"):
        for value in (None, 3, "x", [], {}, torch.zeros(1), {"x": "y"}, {1: torch.zeros(1)}, {"epoch": "two"},
                      {"epoch": None}, {"epoch": float("nan")}, {"epoch": [1]}, {"epoch": -1}):  # fmt: skip
            yield f"{key} = {value!r}"[:60], saved({**whole, key: value})
    data = saved(whole)
    drawn = random.Random(6)
    for name, content in {
        "nothing": b"",
        "text": b"weights",
        "zeros": bytes(900),
        "zip": b"PK\5\6" + bytes(18),
    }.items():
        yield name, content
    yield from damaged(data, drawn)


CHECKPOINTS = list(checkpoint_mutants())


def test_a_bad_checkpoint_is_read_as_it_stands_or_refused(step, tmp_path):
    run = Run(tmp_path, "demo")
    run.folder.mkdir(parents=True)
    accepted = 0
    for name, data in CHECKPOINTS[::step]:
        run.best.write_bytes(data)
        try:
            try:
                _, epoch, weights = kept_weights(run, "best")
            except KitError as error:
                assert str(run.best) in str(error)
                assert error.found and error.do
            else:
                accepted += 1
                stands = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
                assert epoch == stands["kit"]["epoch"] >= 1
                assert weights.keys() == stands["state_dict"].keys()
                assert all(same(weights[key], stands["state_dict"][key]) for key in weights)
        except BaseException as problem:
            problem.add_note(f"mutant: {name}")
            raise
    assert 0 < accepted < len(CHECKPOINTS[::step])


def same(one, other):
    return torch.allclose(one, other, rtol=0, atol=0, equal_nan=True)


def index_bytes(folder):
    for message in ("first", "second, with a comma", "third"):
        write_submission(folder, "ID\n", Origin(message, "demo", 0.25), lambda path: None)
    return (folder / "index.csv").read_bytes()


INDEX_CELLS, INDEX_FLIPS = 90, 40


def index_mutants(data):
    plain = data.replace(b'"second, with a comma"', b"second")
    return list(table_mutants(plain, 8, cells=INDEX_CELLS, flips=INDEX_FLIPS))


def test_a_bad_index_is_made_whole_from_the_manifests_or_refused(step, tmp_path):
    """Lines of submissions that are there come from their manifests; lines of others stay as they were."""
    path = tmp_path / "index.csv"
    mutants = index_mutants(index_bytes(tmp_path))
    accepted = 0
    for mutant in mutants[::step]:
        path.write_bytes(mutant.data)
        try:
            try:
                write_index(tmp_path)
            except KitError as error:
                assert "index.csv" in str(error)
                assert path.read_bytes() == mutant.data
            else:
                accepted += 1
                with path.open(encoding="utf-8", newline="") as file:
                    rows = list(csv.DictReader(file))
                assert list(rows[0]) == list(INDEX_COLUMNS)
                numbers = [int(row["number"]) for row in rows]
                assert numbers == sorted(set(numbers))
                messages = {int(row["number"]): row["message"] for row in rows}
                assert (messages[1], messages[2], messages[3]) == ("first", "second, with a comma", "third")
        except BaseException as problem:
            problem.add_note(f"mutant: {mutant.name}")
            raise
        assert not list(tmp_path.glob(".*.partial"))
    assert 0 < accepted < len(mutants)


CACHE_VALUES, CACHE_FLIPS = 200, 20


def test_a_bad_index_of_the_pixel_cache_is_made_anew_or_refused_and_no_pixel_changes(step, toy_source, tmp_path):
    folder, cache = tmp_path / "train", tmp_path / ".cache"
    folder.mkdir()
    for path in sorted((toy_source / "data" / "train").glob("*.png"))[:2]:
        shutil.copy2(path, folder)
    whole = open_cache(folder, cache, 1.0)
    pixels = {name: whole.read(name).copy() for name in whole.facts}
    index = cache / "train.json"
    content = json.loads(index.read_bytes())
    accepted = 0
    for mutant in list(json_mutants(content, 9, values=CACHE_VALUES, flips=CACHE_FLIPS))[::step]:
        if b'"faults": {"' in mutant.data.replace(b"\n", b"") or mutant.name.startswith(
            ("faults", "digests", "byte")
        ):
            continue  # a text for another text: nothing tells it from the right one
        index.write_bytes(mutant.data)
        try:
            opened = open_cache(folder, cache, 1.0)
            assert set(opened.facts) == set(pixels), mutant.name
            assert all((opened.read(name) == pixels[name]).all() for name in pixels), mutant.name
            accepted += 1
        except KitError as error:
            assert str(index) in str(error), mutant.name
            assert f"delete {index}" in error.do
    assert accepted
    index.unlink()  # as advised
    assert all((open_cache(folder, cache, 1.0).read(name) == pixels[name]).all() for name in pixels)
