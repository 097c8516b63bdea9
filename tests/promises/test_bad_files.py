"""Bad files as a user meets them: exit 1, the file named, no traceback, and every file as it was."""

import itertools
import pickle
import re
import shutil

import numpy as np
import pytest
from mutations import snapshot
from test_bad_images import BOMB_PX, png
from toy import copied

PNG_TEXT = b"this is no image"
HEADER = b"image_id,x_min,y_min,x_max,y_max,label\n"


def huge(text):
    return HEADER + b"00000001_000.png,1,1," + text + b",9,Mass\n"


TRAIN_CSV = (
    None, b"", b"\xff\xfei\0m\0", b"a;b;c\n1;2;3\n", HEADER, huge(b"nan"), huge(b"1e400"), huge(b"-5"),
    HEADER.replace(b"y_min", b"x_min"), HEADER + b'"open,1,1,2,2,Mass\n', b"\x89PNG\r\n\x1a\n",
)  # fmt: skip
MAPPING = (
    b"", b"ID,image_id\n", b"ID,image_id\n1,../x.png\n", b"ID,image_id\nx,a.png\n", b"ID;image_id\n1;a.png\n",
)  # fmt: skip
# verb, file below the workspace, what stands in it (None: it is gone), and words that must be said
CASES = [
    *zip(itertools.cycle(("train", "explore", "evaluate")), itertools.repeat("data/train.csv"), TRAIN_CSV,
         itertools.repeat("train.csv")),
    *zip(itertools.cycle(("train", "predict")), itertools.repeat("data/ID_to_Image_Mapping.csv"), MAPPING,
         itertools.repeat("Mapping.csv")),
    *[("predict", f"runs/demo/{name}", content, name) for name in ("config.json", "split.json", "finished.json")
      for content in (b"", b"{", b"[]", b"NaN", b"[" * 100_000, b'{"model": {"detector": 7}}')],
    ("predict", "runs/demo/best.ckpt", b"", "best.ckpt"),
    ("predict", "runs/demo/best.ckpt", pickle.dumps({"state_dict": print}), "best.ckpt"),
    ("predict", "runs/demo/best.ckpt", None, "best.ckpt"),
    ("evaluate", "runs/demo/detections/validation.parquet", b"PAR1PAR1", "validation.parquet"),
    ("evaluate", "runs/demo/detections/validation.parquet", None, "validation.parquet"),
    ("predict", "submissions/index.csv", b"\xff", "index.csv"),
    ("submissions", "submissions/0001-x/manifest.json", b"{}", "manifest.json"),
    ("validate", "submissions/0001-x/manifest.json", b'{"number": []}', "manifest.json"),
]  # fmt: skip
SUBMISSIONS = {
    "nothing": b"",
    "header alone": b"ID,image_id,x_min,y_min,x_max,y_max,confidence,label\n",
    "other names": b"id,image,xmin\n0,a.png,1\n",
    "wide letters": "ID,image_id,x_min,y_min,x_max,y_max,confidence,label\n".encode("utf-16"),
    "a word for a number": b"ID,image_id,x_min,y_min,x_max,y_max,confidence,label\n0,a.png,one,1,9,9,.5,Mass\n",
    "an ID twice": b"ID,image_id,x_min,y_min,x_max,y_max,confidence,label\n" + b"0,a.png,1,1,9,9,.5,Mass\n" * 2,
}
IMAGES = {"text": PNG_TEXT, "nothing": b"", "bomb": png(BOMB_PX, BOMB_PX, 1, 0, [bytes(BOMB_PX // 8)])}


def invoked(warm, verb, workspace):
    """The exit status of a verb on a workspace and what it said."""
    before = len(warm.said())
    status, _ = warm.run((verb, *(("--preset", "demo") if verb == "train" else ()), "--workspace", workspace))
    return status, warm.said()[before:]


def derived(name):
    """What may come and go: caches, locks and what is made anew from data; never a user's own file."""
    return re.match(r"\.cache|.*/\.(lock|work|holder|turn|upload\.lock)$|audit|explore", name) is not None


def assert_refused(status, said, name):
    assert status == 1, said
    assert "Traceback" not in said
    for word in ("expected:", "found:", "do:", name):
        assert word in said


@pytest.mark.slow
def test_dozens_of_bad_files_from_the_command_line(warm, evaluated_source, tmp_path):
    for number, (verb, name, content, word) in enumerate(CASES):
        workspace = copied(evaluated_source, tmp_path / f"case-{number}")
        if verb == "train":
            shutil.rmtree(workspace / "runs")
        path = workspace / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            path.unlink()
        else:
            path.write_bytes(content)
        before = {each: data for each, data in snapshot(workspace).items() if not derived(each)}
        status, said = invoked(warm, verb, workspace)
        try:
            assert_refused(status, said, word)
            after = snapshot(workspace)
            assert {each: after.get(each) for each in before} == before
            assert not [each for each in after if each.endswith(".partial")]
        except AssertionError as problem:
            problem.add_note(f"case: {verb}, {name} = {None if content is None else content[:60]}")
            raise
        shutil.rmtree(workspace)
    assert list(warm.temporary.iterdir()) == []


@pytest.mark.slow
def test_a_bad_submission_is_refused_by_validate(warm, evaluated, tmp_path):
    for name, content in SUBMISSIONS.items():
        path = tmp_path / "mine.csv"
        path.write_bytes(content)
        before = len(warm.said())
        status, _ = warm.run(("validate", "--file", path, "--workspace", evaluated))
        try:
            assert_refused(status, warm.said()[before:], "mine.csv")
        except AssertionError as problem:
            problem.add_note(f"case: {name}")
            raise
        assert path.read_bytes() == content


@pytest.mark.slow
@pytest.mark.parametrize("kind", IMAGES)
def test_a_bad_image_is_named_by_the_verb_that_needs_it(kind, warm, trained):
    for verb, folder in (("predict", "test"), ("explore", "train"), ("train", "train")):
        if verb == "train":
            shutil.rmtree(trained / "runs")
        path = sorted((trained / "data" / folder).iterdir())[0]
        whole = path.read_bytes()
        path.write_bytes(IMAGES[kind])
        assert_refused(*invoked(warm, verb, trained), path.name)
        path.write_bytes(whole)


@pytest.mark.slow
def test_a_million_rows_are_judged_in_seconds(warm, toy):
    names = np.array(sorted(path.name for path in (toy / "data" / "train").iterdir()))
    rows = names[np.arange(1_000_000) % len(names)]
    path = toy / "data" / "train.csv"
    path.write_bytes(
        HEADER + "".join(f"{name},1,1,{2 + i / 1e6:.6f},9,Mass\n" for i, name in enumerate(rows)).encode()
    )
    with path.open("ab") as file:
        file.write(b"nowhere.png,1,1,2,9,Mass\n")
    status, said = invoked(warm, "explore", toy)
    assert_refused(status, said, "train.csv:1000002")
    assert "1 fault" in said
