"""What would be sent: the newest submission, examined, in words that leave nothing out."""

import datetime
import json
import shlex
from pathlib import Path

import pandas as pd
import pytest
from toy import TOY_TEST_IMAGES, copied, toy_config

from kit.config import override, save
from kit.core.errors import KitError
from kit.data.provenance import record_download
from kit.runs.folder import Run, mark_finished
from kit.schemas.tables import SUBMISSION_COLUMNS
from kit.submission.folders import (
    BY_HAND,
    Attempt,
    Origin,
    read_submissions,
    record_attempt,
    write_submission,
)
from kit.submission.preview import choose_outgoing, edited_submission, file_by_hand, how_to_file, preview_lines
from kit.submission.scoreboard import rows

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.fixture(scope="module")
def source(toy_source, tmp_path_factory):
    """The toy competition with a run that is finished (its weights are named, not there)."""
    workspace = copied(toy_source, tmp_path_factory.mktemp("preview") / "toy")
    run = Run(workspace, "demo")
    save(override(toy_config(), ["competition.slug=its-run-s"]), run.config)
    mark_finished(run, "best", (1,), (2,), {"demo": "a" * 64})
    return workspace


@pytest.fixture
def workspace(source, tmp_path):
    return copied(source, tmp_path / "toy")


def answers(workspace, confidence=0.5):
    truth = pd.read_csv(workspace / "test_truth.csv").set_index("image_id")
    mapping = pd.read_csv(workspace / "data" / "ID_to_Image_Mapping.csv").set_index("ID")["image_id"]
    table = truth.loc[mapping].reset_index().assign(ID=mapping.index, confidence=confidence)
    return table[list(SUBMISSION_COLUMNS)].to_csv(index=False)


def filed(workspace, text=None, weights="a" * 64, run="demo", **origin):
    made = Origin("what it is", run, 0.3, {run: weights}, toy_config().as_dict(), **origin)
    text = answers(workspace) if text is None else text
    return write_submission(workspace / "submissions", text, made, lambda path: None)


def never(run):
    raise AssertionError(f"{run.name} has its submission")


def chosen(workspace, number=None, message=None, predict=never):
    return choose_outgoing(workspace, number, message, predict)


def test_without_a_run_or_a_submission_the_next_step_is_to_train(tmp_path):
    with pytest.raises(KitError, match="invoke train"):
        chosen(tmp_path)


def test_what_is_not_known_is_called_unknown_and_what_is_known_is_shown(workspace):
    filed(workspace)
    shown = preview_lines(chosen(workspace, message="first try"), "unknown")
    assert shown == [
        f"submission:  0001, 8 rows, SHA-256 {chosen(workspace).submission.csv_sha256[:12]}",
        f"file:        {workspace}/submissions/0001-what-it-is/submission.csv",
        "to:          https://www.kaggle.com/competitions/its-run-s",
        "message:     first try [kit 0001 <id>]",
        "run:         demo",
        "trained on:  demo: not recorded",
        "local score: 0.300",
        "expected:    unknown",
        "earlier:     none has a public score",
        "uploads:     none yet",
        "left today:  unknown",
    ]
    seen = preview_lines(chosen(workspace, message="first try"), "unknown", page="view.html")
    assert seen == [*shown[:2], "page:        view.html", *shown[2:]]


def test_scores_ranges_earlier_scores_and_uploads_are_shown(workspace):
    for number in range(1, 6):
        one = filed(workspace, answers(workspace, number / 10), local_interval=(0.2, 0.4),
                    expected={"mean": 0.25, "low": 0.2, "high": 0.3})  # fmt: skip
        done = Attempt("beef", "s", "m", False, "h", "2027-01-15T08:00:00+00:00", "complete", number, number / 20)
        if number != 4:
            record_attempt(one, done)
    shown = "\n".join(preview_lines(chosen(workspace, 4), "2"))
    assert "0.300 (95%: 0.200 to 0.400)" in shown
    assert "0.250 on the leaderboard (0.200 to 0.300)" in shown
    assert "earlier:     0002 public 0.100" in shown  # the last three of 1, 2, 3 and 5
    assert "0005 public 0.250" in shown
    assert "1, the last complete (ref 5, 2027" in "\n".join(preview_lines(chosen(workspace, 5), "2"))


def test_the_downloaded_competition_goes_before_the_runs(workspace):
    filed(workspace)
    assert chosen(workspace).competition == "its-run-s"
    record_download(workspace / "data", "downloaded")
    assert chosen(workspace).competition == "downloaded"


def test_a_run_without_a_submission_gets_one_first(workspace):
    asked = []

    def predict(run):
        asked.append(run.name)
        return filed(workspace)

    assert chosen(workspace, predict=predict).submission.number == 1
    assert chosen(workspace, predict=never).submission.number == 1
    mark_finished(Run(workspace, "demo"), "best", (1,), (2,), {"demo": "b" * 64})  # trained anew under its name
    with pytest.raises(AssertionError, match="demo"):
        chosen(workspace)
    assert chosen(workspace, number=1).submission.number == 1
    assert asked == ["demo"]


