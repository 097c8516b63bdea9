"""Exactly once: whatever is cut, lost, late or killed, the server has each submission a single time."""

import contextlib
import datetime
import itertools
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kit.config import KaggleConfig
from kit.core.errors import KitError
from kit.kaggle.competition_api import Limits, RemoteSubmission
from kit.kaggle.errors import Refused, Unanswered
from kit.submission.attempts import Clock, as_listed, pauses, refresh_scores, uploading
from kit.submission.folders import (
    Attempt,
    Origin,
    Submission,
    read_submissions,
    record_attempt,
    with_attempt,
    write_submission,
)
from kit.submission.preview import Outgoing
from kit.submission.upload import UploadPlan, limit_text, outcome, prepare, send, show_outcome, wait

SLUG = "a-slug"
KNOBS = KaggleConfig()
START = 1_800_000_000.0


class Killed(BaseException):
    """Stands for a kill: nothing of ours catches it."""


class FakeKaggle:
    """The wire and the time, in memory: what goes wrong is set, and every step may be the one of a kill."""

    def __init__(self):
        self.seconds = START
        self.uploads = []  # (listed from this time on, RemoteSubmission)
        self.texts = []
        self.limit = 5
        self.score = 0.25
        self.status = "complete"
        self.reason = ""
        self.scored_after = 5.0
        self.listed_after = 0.0
        self.submit_seconds = 0.0
        self.refused_slugs = set()
        self.submit_faults = []  # in turn: "refused", "lost before", "lost after"
        self.list_faults = 0
        self.kill_at = None
        self.steps = 0
        self.ids = itertools.count()

    @property
    def clock(self):
        return Clock(self.now, self.sleep)

    def _step(self):
        if self.steps == self.kill_at:
            raise Killed
        self.steps += 1

    def said(self, text):
        self._step()
        assert text

    def now(self):
        self._step()
        return self.seconds

    def sleep(self, seconds):
        assert seconds > 0
        self._step()
        self.seconds += seconds

    def new_id(self):
        return f"{next(self.ids):08x}"

    def limits(self, slug):
        self._step()
        return Limits(len(self.uploads), len(self.uploads), max(0, self.limit - len(self.uploads)), False)

    def submit(self, slug, path, text):
        self._step()
        assert path.read_text()
        fault = self.submit_faults.pop(0) if self.submit_faults else ""
        if fault == "refused":
            raise Refused("to submit", "Kaggle answered 400: no", "do what it says")
        if fault == "lost before":
            raise Unanswered("to submit", "Kaggle answered 503: busy", "later")
        self.seconds += self.submit_seconds
        ref = 100 + len(self.uploads)
        when = datetime.datetime.fromtimestamp(self.seconds, datetime.UTC)
        remote = RemoteSubmission(ref, when, text, "pending", None, "")
        self.uploads.append((self.seconds + self.listed_after, remote))
        self.texts.append(text)
        self._step()  # killed, or its answer lost, after the server has it
        if fault == "lost after":
            raise Unanswered("to submit", "no answer in time", "later")
        return ref

    def submissions(self, slug):
        self._step()
        if slug in self.refused_slugs:
            raise Refused("to list", "Kaggle answered 404: gone", "correct the name")
        if self.list_faults:
            self.list_faults -= 1
            raise Unanswered("to list", "no answer: Network is unreachable", "later")
        return [self._now(remote) for listed, remote in reversed(self.uploads) if listed <= self.seconds]

    def _now(self, remote):
        if self.seconds < remote.submitted_at.timestamp() + self.scored_after:
            return remote
        score = self.score if self.status == "complete" else None
        return replace(remote, status=self.status, public_score=score, reason=self.reason)


def filed(folder, text="ID,image_id\n0,a.png\n", expected=None):
    origin = Origin("filed", "seed", 0.3, local_interval=(0.2, 0.4), expected=expected or {})
    return write_submission(folder / "submissions", text, origin, lambda path: None)


