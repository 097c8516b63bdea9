"""A run keeps which images its weights saw, and a later stage that saw test or held-out images is refused."""

import json

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from toy import TOY, second_run, toy_config

from kit.core.errors import KitError
from kit.core.files import sha256
from kit.data.competition import load_training, open_files
from kit.data.duplicates import Prints, take_prints
from kit.evaluation.combine import combine
from kit.evaluation.predict import predict
from kit.evaluation.report import evaluate
from kit.reports.against import compare_sets
from kit.reports.seen_images import PAGE, refuse, require_unseen, sightings, stages_before
from kit.reports.seen_page import original, workspaces_at_hand
from kit.runs.folder import Run, read_finished, read_split
from kit.runs.seen import (
    SEEN_FILE,
    Seen,
    allowed_path,
    prints_of,
    read_allowed,
    read_seen,
    record_allowed,
    recorded_sha256,
    seen_path,
    with_stage,
    write_seen,
)
from kit.training.seen import keep_seen, seen_before, seen_sha256

CHANGED = {
    "as it is": lambda image: image,
    "recompressed": lambda image: cv2.imdecode(
        cv2.imencode(".jpg", image, (cv2.IMWRITE_JPEG_QUALITY, 60))[1], cv2.IMREAD_GRAYSCALE
    ),
    "resized": lambda image: cv2.resize(image, (150, 150)),
    "mirrored": lambda image: np.ascontiguousarray(image[:, ::-1]),
    "cropped by 2%": lambda image: np.ascontiguousarray(image[2:-2, 2:-2]),
    "brightened": lambda image: np.clip(image * 1.5, 0, 255).astype(np.uint8),
}


def prints(**images):
    return take_prints({name: f"digest of {name}" for name in images}, lambda name: images[name])


def parts(workspace):
    return (open_files(workspace, part, toy_config()) for part in ("train", "test"))


def an_earlier_stage(workspace, tmp_path):
    """What a first stage saw: a test image and a held-out one of the workspace, changed, under other names."""
    train, test = parts(workspace)
    run = Run(workspace, "demo")
    held_out, tested = read_split(run).validation[0], next(iter(test.digests))
    changed = prints(a=CHANGED["mirrored"](train.read(held_out)), b=CHANGED["cropped by 2%"](test.read(tested)))
    return with_stage(Seen.nothing(), Run(tmp_path / "vindr", "first"), changed), held_out, tested


def as_second_stage(run, before):
    """Make a trained run one whose weights started from another stage's."""
    own = read_seen(seen_path(run), read_finished(run).seen[run.title], "")
    write_seen(seen_path(run), with_stage(before, run, own.prints))
    end = json.loads(run.finished.read_text())
    run.finished.write_text(json.dumps(end | {"seen": {run.title: sha256(seen_path(run))}}))


