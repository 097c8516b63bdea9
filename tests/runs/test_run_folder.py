"""The values that a run's folder holds."""

import json

import pytest

from kit.core.errors import KitError
from kit.runs.folder import HISTORY_COLUMNS, Run, Split, read_history, read_split

ABC = ("a.png", "b.png", "c.png", "d.png")


def split_of(*folds):
    return Split(("Mass",), ABC, folds, "f" * 64)


class TestSplit:
    def test_a_single_split_is_fold_0(self):
        split = split_of(("c.png", "b.png"))
        assert split.validation == ("b.png", "c.png")
        assert split.training(0) == ("a.png", "d.png")
        assert split.fold_of == {"b.png": 0, "c.png": 0}

    def test_each_fold_is_trained_on_the_images_of_the_others(self):
        split = split_of(("d.png",), ("a.png", "c.png"))
        assert split.validation == ("a.png", "c.png", "d.png")
        assert [split.training(fold) for fold in (0, 1)] == [("a.png", "b.png", "c.png"), ("b.png", "d.png")]
        assert split.fold_of == {"d.png": 0, "a.png": 1, "c.png": 1}

    @pytest.mark.parametrize(
        "folds",
        [(), ((),), (("a.png",), ()), (("a.png",), ("a.png",)), (("a.png", "a.png"),), (("elsewhere.png",),)],
    )
    def test_an_image_is_held_out_once_and_a_fold_is_never_empty(self, folds):
        with pytest.raises(ValueError, match="fold"):
            split_of(*folds)

    def test_it_is_read_back_as_it_was_written(self, tmp_path):
        run = Run(tmp_path, "one")
        split_of(("d.png",), ("a.png", "c.png")).save(run.split)
        assert read_split(run) == split_of(("d.png",), ("a.png", "c.png"))

    @pytest.mark.parametrize("folds", ["abc", [["a.png"], ["a.png"]], 7, [1]])
    def test_a_broken_file_is_an_error_that_names_it(self, folds, tmp_path):
        run = Run(tmp_path, "one")
        split_of(("d.png",)).save(run.split)
        run.split.write_text(json.dumps(json.loads(run.split.read_text()) | {"folds": folds}))
        with pytest.raises(KitError, match=r"split\.json"):
            read_split(run)


HEADER = ",".join(HISTORY_COLUMNS)


class TestHistory:
    @pytest.mark.parametrize("content", [None, b""])
    def test_a_lost_file_has_no_epochs(self, content, tmp_path):
        run = Run(tmp_path, "one")
        if content is not None:
            run.folder.mkdir(parents=True)
            run.history.write_bytes(content)
        assert list(read_history(run).columns) == list(HISTORY_COLUMNS)
        assert len(read_history(run)) == 0

    @pytest.mark.parametrize(
        "content",
        [
            b"\xff\xfe\x00",
            b"a,b\n1,2\n",
            f"{HEADER}\n1,2,3,4,5,6,7,8\n1,2,3,4,5,6,7,8,9\n".encode(),
            f"{HEADER}\n1,2,3,4,high,6,7,8\n".encode(),
            f'{HEADER}\n1,2,3,4,"5'.encode(),
            f"{HEADER}\n1,2,3,4,5,6,7,8\n1,2,3,4,5,6,7,8\n".encode(),
            f"{HEADER}\n2,2,3,4,5,6,7,8\n".encode(),
            f"{HEADER}\n,2,3,4,5,6,7,8\n".encode(),
            "folder",
        ],
    )
    def test_a_broken_file_is_an_error_that_names_it(self, content, tmp_path):
        run = Run(tmp_path, "one")
        run.folder.mkdir(parents=True)
        run.history.mkdir() if content == "folder" else run.history.write_bytes(content)
        with pytest.raises(KitError, match=r"history\.csv"):
            read_history(run)
        run.history.rename(tmp_path / "away")  # as advised: a training that goes on writes it anew
        assert len(read_history(run)) == 0