def submit(kaggle, submission, message="first try", again=False, knobs=KNOBS):
    """What `invoke submit` does after the question."""
    outgoing = Outgoing(submission, SLUG, message, 1, ())
    plan = prepare(kaggle, outgoing, again, knobs, kaggle.clock)
    attempt = plan.attempt or send(kaggle, plan, knobs, kaggle.new_id, kaggle.clock)
    attempt = attempt if plan.step == "done" else wait(kaggle, plan, attempt, knobs, kaggle.clock)
    with contextlib.suppress(KitError):  # it ended in an error: that is told as well
        show_outcome(outgoing, attempt, kaggle.said)
    return next(one for one in on_disk(submission).attempts if one.id == attempt.id)


def on_disk(submission):
    return next(one for one in read_submissions(submission.folder.parent) if one.number == submission.number)


@pytest.fixture
def kaggle():
    return FakeKaggle()


def test_nothing_was_uploaded_and_nothing_is_refreshed(kaggle, tmp_path):
    filed(tmp_path)
    assert refresh_scores(kaggle, tmp_path / "submissions") == 0
    assert kaggle.steps == 0  # without an attempt nobody is asked


def test_a_submission_is_uploaded_once_and_its_score_written(kaggle, tmp_path):
    submission = filed(tmp_path)
    attempt = submit(kaggle, submission)
    assert kaggle.texts == ["first try [kit 0001 00000000]"]
    now = on_disk(submission)
    assert (now.ref, now.status, now.public_score, now.reason) == (100, "complete", 0.25, "")
    assert now.attempts == (attempt,)
    assert attempt.at == "2027-01-15T08:00:00.000+00:00"
    assert (now.origin, now.csv_sha256) == (submission.origin, submission.csv_sha256)
    index = (tmp_path / "submissions" / "index.csv").read_text().splitlines()
    assert index[1].endswith(",filed,seed,0.3000,0.2500,complete,100,")


def test_the_attempt_is_on_disk_before_the_first_byte_leaves(kaggle, tmp_path):
    submission = filed(tmp_path)
    kaggle.kill_at = 3  # the limits, two looks at the clock, and then the upload
    with contextlib.suppress(Killed):
        submit(kaggle, submission)
    assert kaggle.steps == 3
    assert kaggle.uploads == []
    assert [(one.status, one.ref) for one in on_disk(submission).attempts] == [("open", None)]


def test_the_same_command_says_how_it_ended_and_sends_nothing(kaggle, tmp_path):
    submission = filed(tmp_path)
    first = submit(kaggle, submission)
    assert submit(kaggle, submission) == first
    assert len(kaggle.uploads) == 1


def test_the_same_bytes_under_another_message_or_number_need_again(kaggle, tmp_path):
    submission, twin = filed(tmp_path), filed(tmp_path)
    submit(kaggle, submission)
    with pytest.raises(KitError, match="submission 0001 has the same and was uploaded as ref 100"):
        submit(kaggle, submission, message="another")
    with pytest.raises(KitError, match="--again"):
        submit(kaggle, twin)
    submit(kaggle, twin, again=True)
    assert kaggle.texts == ["first try [kit 0001 00000000]", "first try [kit 0002 00000001]"]
    other = filed(tmp_path, text="ID,image_id\n1,a.png\n")
    submit(kaggle, other)
    assert len(kaggle.uploads) == 3


def test_again_makes_a_new_attempt_each_time_and_the_newest_that_arrived_is_shown(kaggle, tmp_path):
    submission = filed(tmp_path)
    for count, again in enumerate((False, True, True), 1):
        kaggle.score = count / 10
        submit(kaggle, submission, again=again)
        assert len(kaggle.uploads) == count
        assert on_disk(submission).public_score == count / 10
    kaggle.submit_faults = ["refused"]
    with pytest.raises(Refused):
        submit(kaggle, submission, again=True)
    now = on_disk(submission)
    assert [one.status for one in now.attempts] == ["complete"] * 3 + ["failed"]
    assert (now.status, now.ref, now.public_score) == ("complete", 102, 0.3)


def test_a_lost_answer_is_found_in_the_list_and_never_repeated(kaggle, tmp_path):
    submission = filed(tmp_path)
    kaggle.submit_faults, kaggle.listed_after = ["lost after"], 20.0
    assert submit(kaggle, submission).status == "complete"
    assert len(kaggle.uploads) == 1
    assert on_disk(submission).ref == 100