def test_a_run_that_finished_before_the_newest_submission_was_filed_is_not_sent_in_its_place(workspace):
    mark_finished(Run(workspace, "demo"), "best", (1,), (2,), {"demo": "b" * 64})
    filed(workspace)
    path = workspace / "submissions" / "0001-what-it-is" / "manifest.json"
    content = json.loads(path.read_text())
    later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=2)
    path.write_text(json.dumps(content | {"created_at": later.isoformat(timespec="seconds")}))
    assert chosen(workspace).submission.number == 1
    path.write_text(json.dumps(content | {"created_at": "2020-01-15T08:00:00+00:00"}))
    with pytest.raises(AssertionError, match="demo"):
        chosen(workspace)


def test_no_older_run_is_predicted_in_place_of_one_that_cannot_be_read(workspace):
    later = Run(workspace, "later")
    copied(Run(workspace, "demo").folder, later.folder)
    later.finished.write_text("{}")
    with pytest.raises(KitError, match="later") as refused:
        chosen(workspace)
    assert "`invoke predict --run demo` and `invoke submit` again, or move later" in refused.value.do
    later.folder.rename(workspace / "away")
    with pytest.raises(AssertionError, match="demo"):
        chosen(workspace)
    (workspace / "away").rename(later.folder)
    filed(workspace)  # as `invoke predict --run demo` does
    assert chosen(workspace).submission.number == 1


def test_the_newest_is_taken_or_none_and_a_chosen_one_must_be_valid(workspace, caplog):
    first, second = filed(workspace), filed(workspace, answers(workspace, 0.25))
    assert chosen(workspace).submission == second
    second.csv.write_text("ID\n")
    for number in (None, 2):
        with pytest.raises(KitError, match="as it was filed"):
            chosen(workspace, number)
    assert chosen(workspace, number=1).submission == first
    filed(workspace, text=answers(workspace).replace("\n0,", "\n77,"))
    for number in (None, 3):
        with pytest.raises(KitError, match="mapping"):
            chosen(workspace, number)
    first.csv.unlink()
    with pytest.raises(KitError, match="no such file"):
        chosen(workspace, 1)


def test_the_newest_folder_without_a_manifest_is_not_passed_over(workspace):
    first, second = filed(workspace), filed(workspace)
    (second.folder / "manifest.json").rename(workspace / "kept.json")
    with pytest.raises(KitError, match=r"0002-.*manifest\.json") as refused:
        chosen(workspace)
    assert "move" in refused.value.do
    assert chosen(workspace, number=1).submission == first  # as it says
    second.folder.rename(workspace / "away")
    assert chosen(workspace).submission == first


def edit(submission, confidence="0.99"):
    """Change the first row's confidence, as an editor does; the new text."""
    header, first, *others = submission.csv.read_text().splitlines()
    cells = first.split(",")
    submission.csv.write_text("\n".join([header, ",".join([*cells[:6], confidence, cells[7]]), *others]) + "\n")
    return submission.csv.read_bytes()


def test_an_edited_submission_is_sent_by_the_command_that_its_refusal_names(workspace):
    filed(workspace)
    second = filed(workspace, answers(workspace, 0.25))
    content = edit(second)
    with pytest.raises(KitError) as refused:
        chosen(workspace)
    assert f"`invoke submit --file {second.csv}`" in refused.value.do
    assert edited_submission(workspace, second.csv).number == 2
    made = file_by_hand(workspace, second.csv, "edited")
    assert (made.number, made.origin.run, made.origin.local_score) == (3, BY_HAND, None)
    assert made.csv.read_bytes() == content
    outgoing = chosen(workspace)
    assert (outgoing.submission.number, outgoing.message, outgoing.rows) == (3, "edited", TOY_TEST_IMAGES)
    assert outgoing.competition == "its-run-s"
    assert edited_submission(workspace, made.csv) is None


def test_a_file_whose_name_has_a_blank_is_named_as_a_shell_takes_it():
    command = how_to_file(Path("chest x-rays/submission.csv")).split("`")[1]
    assert shlex.split(command) == ["invoke", "submit", "--file", "chest x-rays/submission.csv"]


def test_a_submission_of_the_same_second_as_a_run_is_the_newer_of_the_two(workspace):
    for number in range(1, 4):
        mark_finished(Run(workspace, "demo"), "best", (1,), (2,), {"demo": f"{number}" * 64})
        filed(workspace, run=BY_HAND)
        assert chosen(workspace).submission.number == number  # `never` predicts


def test_a_newer_run_is_not_predicted_in_place_of_a_submission_that_was_edited(workspace):
    edit(filed(workspace))
    mark_finished(Run(workspace, "demo"), "best", (1,), (2,), {"demo": "b" * 64})
    path = workspace / "submissions" / "0001-what-it-is" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"created_at": "2020-01-15T08:00:00+00:00"}))
    with pytest.raises(KitError, match="as it was filed"):
        chosen(workspace)


