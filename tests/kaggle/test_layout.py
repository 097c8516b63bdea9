"""However an archive is packed, data/ gets the same files; what cannot be placed is named and stays."""

import re
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kaggle_server import zipped

from kit.core.errors import KitError
from kit.data.competition import data_folder
from kit.kaggle.layout import arrange, in_data, unwrapped
from kit.kaggle.zip_archive import unpack
from kit.schemas.csv_text import TableError, read_cells
from kit.schemas.file_names import COMPETITION_FILES, is_companion
from kit.schemas.image_headers import image_names
from kit.schemas.misplaced import misplaced_files
from kit.schemas.places import enclosing_folder

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


IMAGES = {half: {name.split("/")[1]: content for name, content in FILES.items() if name.startswith(f"{half}/")}
          for half in ("train", "test")}  # fmt: skip
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
    "in another case": {
        "Train/a.png": b"a", "Train/b:1.png": b"b", "TEST/c.png": b"c", "TRAIN.CSV": b"t",
        "id_to_image_mapping.csv": b"m",
    },
    "in another case, in a folder more": {
        f"Röntgen Bilder/{name.replace('t', 'T', 1)}": content for name, content in FILES.items()
    },
    "a table among the images": {
        "train/train.csv" if name == "train.csv" else name: content for name, content in FILES.items()
    },
    "a table among the images, in a folder more": {
        f"x/{'train/train.csv' if name == 'train.csv' else name}": content for name, content in FILES.items()
    },
    "tables in a folder": {
        name if "/" in name else f"my tables/{name}": content for name, content in FILES.items()
    },
    "images in a folder more": {
        name.replace("train/", "train/train/").replace("test/", "test/x y/z/"): content
        for name, content in FILES.items()
    },
    "in zips in another case": TABLES | {"Train.zip": part("train"), "TEST.ZIP": part("test")},
    "in zips that hold a folder more": TABLES | {
        name: zipped({f"x/y/{image}": content for image, content in IMAGES[name.removesuffix(".zip")].items()}
                     | {"__MACOSX/._x": b"x"})
        for name in ("train.zip", "test.zip")
    },
    "in a zip of both": TABLES | {"train.zip": zipped(alone(["train", "test"]))},
    "in a zip with its table": alone(["test", "ID_to_Image_Mapping.csv"]) | {
        "train.zip": zipped(alone(["train", "train.csv"])),
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


@pytest.mark.parametrize("layout", ["at its top", "with companions", "in a folder more", "images in a folder more"])
def test_what_is_put_elsewhere_than_the_archive_has_it_is_said(layout, tmp_path, caplog):
    caplog.set_level("INFO", "kit")
    folder, archive = unpacked(tmp_path, LAYOUTS[layout])
    arrange(folder, archive, LARGE)
    said = {"in a folder more": ["a.zip: 5 files are put where data/ has them, such as chest-xray/"],
            "images in a folder more": ["a.zip: 3 files are put where data/ has them, such as test/x y/z/c.png at "
                                        "test/c.png"]}.get(layout, [])  # fmt: skip
    assert [text.partition("ID_to")[0] for text in caplog.messages] == said


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
        (
            TABLES | {"train.zip": b"<!DOCTYPE html><html>Sign in</html>"},
            "train.zip in a.zip to be a whole zip archive",
        ),
        ({"train.csv.zip": zipped({"x/train.csv": b"t", "y/train.csv": b"u"})}, "x/train.csv, y/train.csv"),
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
        assert misplaced_files(data) == f"unpack train.zip into {data / 'train'}"
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


# What people have on disk: each is named with one thing to do, and whoever does it has the competition's files.


def as_zip(files):
    return lambda path: path.write_bytes(zipped(files))


def as_folder(files):
    def write(path):
        for name, content in files.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(content)

    return write


def as_file(content):
    return lambda path: path.write_bytes(content)


def below(folder, files):
    return {f"{folder}/{name}": content for name, content in files.items()}


REST = FILES.keys() - below("train", IMAGES["train"]).keys()
WITHOUT_TRAIN = {name: FILES[name] for name in REST}
WITHOUT_TABLE = {name: content for name, content in FILES.items() if name != "train.csv"}
ON_DISK = {  # what is there as it should be; and what else is there, by name
    "a zip in another case": (WITHOUT_TRAIN, {"Train.zip": as_zip(IMAGES["train"])}),
    "a flat zip": (WITHOUT_TRAIN, {"train.zip": as_zip(IMAGES["train"])}),
    "a zip that holds its folder": (WITHOUT_TRAIN, {"train.zip": as_zip(below("train", IMAGES["train"]))}),
    "a zip that holds its folder in another case": (
        WITHOUT_TRAIN, {"TRAIN.ZIP": as_zip(below("Train", IMAGES["train"]))},
    ),
    "a zip with another folder": (WITHOUT_TRAIN, {"train (1).zip": as_zip(below("my images", IMAGES["train"]))}),
    "a zip with a folder more": (WITHOUT_TRAIN, {"train.zip": as_zip(below("x/y/train", IMAGES["train"]))}),
    "a zip with companions": (
        WITHOUT_TRAIN,
        {"train.zip": as_zip(below("train", IMAGES["train"]) | {"__MACOSX/._a.png": b"", ".DS_Store": b""})},
    ),
    "a zip of images without a name": (WITHOUT_TRAIN, {"images.zip": as_zip(IMAGES["train"])}),
    "an empty folder and a zip": (
        WITHOUT_TRAIN,
        {"train": Path.mkdir, "Train.zip": as_zip(IMAGES["train"])},
    ),
    "an empty folder and one with a near name": (
        WITHOUT_TRAIN,
        {"train": Path.mkdir, "train images": as_folder(IMAGES["train"])},
    ),
    "a folder in another case": (WITHOUT_TRAIN, {"Train": as_folder(IMAGES["train"])}),
    "a near name": (WITHOUT_TRAIN, {"train_images": as_folder(IMAGES["train"] | {"Thumbs.db": b""})}),
    "a folder without a name": (WITHOUT_TRAIN, {"übungs bilder": as_folder(IMAGES["train"])}),
    "a folder more": (WITHOUT_TRAIN, {"train": as_folder(below("train", IMAGES["train"]))}),
    "two folders more": (WITHOUT_TRAIN, {"train": as_folder(below("a/b c", IMAGES["train"]))}),
    "the archive": ({}, {"toy.zip": as_zip(FILES)}),
    "the archive with a folder more": ({}, {"toy.zip": as_zip(below("toy v2", FILES))}),
    "the archive in another case": (
        {}, {"Toy.ZIP": as_zip(below("Train", IMAGES["train"]) | {
            "TEST/c.png": b"c", "Train.csv": b"t", "ID to Image Mapping.csv": b"m"})},
    ),
    "the archive's folder": ({}, {"toy": as_folder(FILES)}),
    "the archive's folder in a folder": ({}, {"Desktop": as_folder(below("toy", FILES))}),
    "a table in another case": (WITHOUT_TABLE, {"Train.CSV": as_file(b"t")}),
    "a table that was fetched twice": (WITHOUT_TABLE, {"train (1).csv": as_file(b"t")}),
    "a table with two endings": (WITHOUT_TABLE, {"train.csv.csv": as_file(b"t")}),
    "a table in a zip": (WITHOUT_TABLE, {"train.csv.zip": as_zip({"train.csv": b"t"})}),
    "a table among the images": (WITHOUT_TABLE, {"train": as_folder({"train.csv": b"t"})}),
    "a table in a folder": (WITHOUT_TABLE, {"labels": as_folder({"train.csv": b"t", "readme.txt": b"r"})}),
}  # fmt: skip


def follow(do, data):
    """Do one step as it is written; the rest of the advice."""
    step, _, rest = re.sub(r" \(\d+\)", lambda copy: copy[0].replace(" ", "\0"), do).partition("; ")
    for part in step.replace("\0", " ").split(", and "):
        if found := re.fullmatch(r"unpack (.+) in(to)? (\S+)", part):
            with zipfile.ZipFile(data / found[1]) as archive:
                archive.extractall(found[3])
        elif found := re.fullmatch(r"unpack (.+\.(?:zip|ZIP))", part):
            with zipfile.ZipFile(data / found[1]) as archive:
                archive.extractall(data / "unpacked here")
        elif found := re.fullmatch(r"move (?:the images in )?its (?:folder (.+)|images) into (\S+)", part):
            (data / "unpacked here" / (found[1] or "")).rename(found[2])
        elif found := re.fullmatch(
            r"move the images in its folder (.+?)(?: into|: those that train.csv names into) (\S+)", part
        ):
            (data / "unpacked here" / found[1]).rename(found[2])
        elif found := re.fullmatch(r"move its images: those that train.csv names into (\S+)", part):
            (data / "unpacked here").rename(found[1])
        elif found := re.fullmatch(r"move what is in (?:its folder )?(.+?)(?: up)? into (\S+)", part):
            moved_up(data / found[1], Path(found[2]))
        elif found := re.fullmatch(r"move the images in (.+) up into (\S+)", part):
            moved_up(Path(found[1]), Path(found[2]))
        elif found := re.fullmatch(
            r"(?:move|rename) (?:the images in )?(.+?)(?: to|: those that train.csv names into) (\S+)", part
        ):
            Path(found[1]).rename(found[2])
        else:
            raise AssertionError(part)
    return rest


def moved_up(folder, goal):
    for path in folder.iterdir():
        path.rename(goal / path.name)


@pytest.mark.parametrize("case", ON_DISK)
def test_who_follows_the_advice_has_the_competitions_files(case, tmp_path):
    right, others = ON_DISK[case]
    data = tmp_path / "data"
    data.mkdir()
    as_folder(right)(data)
    for name, write in others.items():
        write(data / name)
    said = []
    while do := misplaced_files(data):
        assert "\n" not in do
        assert do not in said
        said.append(do)
        follow(do, data)
    assert 1 <= len(said) <= 2
    places = found(data)
    assert {name: places.get(name) for name in FILES} == FILES
    assert not misplaced_files(data)


def encrypted(files):
    """A zip whose entries say that they need a password."""
    content = bytearray(zipped(files))
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = content.find(mark)
        while place >= 0:
            content[place + offset] |= 1
            place = content.find(mark, place + 4)
    return bytes(content)


UNUSABLE = {  # a file of data/ that no command of kit opens, and the one line about it
    "train.zip": (
        b"<!DOCTYPE html>\n<html>Sign in</html>",
        "train.zip is an HTML page, .*: delete it and fetch it anew",
    ),
    "Train.zip": (part("train")[:-9], "Train.zip is no whole zip archive: delete it and fetch it anew"),
    "toy.zip": (b"", "toy.zip is no whole zip archive: delete it and fetch it anew"),
    "train_images.zip": (
        encrypted(IMAGES["train"]),
        "unpack train_images.zip, which needs its password, into .*train",
    ),
    "a.zip": (encrypted(FILES), "unpack a.zip, which needs its password, in .*data"),
    "trAIN.zip": (zipped({"../a.png": b"a"}), "paths that leave its folder, such as ../a.png: delete it"),
    "test.zip": (zipped({"/tmp/a.png": b"a"}), "paths that leave its folder, such as /tmp/a.png: delete it"),
    "train.tar.gz": (b"x", "unpack train.tar.gz so that its images lie in .*train"),
    "train.csv.gz": (b"x", "unpack train.csv.gz so that .*train.csv is there"),
    "train.csv": (b"\n <HTML>Sign in</HTML>", "train.csv is an HTML page, .*: delete it and fetch it anew"),
    "chest.7z": (b"x", "unpack chest.7z so that .* holds train, test, ID_to_Image_Mapping.csv, train.csv"),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_an_archive_that_must_be_opened_or_fetched_by_hand_is_one_line(name, tmp_path):
    content, says = UNUSABLE[name]
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / name).write_bytes(content)
    (tmp_path / "data" / "models.zip").write_bytes(zipped({"a.pt": b"x"}))
    do = misplaced_files(tmp_path / "data")
    assert re.fullmatch(f".*{says}.*", do)  # no line end
    assert "models.zip" not in do
    as_folder(FILES)(tmp_path / "data")  # done by hand as it says
    assert misplaced_files(tmp_path / "data") == ""


def test_folders_of_images_without_a_name_are_one_line(tmp_path):
    for number in range(12):
        as_folder({"images/x.png": b"x"})(tmp_path / "data" / f"images_{number:03d}")
    do = misplaced_files(tmp_path / "data")
    assert do.count("data/images_") == 3
    assert "and 9 more: those that train.csv names into" in do


def test_images_that_are_not_there_are_looked_for_and_the_advice_is_no_command_that_fails(tmp_path):
    as_folder(WITHOUT_TRAIN)(tmp_path / "data")
    with pytest.raises(KitError, match="put the images there; or move what") as refused:
        image_names(tmp_path / "data" / "train")
    assert "--force" not in refused.value.do
    as_zip(IMAGES["train"])(tmp_path / "data" / "Train.zip")
    with pytest.raises(KitError) as refused:
        image_names(tmp_path / "data" / "train")
    assert refused.value.do == f"unpack Train.zip into {tmp_path / 'data' / 'train'}"
    follow(refused.value.do, tmp_path / "data")
    assert image_names(tmp_path / "data" / "train") == ["a.png", "b:1.png"]


def test_a_page_saved_as_a_table_is_one_line_and_the_table_is_read(tmp_path):
    path = tmp_path / "train.csv"
    path.write_text('<!DOCTYPE html>\n<html lang="en">\n<body>\n<p>Sign in, please</p>\n</body></html>\n')
    with pytest.raises(TableError, match="found 'an HTML page', expected a CSV file") as refused:
        read_cells(path, "fetch it anew")
    assert len(refused.value.faults) == 1
    path.write_text("a,b\n1,2\n")
    assert len(read_cells(path, "").table) == 1