def test_an_upload_that_did_not_arrive_is_said_and_the_same_command_sends_it(kaggle, tmp_path):
    submission = filed(tmp_path)
    kaggle.submit_faults = ["lost before"]
    with pytest.raises(KitError, match="the server does not have it"):
        submit(kaggle, submission)
    assert (
        kaggle.seconds == START + KNOBS.deadline_seconds + KNOBS.settle_seconds
    )  # it was looked for as long as it might turn up
    assert (on_disk(submission).status, on_disk(submission).reason) == ("failed", "the server does not have it")
    assert submit(kaggle, submission).status == "complete"
    assert [one.status for one in on_disk(submission).attempts] == ["failed", "complete"]
    assert len(kaggle.uploads) == 1


def test_an_upload_that_took_longer_than_its_deadline_is_still_waited_for(kaggle, tmp_path):
    submission = filed(tmp_path)
    kaggle.submit_faults, kaggle.submit_seconds, kaggle.listed_after = ["lost after"], KNOBS.deadline_seconds, 45.0
    assert submit(kaggle, submission).status == "complete"
    assert len(kaggle.uploads) == 1


@pytest.mark.parametrize(
    ("later", "listed_after", "uploads"), [(0.0, 200.0, 1), (440.0, 700.0, 1), (460.0, 700.0, 2)]
)
def test_what_was_given_up_is_waited_for_once_more_for_ten_minutes(later, listed_after, uploads, kaggle, tmp_path):
    submission = filed(tmp_path)
    kaggle.submit_faults, kaggle.listed_after = ["lost after"], listed_after
    with pytest.raises(KitError, match="does not have it"):  # after 30 + 120 s
        submit(kaggle, submission)
    kaggle.seconds += later  # 150 + 440 < 600 <= 150 + 460
    kaggle.submit_faults = ["refused"]  # what a second upload would end with
    if uploads == 1:
        assert submit(kaggle, submission).status == "complete"
    else:
        with pytest.raises(Refused):
            submit(kaggle, submission)
    assert len(on_disk(submission).attempts) == uploads
    assert len(kaggle.uploads) == 1


@pytest.mark.parametrize("again", [False, True])
def test_an_open_attempt_is_settled_first_also_under_again(kaggle, again, tmp_path):
    submission = filed(tmp_path)
    kaggle.submit_faults, kaggle.list_faults = ["lost after"], 1
    with pytest.raises(KitError, match="whether it arrived is not known"):
        submit(kaggle, submission)
    kaggle.list_faults = 1
    with pytest.raises(Unanswered):  # while it cannot be settled, nothing is sent
        submit(kaggle, submission, again=again)
    assert len(kaggle.uploads) == 1
    assert on_disk(submission).status == "open"
    assert submit(kaggle, submission, again=again).status == "complete"
    assert len(kaggle.uploads) == 1 + again  # with --again it is settled, and then sent once more
    refresh_scores(kaggle, tmp_path / "submissions")
    assert [one.status for one in on_disk(submission).attempts] == ["complete"] * (1 + again)


def test_an_again_that_was_cut_is_gone_on_with_by_the_same_command(kaggle, tmp_path):
    submission = filed(tmp_path)
    submit(kaggle, submission)
    kaggle.submit_faults, kaggle.list_faults = ["lost after"], 1
    for _ in range(2):
        with contextlib.suppress(KitError):
            submit(kaggle, submission, again=True)
    assert len(kaggle.uploads) == 2
    assert [one.status for one in on_disk(submission).attempts] == ["complete"] * 2


def test_an_again_that_was_cut_and_then_refreshed_is_not_sent_a_second_time_by_the_same_command(kaggle, tmp_path):
    submission = filed(tmp_path)
    submit(kaggle, submission)
    kaggle.submit_faults, kaggle.list_faults = ["lost after"], 1
    with pytest.raises(KitError, match="not known"):
        submit(kaggle, submission, again=True)
    kaggle.seconds += 60
    assert refresh_scores(kaggle, tmp_path / "submissions") == 1  # complete, but nobody was told
    assert submit(kaggle, submission, again=True).ref == 101
    assert len(kaggle.uploads) == 2
    submit(kaggle, submission, again=True)  # told by now: a wish of its own
    assert len(kaggle.uploads) == 3