def test_a_hand_made_file_is_filed_once_and_marked_everywhere(workspace, tmp_path):
    filed(workspace)
    path = tmp_path / "mine.csv"
    path.write_bytes(answers(workspace, 0.75).replace("\n", "\r\n").encode())
    made = file_by_hand(workspace, path, None)
    assert file_by_hand(workspace, path, "other words") == made
    assert made.csv.read_bytes() == path.read_bytes()
    assert made.origin.message == "made by hand"
    assert json.loads((made.folder / "manifest.json").read_text())["origin"]["run"] == "by hand"
    assert "by hand" in (workspace / "submissions" / "index.csv").read_text().splitlines()[2]
    assert "by hand" in rows(read_submissions(workspace / "submissions"))[1]
    assert "run:         by hand" in preview_lines(chosen(workspace), "1")
    path.write_bytes(filed(workspace).csv.read_bytes())
    assert file_by_hand(workspace, path, None).number == 3  # the bytes of the last one that was predicted


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda text: text.replace("\n0,", "\n77,"), "mapping"),
        (lambda text: "\ufeff" + text, "byte order mark"),
        (lambda text: text.replace(",0.75,", ",1.75,"), "confidence"),
        (lambda text: "", "an empty file"),
    ],
)
def test_a_hand_made_file_is_checked_as_any_other_and_named(change, says, workspace, tmp_path):
    path = tmp_path / "mine.csv"
    text = answers(workspace, 0.75)
    path.write_text(change(text))
    with pytest.raises(KitError, match=says) as refused:
        file_by_hand(workspace, path, None)
    assert str(path) in str(refused.value)
    assert not (workspace / "submissions").exists()
    path.write_text(text)  # corrected, as it says
    assert file_by_hand(workspace, path, None).number == 1


def test_the_advice_on_faults_is_for_the_file_that_has_them(workspace, tmp_path):
    path, text = tmp_path / "mine.csv", answers(workspace, 0.75)
    broken = text.replace(text.splitlines()[1], "")
    path.write_text(broken)
    with pytest.raises(KitError) as refused:
        file_by_hand(workspace, path, None)
    assert refused.value.do == "correct these lines, then repeat the command with the same file"
    filed(workspace, broken)
    with pytest.raises(KitError) as refused:
        chosen(workspace)
    assert refused.value.do.startswith(
        "`invoke predict --run demo` files a new one; or `invoke submit --file COPY`"
    )
    path.write_text(text)  # a corrected copy, as it says
    assert file_by_hand(workspace, path, None).number == 2
    assert chosen(workspace).submission.number == 2
    filed(workspace, broken, run=BY_HAND)
    with pytest.raises(KitError) as refused:
        chosen(workspace)
    assert "invoke predict" not in refused.value.do
    assert "`invoke submit --file COPY`" in refused.value.do


def test_a_hand_made_file_that_is_not_there_or_has_no_message_is_refused(workspace, tmp_path):
    with pytest.raises(KitError, match="no such file"):
        file_by_hand(workspace, tmp_path / "none.csv", None)
    (tmp_path / "mine.csv").write_text(answers(workspace))
    with pytest.raises(KitError, match="--message"):
        file_by_hand(workspace, tmp_path / "mine.csv", "two\nlines")
    assert not (workspace / "submissions").exists()


def test_another_number_of_rows_is_taken_by_the_flag_that_the_refusal_names(workspace, tmp_path):
    path = tmp_path / "mine.csv"
    mapping = workspace / "data" / "ID_to_Image_Mapping.csv"
    path.write_text("\n".join(answers(workspace).splitlines()[:-1]) + "\n")
    mapping.write_text("\n".join(mapping.read_text().splitlines()[:-1]) + "\n")
    with pytest.raises(KitError, match=f"--set competition.expected_ids={TOY_TEST_IMAGES - 1}"):
        file_by_hand(workspace, path, None)
    made = file_by_hand(workspace, path, None, TOY_TEST_IMAGES - 1)
    assert choose_outgoing(workspace, made.number, None, never).rows == TOY_TEST_IMAGES - 1


def test_a_number_that_is_not_there_is_an_error_with_those_that_are(workspace):
    with pytest.raises(KitError, match="`invoke predict` files one"):
        chosen(workspace, number=1)
    first = filed(workspace)
    with pytest.raises(KitError, match="the newest are: 0001"):
        chosen(workspace, number=7)
    assert chosen(workspace, number=1).submission == first


@pytest.mark.parametrize("message", ["", "  ", "two\nlines", "bell\x07", "x" * 201])
def test_a_message_that_kaggle_might_cut_or_change_is_refused(message, workspace):
    filed(workspace)
    with pytest.raises(KitError, match="--message"):
        chosen(workspace, message=message)


def test_the_message_of_the_filing_is_judged_as_well_where_it_is_to_be_sent(workspace):
    origin = Origin("two\nlines", "demo", 0.3, {"demo": "a" * 64})
    write_submission(workspace / "submissions", answers(workspace), origin, lambda path: None)
    with pytest.raises(KitError, match="--message"):
        chosen(workspace)
    assert chosen(workspace, message="one line").message == "one line"


def test_rows_are_counted_as_many_as_the_mapping_has(workspace):
    filed(workspace)
    assert chosen(workspace, message="x" * 200).rows == TOY_TEST_IMAGES