class TestTheFile:
    def test_no_images_are_written_and_read_back(self, tmp_path):
        write_seen(tmp_path / SEEN_FILE, Seen.nothing())
        assert read_seen(tmp_path / SEEN_FILE, sha256(tmp_path / SEEN_FILE), "").stages == ()

    def test_a_later_stage_keeps_the_rows_of_the_one_before(self, tmp_path):
        rng = np.random.default_rng(0)
        first, second = (rng.integers(0, 256, (3, 64, 64), dtype=np.uint8) for _ in range(2))
        names = ("a.png", "b.png", "c.png")
        before = with_stage(Seen.nothing(), Run(tmp_path / "vindr", "one"), Prints(names, names, first))
        seen = with_stage(before, Run(tmp_path / "target", "two", fold=1), Prints(names, names, second))
        write_seen(tmp_path / SEEN_FILE, seen)
        again = read_seen(tmp_path / SEEN_FILE, sha256(tmp_path / SEEN_FILE), "")
        assert again.by_stage == {"1 vindr/one": 3, "2 target/two/fold-1": 3}
        assert again.prints.names == names * 2
        assert np.array_equal(again.prints.copies, np.concatenate([first, second]))
        assert np.array_equal(again.hashes, seen.hashes)
        assert again.before().by_stage == {"1 vindr/one": 3}

    def test_a_lost_or_changed_one_is_refused_and_restoring_it_works(self, tmp_path):
        path = tmp_path / SEEN_FILE
        write_seen(path, Seen.nothing())
        content, digest = path.read_bytes(), sha256(path)
        for spoil in (path.unlink, lambda: path.write_bytes(content + b"x")):
            spoil()
            with pytest.raises(KitError, match=SEEN_FILE) as caught:
                read_seen(path, digest, "restore it")
            assert caught.value.do == "restore it"
            path.write_bytes(content)
            assert read_seen(path, digest, "").stages == ()

    def test_bytes_that_are_no_table_are_refused_in_words(self, tmp_path):
        (tmp_path / SEEN_FILE).write_bytes(b"no table")
        with pytest.raises(KitError, match="a table of name, stage"):
            read_seen(tmp_path / SEEN_FILE, sha256(tmp_path / SEEN_FILE), "")

    def test_a_run_has_one_of_its_training_images_whose_hash_its_checkpoints_keep(self, trained):
        run = Run(trained, "demo")
        digest = read_finished(run).seen["demo"]
        seen = read_seen(seen_path(run), digest, "")
        assert seen.prints.names == read_split(run).training(0)
        assert seen.by_stage == {"1 trained/demo": len(seen.stages)}
        for path in (run.best, run.last):
            assert recorded_sha256(torch.load(path, weights_only=True)) == digest
        assert seen_path(run).stat().st_size < 5000 * len(seen.stages)

    def test_made_again_it_has_the_same_bytes(self, trained):
        run = Run(trained, "demo")
        before = seen_path(run).read_bytes()
        keep_seen(run, load_training(trained, toy_config()), read_split(run), Seen.nothing())
        assert seen_path(run).read_bytes() == before


class TestGoingOn:
    def test_with_another_file_than_the_checkpoint_was_saved_with_is_refused(self, trained):
        run = Run(trained, "demo")
        state, content = torch.load(run.last, weights_only=True), seen_path(run).read_bytes()
        assert seen_sha256(run, state) == sha256(seen_path(run))
        seen_path(run).unlink()
        with pytest.raises(KitError, match="no such file"):
            seen_sha256(run, state)
        seen_path(run).write_bytes(content)
        assert seen_sha256(run, state)

    def test_a_run_of_an_earlier_version_stays_without(self, trained, caplog):
        caplog.set_level("INFO", "kit")
        assert seen_sha256(Run(trained, "demo"), {"kit": {"epoch": 1}}) == ""
        assert "an earlier version" in caplog.text


class TestFirstStages:
    def model(self, workspace):
        return toy_config().replace({"model.weights": str(Run(workspace, "demo").best)}).model

    def test_what_a_checkpoint_saw_is_read_beside_it_and_a_copy_without_is_refused(self, trained, tmp_path):
        run = Run(trained, "demo")
        assert seen_before(self.model(trained)).by_stage == {"1 trained/demo": len(read_split(run).training(0))}
        content = seen_path(run).read_bytes()
        seen_path(run).unlink()
        with pytest.raises(KitError, match="no such file") as caught:
            seen_before(self.model(trained))
        assert "copy seen.parquet of the run that made best.ckpt beside it" in caught.value.do
        seen_path(run).write_bytes(content)
        assert seen_before(self.model(trained)).stages

    def test_other_starts_have_seen_nothing_and_one_of_an_earlier_version_is_said(self, trained, caplog):
        assert seen_before(toy_config().model).stages == ()
        run = Run(trained, "demo")
        state = torch.load(run.best, weights_only=True)
        del state["kit"]["seen_sha256"]
        torch.save(state, run.best)
        assert seen_before(self.model(trained)).stages == ()
        assert "an earlier version" in caplog.text