@pytest.mark.parametrize("later", [300.0, 3600.0])  # while it is doubtful, and long after
def test_an_attempt_that_turns_up_after_it_was_given_up_is_taken_back(later, kaggle, tmp_path):
    submission = filed(tmp_path)
    kaggle.submit_faults, kaggle.listed_after = ["lost after"], later
    with pytest.raises(KitError, match="does not have it"):
        submit(kaggle, submission)
    kaggle.seconds += later
    assert submit(kaggle, submission).status == "complete"
    assert len(kaggle.uploads) == 1


def test_a_refusal_is_a_failed_attempt_with_the_servers_reason(kaggle, tmp_path):
    submission = filed(tmp_path)
    kaggle.submit_faults = ["refused"]
    with pytest.raises(Refused, match="400: no"):
        submit(kaggle, submission)
    now = on_disk(submission)
    assert (now.status, now.ref, now.reason) == ("failed", None, "Kaggle answered 400: no")
    assert kaggle.seconds == START  # a no needs no search


def test_the_daily_limit_is_said_with_its_hours_before_anything_is_sent(kaggle, tmp_path):
    submission = filed(tmp_path)
    kaggle.limit = 1
    submit(kaggle, submission)
    kaggle.seconds = START  # 08:00 UTC
    with pytest.raises(KitError, match=r"in 16\.0 hours, at 00:00 UTC"):
        submit(kaggle, submission, again=True)
    assert len(on_disk(submission).attempts) == 1
    kaggle.limit, kaggle.seconds = 2, START + 16 * 3600  # the next day: the server counts anew
    assert submit(kaggle, submission, again=True).status == "complete"


def test_limits_of_nothing_but_zeros_are_those_of_a_user_without_a_team_yet(kaggle, tmp_path):
    kaggle.limit = 0
    assert "unknown" in limit_text(kaggle.limits(SLUG))
    assert submit(kaggle, filed(tmp_path)).status == "complete"
    assert limit_text(Limits(2, 9, 3, False)) == "3 (made today: 2)"


def test_pending_at_the_deadline_is_no_failure_and_a_refresh_picks_it_up(kaggle, tmp_path):
    submission = filed(tmp_path)
    kaggle.scored_after = 1000.0
    attempt = submit(kaggle, submission)
    assert kaggle.seconds <= START + KNOBS.score_wait_seconds
    outgoing = Outgoing(submission, SLUG, "first try", 1, ())
    assert "submissions --refresh" in outcome(outgoing, attempt)[0]
    assert on_disk(submission).status == "pending"
    kaggle.seconds = START + 1000
    assert refresh_scores(kaggle, tmp_path / "submissions") == 1
    assert on_disk(submission).public_score == 0.25
    assert refresh_scores(kaggle, tmp_path / "submissions") == 0


def test_a_competition_whose_list_is_refused_does_not_hide_the_scores_of_others(kaggle, tmp_path, caplog):
    gone = Attempt("gone", "a-gone-slug", "m", False, "h", "2027-01-15T08:00:00.000+00:00", "pending", ref=3)
    record_attempt(filed(tmp_path, text="ID\n9\n"), gone)
    submission = filed(tmp_path)
    kaggle.scored_after = 1000.0
    submit(kaggle, submission)
    kaggle.seconds, kaggle.refused_slugs = START + 1000, {"a-gone-slug"}
    assert refresh_scores(kaggle, tmp_path / "submissions") == 1
    assert on_disk(submission).public_score == 0.25
    assert "a-gone-slug could not be read (Kaggle answered 404" in caplog.text


def test_an_again_that_was_pending_at_the_deadline_and_then_refreshed_is_the_same_wish(kaggle, tmp_path):
    submission = filed(tmp_path)
    submit(kaggle, submission)
    kaggle.scored_after = 5000.0
    assert submit(kaggle, submission, again=True).status == "pending"
    assert submit(kaggle, submission, again=True).status == "pending"
    kaggle.seconds += 6000
    refresh_scores(kaggle, tmp_path / "submissions")
    assert submit(kaggle, submission, again=True).public_score == 0.25
    assert len(kaggle.uploads) == 2


