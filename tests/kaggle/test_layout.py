"""However an archive is packed, data/ gets the same files; what cannot be placed is named and stays."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kaggle_server import zipped

from kit.core.errors import KitError
from kit.data.competition import data_folder
from kit.kaggle.layout import arrange, enclosing_folder, in_data, unwrapped
from kit.kaggle.zip_archive import unpack
from kit.schemas.file_names import COMPETITION_FILES, is_companion, misplaced_files
from kit.schemas.image_headers import image_names

FILES = {
    "train/a.png": b"a", "train/b:1.png": b"b", "test/c.png": b"c", "train.csv": b"t",
    "ID_to_Image_Mapping.csv": b"m",
}  # fmt: skip
LEFT_BY_DESKTOPS = (
    "__MACOSX/train/._a.png", "train/._a.png", "._train.csv", ".DS_Store", "test/Thumbs.db", "desktop.ini",
)  # fmt: skip
COMPANIONS = dict.fromkeys(LEFT_BY_DESKTOPS, b"x")
LARGE = 1 << 30


def part(name):
    return zipped(
        {path.split("/", 1)[1]: content for path, content in FILES.items() if path.startswith(f"{name}/")}
    )


def alone(names):
    return {name: content for name, content in FILES.items() if name.split("/")[0] in names}


TABLES = alone(("train.csv", "ID_to_Image_Mapping.csv"))
LAYOUTS = {
    "at its top": FILES,
    "in a folder more": {f"chest-xray/{name}": content for name, content in FILES.items()},
    "in two folders more": {f"a/b c/{name}": content for name, content in FILES.items()},
    "with companions": FILES | COMPANIONS,
    "in a folder more, with companions": {
        f"x/{name}": content for name, content in (FILES | COMPANIONS).items()
    } | {"__MACOSX/x/._train.csv": b"x"},
    "with backslashes": {name.replace("/", "\\"): content for name, content in FILES.items()},
    "in zips": TABLES | {"train.zip": part("train"), "test.zip": part("test")},
    "in zips that hold their folder": TABLES | {
        "train.zip": zipped(alone(["train"])), "test.zip": zipped(alone(["test"]) | {"__MACOSX/._test": b"x"}),
    },
    "tables in zips": alone(["train", "test"]) | {
        "train.csv.zip": zipped({"train.csv": b"t"}),
        "ID_to_Image_Mapping.zip": zipped({"ID_to_Image_Mapping.csv": b"m"}),
    },
    "in zips in a folder more": {f"deep/{name}": content for name, content in TABLES.items()} | {
        "deep/train.zip": part("train"), "deep/test.zip": part("test"),
    },
}  # fmt: skip


def unpacked(tmp_path, files):
    archive = tmp_path / "a.zip"
    archive.write_bytes(zipped(files))
    unpack(archive, tmp_path / "out", LARGE)
    return tmp_path / "out", archive


def found(folder):
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    return {name: (folder / name).read_bytes() for name in names if not is_companion(name)}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_ends_as_the_same_files(layout, tmp_path):
    folder, archive = unpacked(tmp_path, LAYOUTS[layout])
    arrange(folder, archive, LARGE)
    assert found(folder) == FILES
    assert {path.name for path in tmp_path.iterdir()} == {"a.zip", "out"}
    for name in ("train", "test"):
        assert not [image for image in image_names(folder / name) if is_companion(image)]
    arrange(folder, archive, LARGE)
    assert found(folder) == FILES


def test_an_empty_archive_stays_empty(tmp_path):
    folder, archive = unpacked(tmp_path, {})
    arrange(folder, archive, LARGE)
    assert found(folder) == {}


def test_other_files_and_zips_keep_their_places(tmp_path):
    files = FILES | {"notes/train.csv.txt": b"n", "models.zip": zipped({"x": b"x"}), "old/train.csv": b"o"}
    folder, archive = unpacked(tmp_path, files)
    arrange(folder, archive, LARGE)
    assert found(folder) == files


@pytest.mark.parametrize(
    ("files", "says"),
    [
        (TABLES | {"train.zip": part("train")[:-9]}, "train.zip"),
        ({"train.csv.zip": zipped({"labels.csv": b"t"})}, "train.csv in train.csv.zip"),
        ({"x/train.csv": b"t", "x/train/a.png": b"a", "train/b.png": b"b"}, "one train in a.zip"),
    ],
)
def test_what_cannot_be_placed_is_named_and_the_archive_stays(files, says, tmp_path):
    folder, archive = unpacked(tmp_path, files)
    with pytest.raises(KitError, match=says) as refused:
        arrange(folder, archive, LARGE)
    assert f"unpack {archive} by hand" in refused.value.do
    assert archive.read_bytes() == zipped(files)


def test_zips_in_the_archive_count_for_its_largest_size_and_are_checked(tmp_path):
    folder, archive = unpacked(tmp_path, TABLES | {"train.zip": zipped({"a.png": b"0" * 5000})})
    with pytest.raises(KitError, match="unpacked_max_gib"):
        arrange(folder, archive, 4999)
    arrange(folder, archive, 5000)
    assert (folder / "train" / "a.png").read_bytes() == b"0" * 5000
    (tmp_path / "2").mkdir()
    folder, archive = unpacked(tmp_path / "2", TABLES | {"train.zip": zipped({"../a.png": b"x"})})
    with pytest.raises(KitError, match="would leave"):
        arrange(folder, archive, LARGE)


NAMES = st.lists(st.sampled_from("abc"), max_size=3).map("/".join)


@given(NAMES)
def test_the_folder_around_is_found_and_taken_off(folder):
    inside = f"{folder}/" if folder else ""
    sizes = {inside + name: len(content) for name, content in FILES.items()}
    assert enclosing_folder(sizes) == folder
    assert in_data(sizes) == unwrapped(sizes) == {name: len(content) for name, content in FILES.items()}
    zipped_too = {f"{inside}train.csv": 1, f"{inside}train.zip": 2}
    assert unwrapped(zipped_too) == {"train.csv": 1, "train.zip": 2}
    assert in_data(zipped_too) == {"train.csv": 1}


def test_two_folders_of_one_kind_are_left_where_they_are():
    assert enclosing_folder(["a/train.csv", "b/train.csv"]) == ""


@pytest.mark.parametrize("how", ["zips", "folder"])
def test_files_that_a_user_put_in_the_wrong_place_are_named_and_right_once_moved(how, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    assert misplaced_files(data) == ""
    if how == "zips":
        (data / "train.zip").write_bytes(part("train"))
        assert misplaced_files(data) == f"unpack train.zip in {data}"
        unpack(data / "train.zip", data / "train", LARGE)
    else:
        (data / "chest").mkdir()
        for name in TABLES:
            (data / "chest" / name).write_bytes(TABLES[name])
        with pytest.raises(KitError, match=r"move what is in .*chest up"):
            data_folder(tmp_path)
        for name in TABLES:
            (data / "chest" / name).rename(data / name)
        assert data_folder(tmp_path) == data
    assert misplaced_files(data) == ""
    assert set(COMPETITION_FILES) >= {path.name for path in data.iterdir()} - {"train.zip", "chest"}