class TestRefusal:
    @pytest.mark.parametrize("change", CHANGED)
    def test_a_changed_copy_of_a_test_image_is_found_among_what_was_seen(self, change, trained, tmp_path):
        _, test = parts(trained)
        name = list(test.digests)[3]
        changed = prints(**{"7.jpg": CHANGED[change](test.read(name))})
        before = with_stage(Seen.nothing(), Run(tmp_path / "vindr", "first"), changed)
        (found,) = sightings(trained, toy_config(), before, read_split(Run(trained, "demo")).validation)
        assert (found.check, found.text()) == ("seen-test-images", f"{name} as 7.jpg of vindr/first")

    def test_the_runs_own_training_images_and_those_of_others_are_no_fault(self, trained):
        train, _ = parts(trained)
        split = read_split(Run(trained, "demo"))
        before = with_stage(Seen.nothing(), Run(trained, "first"), prints_of(train, split.training(0)))
        assert sightings(trained, toy_config(), before, split.validation) == []
        require_unseen(Run(trained, "demo"))

    def test_evaluate_predict_and_ensemble_refuse_by_name_until_it_is_allowed(self, trained, tmp_path):
        run, both = Run(trained, "demo"), Run(trained, "both")
        before, held_out, tested = an_earlier_stage(trained, tmp_path)
        other = second_run(run, "other")
        as_second_stage(run, before)

        def ensemble(run, allow=()):
            return combine(both, ("demo", "other"), allow=allow)

        for step, page in ((evaluate, run), (predict, run), (ensemble, both)):
            with pytest.raises(KitError) as caught:
                step(run)
            for text in (
                f"1 test image was trained on by an earlier stage ({tested} as b of vindr/first)",
                f"1 held-out image was trained on by an earlier stage ({held_out} as a of vindr/first)",
            ):
                assert text in caught.value.found
            assert "--allow seen-test-images --allow seen-held-out-images" in caught.value.do
            shown = (page.folder / PAGE).read_text()
            assert tested in shown and held_out in shown and shown.count("data:image/jpeg") == 4
        allow = ("seen-test-images", "seen-held-out-images")
        assert not both.config.exists()
        ensemble(run, allow)
        require_unseen(run, allow)
        for made in (run, both):
            assert dict(read_allowed(made).images) == {allow[0]: (tested,), allow[1]: (held_out,)}
        require_unseen(both)
        require_unseen(other)

    @pytest.mark.parametrize(
        "name, of, weights, why",
        [
            ("clean", ("demo", "third"), (), "a new name for the ensemble"),  # another run's
            ("both", ("demo",), (), "two runs or more"),
            ("both", ("demo", "clean"), (0, 1), "--weight above 0"),
        ],
    )
    def test_an_ensemble_that_cannot_be_made_leaves_no_permission_behind(
        self, name, of, weights, why, trained, tmp_path
    ):
        run, goal = Run(trained, "demo"), Run(trained, name)
        before, *_ = an_earlier_stage(trained, tmp_path)
        second_run(run, "clean"), second_run(run, "third")
        as_second_stage(run, before)
        allow = ("seen-test-images", "seen-held-out-images")
        with pytest.raises(KitError, match=why):
            combine(goal, of, weights, allow=allow)
        assert not allowed_path(goal).exists() and not (goal.folder / PAGE).exists()
        combine(Run(trained, "new"), ("demo", "clean"), (2, 1), allow=allow)
        assert read_allowed(Run(trained, "new")).images

    def test_what_was_allowed_once_holds_for_the_run(self, trained, tmp_path, caplog):
        run = Run(trained, "demo")
        before, held_out, _ = an_earlier_stage(trained, tmp_path)
        as_second_stage(run, before)
        require_unseen(run, ("seen-test-images", "seen-held-out-images"))
        require_unseen(run)
        assert (
            f"seen-held-out-images, allowed: 1 held-out image was trained on by an earlier stage ({held_out}"
            in (caplog.text)
        )

    def test_one_permission_is_none_for_the_other(self, trained, tmp_path):
        found = sightings(trained, toy_config(), *self.seen(trained, tmp_path))
        with pytest.raises(KitError) as caught:
            refuse(Run(trained, "demo"), found, ("seen-test-images",), "none")
        assert "test image " not in caught.value.found
        assert "--allow seen-held-out-images" in caught.value.do and "--allow seen-test" not in caught.value.do

    def seen(self, workspace, tmp_path):
        return an_earlier_stage(workspace, tmp_path)[0], read_split(Run(workspace, "demo")).validation

    def test_a_mistyped_permission_is_refused_with_the_nearest(self, trained):
        with pytest.raises(KitError, match="seen-test-image'") as caught:
            require_unseen(Run(trained, "demo"), ("seen-test-image",))
        assert "seen-test-images" in caught.value.do

    def test_a_lost_file_of_a_finished_run_is_refused_and_restoring_it_works(self, trained):
        run = Run(trained, "demo")
        content = seen_path(run).read_bytes()
        seen_path(run).write_bytes(content[:-1])
        with pytest.raises(KitError, match=SEEN_FILE) as caught:
            require_unseen(run)
        assert "restore it from a copy" in caught.value.do
        seen_path(run).write_bytes(content)
        require_unseen(run)

    def test_runs_of_earlier_versions_and_adopted_ones_are_said_not_to_be_known(self, trained, caplog):
        caplog.set_level("INFO", "kit")
        run = Run(trained, "demo")
        end = json.loads(run.finished.read_text())
        del end["seen"]
        run.finished.write_text(json.dumps(end))
        assert stages_before(run).stages == ()
        run.adopted.write_text("{}")
        assert stages_before(run).stages == ()
        assert "is of an earlier version" in caplog.text and "is adopted" in caplog.text

    def test_what_is_allowed_is_added_to_what_was(self, trained):
        run = Run(trained, "demo")
        assert dict(read_allowed(run).images) == {}
        record_allowed(run, {"seen-test-images": ["b.png"]})
        record_allowed(run, {"seen-test-images": ["a.png"], "seen-held-out-images": []})
        assert read_allowed(run).images == {"seen-test-images": ("a.png", "b.png"), "seen-held-out-images": ()}