def test_what_another_process_has_learned_meanwhile_is_not_written_over(kaggle, tmp_path):
    submission = filed(tmp_path)
    kaggle.scored_after = 5000.0
    pending = submit(kaggle, submission)
    kaggle.seconds += 6000
    refresh_scores(kaggle, tmp_path / "submissions")
    record_attempt(submission, replace(pending, told=True))
    record_attempt(submission, on_disk(submission).attempts[0])
    record_attempt(submission, pending)
    (attempt,) = on_disk(submission).attempts
    assert (attempt.status, attempt.public_score, attempt.told) == ("complete", 0.25, True)


def test_an_end_in_an_error_is_told_and_recorded_as_told(kaggle, tmp_path):
    submission = filed(tmp_path)
    kaggle.status, kaggle.reason = "error", "wrong columns"
    assert submit(kaggle, submission).told
    submit(kaggle, submission, again=True)
    assert len(kaggle.uploads) == 2


def test_a_refresh_that_no_list_answers_is_an_error(kaggle, tmp_path):
    submission = filed(tmp_path)
    submit(kaggle, submission)
    kaggle.refused_slugs = {SLUG}
    with pytest.raises(Refused, match="404: gone"):
        refresh_scores(kaggle, tmp_path / "submissions")
    assert on_disk(submission).status == "complete"


def test_looks_that_fail_are_repeated_until_the_deadline(kaggle, tmp_path):
    submission = filed(tmp_path)
    kaggle.list_faults = 3
    assert submit(kaggle, submission).status == "complete"
    assert len(kaggle.uploads) == 1


def test_a_submission_that_ended_in_error_shows_the_servers_reason(kaggle, tmp_path):
    submission = filed(tmp_path)
    kaggle.status, kaggle.reason = "error", "Submission contains an unknown image_id"
    attempt = submit(kaggle, submission)
    assert on_disk(submission).reason == kaggle.reason
    with pytest.raises(KitError, match="unknown image_id"):
        outcome(Outgoing(submission, SLUG, "first try", 1, ()), attempt)
    assert submit(kaggle, submission) == attempt
    assert len(kaggle.uploads) == 1


def test_the_outcome_puts_the_public_score_beside_the_local_and_the_expected(kaggle, tmp_path):
    submission = filed(tmp_path, expected={"mean": 0.28, "low": 0.2, "high": 0.36})
    lines = outcome(Outgoing(submission, SLUG, "m", 1, ()), submit(kaggle, submission))
    assert lines == [
        "submission 0001, ref 100: public score 0.250",
        "local score 0.300 (95%: 0.200 to 0.400); expected 0.280 on the leaderboard (0.200 to 0.360) (inside)",
    ]


def test_a_csv_that_was_changed_is_not_sent(kaggle, tmp_path):
    submission = filed(tmp_path)
    plan = UploadPlan("send", Outgoing(submission, SLUG, "m", 1, ()), False)
    submission.csv.write_text("other\n")
    with pytest.raises(KitError, match="as it was filed"):
        send(kaggle, plan, KNOBS, kaggle.new_id, kaggle.clock)
    assert on_disk(submission).attempts == ()


def test_a_disk_that_refuses_lets_nothing_be_sent(kaggle, tmp_path):
    submission = filed(tmp_path)
    plan = UploadPlan("send", Outgoing(submission, SLUG, "m", 1, ()), False)
    submission.folder.joinpath("manifest.json").unlink()
    submission.folder.joinpath("manifest.json").mkdir()  # root may write anywhere, but not over a folder
    with pytest.raises(KitError):
        send(kaggle, plan, KNOBS, kaggle.new_id, kaggle.clock)
    assert kaggle.uploads == []


def test_two_at_once_are_one_and_an_error(tmp_path):
    with uploading(tmp_path), pytest.raises(KitError, match="one `invoke submit` at a time"), uploading(tmp_path):
        pass
    with uploading(tmp_path):
        pass


def test_pauses_grow_by_half_up_to_half_a_minute():
    assert list(itertools.islice(pauses(2.0), 9)) == [2, 3, 4.5, 6.75, 10.125, 15.1875, 22.78125, 30, 30]
    assert list(itertools.islice(pauses(60.0), 2)) == [60, 60]


def test_an_id_in_somebodys_message_is_not_mistaken_for_the_mark():
    submission = Submission(Path("0007-m"), 7, "2025-01-31T12:00:00+00:00", Origin("m", "r", None), "h")
    attempt = Attempt("deadbeef", SLUG, "m", False, "h", "2027-01-15T08:00:00.000+00:00")
    when = datetime.datetime(2027, 1, 15, tzinfo=datetime.UTC)

    def remote(text):
        return RemoteSubmission(5, when, text, "pending", None, "")

    assert as_listed(submission, attempt, [remote("m deadbeef"), remote("m [kit 0008 deadbeef]")]) == attempt
    assert as_listed(submission, attempt, [remote("m [kit 0007 deadbeef]")]).ref == 5


def test_the_newest_attempt_is_shown_until_one_has_arrived(tmp_path):
    submission = filed(tmp_path)
    for number, status in enumerate(("failed", "open")):
        attempt = Attempt(f"{number}", SLUG, "m", False, "h", "2027-01-15T08:00:00.000+00:00", status)
        submission = record_attempt(submission, attempt)
        assert submission == on_disk(submission)
        assert submission.status == status
    assert with_attempt(submission, replace(submission.attempts[0], status="pending", ref=3)).ref == 3


FAULTS = st.lists(st.sampled_from(["", "lost before", "lost after", "refused"]), max_size=3)


@settings(max_examples=40)
@given(
    kills=st.lists(st.integers(0, 25), max_size=4),
    faults=FAULTS,
    listed_after=st.sampled_from([0.0, 3.0, 25.0]),
    unlisted=st.integers(0, 2),
    again=st.booleans(),
    refreshed=st.booleans(),
    scored_after=st.sampled_from([5.0, 700.0]),
)
@example(kills=[3], faults=[], listed_after=0.0, unlisted=0, again=False, refreshed=False, scored_after=5.0)
@example(kills=[4], faults=[], listed_after=25.0, unlisted=2, again=True, refreshed=False, scored_after=700.0)
@example(kills=[4], faults=[], listed_after=0.0, unlisted=0, again=True, refreshed=True, scored_after=700.0)
def test_killed_anywhere_and_called_again_until_it_ends_there_is_one_upload(
    kills, faults, listed_after, unlisted, again, refreshed, scored_after, tmp_path_factory
):
    kaggle = FakeKaggle()
    submission = filed(tmp_path_factory.mktemp("killed"))
    if again:
        submit(kaggle, submission)
    kaggle.submit_faults, kaggle.listed_after, kaggle.list_faults = list(faults), listed_after, unlisted
    kaggle.scored_after = scored_after
    for kill_at in [*kills, *[None] * (len(faults) + unlisted + 2)]:
        kaggle.steps, kaggle.kill_at = 0, kill_at
        with contextlib.suppress(Killed, KitError):
            submit(kaggle, submission, again=again)
            break
        kaggle.kill_at = None
        if refreshed:
            kaggle.seconds += 30
            with contextlib.suppress(KitError):
                refresh_scores(kaggle, submission.folder.parent)
    if on_disk(submission).status == "pending":  # at the deadline: picked up later, and the same command told it
        kaggle.seconds += 1000
        refresh_scores(kaggle, submission.folder.parent)
        submit(kaggle, submission, again=again)
    assert len(kaggle.uploads) == 1 + again
    now = on_disk(submission)
    assert (now.status, now.public_score, now.ref) == ("complete", 0.25, 100 + again)
    assert sum(one.ref is not None for one in now.attempts) == 1 + again


@pytest.mark.parametrize("fault", ["", "lost after"])
def test_a_kill_at_every_single_step_leaves_what_the_same_command_goes_on_from(fault, tmp_path):
    for kill_at in itertools.count():
        kaggle = FakeKaggle()
        submission = filed(tmp_path, text=f"ID\n{fault}{kill_at}\n")
        kaggle.submit_faults, kaggle.kill_at = [fault], kill_at
        try:
            submit(kaggle, submission)
        except Killed:
            kaggle.kill_at = None
            submit(kaggle, submission)
            assert len(kaggle.uploads) == 1
            assert on_disk(submission).public_score == 0.25
        else:
            break
    assert kill_at > 8