class TestThePage:
    def test_the_original_is_shown_if_its_workspace_is_around_the_weights_or_beside_this_one(self, toy):
        train, _ = parts(toy)
        name = next(iter(train.digests))
        copy = prints_of(train, [name]).copies[0]
        beside = workspaces_at_hand(toy.parent / "target", "toy", "none")
        around = workspaces_at_hand(toy.parent / "a" / "target", "toy", str(toy / "runs" / "demo" / "best.ckpt"))
        assert beside == around == [toy.resolve()]
        assert np.array_equal(original(name, copy, beside), train.read(name))
        assert workspaces_at_hand(toy, "elsewhere", "none") == []

    def test_another_picture_of_that_name_is_not_taken_for_it(self, toy):
        train, _ = parts(toy)
        first, second, *_ = train.digests
        assert original(first, prints_of(train, [second]).copies[0], [toy]) is None
        assert original("lost.png", prints_of(train, [second]).copies[0], [toy]) is None


class TestAgainst:
    def test_images_of_the_test_are_a_fault_others_a_warning_and_without_any_there_is_no_page(self, toy, tmp_path):
        other = tmp_path / "vindr"
        (other / "data" / "train").mkdir(parents=True)
        (other / "data" / "train.csv").write_text("image_id,x_min,y_min,x_max,y_max,label\n")
        for number, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (2, 50, 50), dtype=np.uint8)):
            Image.fromarray(pixels).save(other / "data" / "train" / f"noise{number}.png")
        assert compare_sets(toy, other, toy_config()).page is None
        train, test = parts(toy)
        for pixels, name in ((train, "mirrored"), (test, "brightened")):
            image = CHANGED[name](pixels.read(next(iter(pixels.digests))))
            Image.fromarray(image).save(other / "data" / "train" / f"{name}.png")
        found = compare_sets(toy, other, toy_config())
        assert [(one.level, one.check) for one in found.findings] == [
            ("fault", "seen-test-images"), ("warning", "seen-held-out-images"),
        ]  # fmt: skip
        assert found.findings[0].rows["other_image"].tolist() == ["brightened.png"]
        assert found.page == toy / "audit" / "against-vindr.html"
        assert found.page.read_text().count("data:image/jpeg") == 4
        for name in ("mirrored", "brightened"):
            (other / "data" / "train" / f"{name}.png").unlink()
        assert compare_sets(toy, other, toy_config()).findings == ()
        assert not found.page.exists()

    def test_a_set_against_itself_or_against_no_set_is_refused(self, toy, tmp_path):
        with pytest.raises(KitError, match="another workspace"):
            compare_sets(toy, toy, toy_config())
        with pytest.raises(KitError, match="--against a workspace with a set") as caught:
            compare_sets(toy, toy / "data", toy_config())
        assert "a folder that `invoke import --into` or" in caught.value.do
        other = tmp_path / "other"
        (other / "data" / "train").mkdir(parents=True)
        with pytest.raises(KitError, match=r"no .*train\.csv"):
            compare_sets(toy, other, toy_config())
        (other / "data" / "train.csv").write_text("image_id,x_min,y_min,x_max,y_max,label\n")
        assert compare_sets(toy, other, toy_config()).findings == ()

    def test_pairs_beyond_those_pictured_are_named_so_that_all_can_be_left_out(
        self, toy, trained, tmp_path, monkeypatch
    ):
        monkeypatch.setattr("kit.reports.seen_page.PICTURED", 2)
        monkeypatch.setattr("kit.reports.against.PICTURED", 2)
        found = compare_sets(toy, trained, toy_config())
        page = found.page.read_text()
        assert page.count("data:image/jpeg") == 4 and "30 more without pictures" in page
        for name in open_files(toy, "train", toy_config()).digests:
            assert f"training image {name}" in page and f"{name} of trained" in page

    def test_so_are_those_of_a_run(self, trained, tmp_path, monkeypatch):
        monkeypatch.setattr("kit.reports.seen_page.PICTURED", 1)
        before, held_out, tested = an_earlier_stage(trained, tmp_path)
        found = sightings(trained, toy_config(), before, [held_out])
        run = Run(trained, "demo")
        refuse(run, found, ("seen-test-images", "seen-held-out-images"), "none")
        page = (run.folder / PAGE).read_text()
        assert page.count("data:image/jpeg") == 2
        assert f"test image {tested}" in page and f"<td>held-out image {held_out}</td><td>a, trained" in page


@pytest.mark.slow
def test_a_planted_test_image_in_the_first_stages_set_is_found_on_the_whole_road(toy, tmp_path):
    """A test image under six changes, and a held-out one, are in the set of the first stage."""
    import shutil

    from command_line import invoke

    first, target = tmp_path / "first", toy
    shutil.copytree(toy, first)
    shutil.rmtree(first / "data" / "test")
    (first / "data" / "ID_to_Image_Mapping.csv").unlink()
    for path in (first / "data" / "train").iterdir():  # its images are its own: upside down
        Image.fromarray(np.asarray(Image.open(path))[::-1]).save(path)
    test_names = sorted(path.name for path in (target / "data" / "test").iterdir())
    for (name, change), source in zip(CHANGED.items(), test_names, strict=False):
        image = np.asarray(Image.open(target / "data" / "test" / source))
        Image.fromarray(change(image)).save(first / "data" / "train" / f"planted {name}.png")
    sets = [word for assignment in TOY for word in ("--set", assignment)]
    one = ("--run", "one", "--workspace", str(first), "--preset", "demo", *sets)
    assert invoke("train", *one).returncode == 0
    held = set(read_split(Run(first, "one")).validation)
    planted = {f"planted {name}.png" for name in CHANGED} - held
    assert planted
    audited = invoke("audit", "--against", str(first), "--workspace", str(target))
    assert audited.returncode == 1 and f"{len(CHANGED)} images of test/ are in" in audited.stdout
    two = ("--run", "two", "--workspace", str(target), "--preset", "demo", *sets,
           "--set", f"model.weights={first / 'runs' / 'one' / 'best.ckpt'}")  # fmt: skip
    words = f"{len(planted)} test image{'s were' if len(planted) > 1 else ' was'} trained on by an earlier stage"
    refused = invoke("train", *two)
    assert refused.returncode == 1 and words in refused.stderr
    assert not Run(target, "two").config.exists()
    assert (Run(target, "two").folder / PAGE).exists()
    allowed = ("--allow", "seen-test-images")
    assert invoke("train", *two, *allowed).returncode == 0
    second_run(Run(target, "two"), "three")
    for name in ("two", "three"):
        (Run(target, name).folder / "allowed.json").unlink()
    runs = ("--run", "two", "--workspace", str(target))
    both = ("ensemble", "--run", "both", "--of", "two", "--of", "three", "--workspace", str(target))
    for verb in (("evaluate", *runs), ("predict", *runs), both):
        refused = invoke(*verb)
        assert refused.returncode == 1 and words in refused.stderr
        assert invoke(*verb, *allowed).returncode == 0
        for record in (target / "runs").glob("*/allowed.json"):  # else the next verb takes it as allowed
            record.unlink()
