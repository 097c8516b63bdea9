"""What goes wrong on the wire, in words: the server's reason, the next step, and never a secret."""

import datetime
import logging
import sys
import threading

import pytest
import requests

from kit.core.errors import KitError
from kit.kaggle.credentials import Credentials, find_credentials, sources
from kit.kaggle.errors import Refused, Unanswered, answer_of, is_temporary, kit_error
from kit.kaggle.timeouts import Work

MINE = Credentials("the variable KAGGLE_API_TOKEN", ("KGAT_secret",))


def http_error(status, content, headers=None):
    response = requests.Response()
    response.status_code = status
    response._content = content.encode()
    response.headers.update(headers or {})
    return requests.HTTPError("no", response=response)


def said(error, action="to submit", slug="a-slug"):
    return kit_error(error, action, slug, MINE)


def test_without_credentials_every_place_is_named_in_order(tmp_path):
    with pytest.raises(KitError) as refused:
        find_credentials({}, tmp_path)
    places = [str(refused.value).index(place) for place in sources({}, tmp_path)]
    assert len(places) == 5
    assert places == sorted(places)
    assert "export KAGGLE_API_TOKEN" in str(refused.value)


def test_a_variable_goes_before_a_file_and_a_token_before_a_key(tmp_path):
    folder = tmp_path / ".kaggle"
    folder.mkdir()
    (folder / "credentials.json").write_text('{"refresh_token": "r-secret", "access_token": "a-secret"}')
    assert find_credentials({}, tmp_path).source.endswith("credentials.json")
    assert find_credentials({}, tmp_path).hide("r-secret a-secret") == "*** ***"
    (folder / "kaggle.json").write_text('{"username": "ada", "key": "k-secret"}')
    (folder / "kaggle.json").chmod(0o600)
    assert find_credentials({}, tmp_path).source == str(folder / "kaggle.json")
    pair = {"KAGGLE_USERNAME": "ada", "KAGGLE_KEY": "e-secret"}
    assert find_credentials(pair, tmp_path).hide("k-secret e-secret r-secret") == "*** *** ***"
    (folder / "access_token").write_text("t-secret\n")
    assert find_credentials(pair, tmp_path).source == str(folder / "access_token")
    assert find_credentials(pair | {"KAGGLE_API_TOKEN": "v-secret"}, tmp_path).source.endswith("KAGGLE_API_TOKEN")


def test_a_token_variable_may_name_a_file(tmp_path):
    (tmp_path / "token").write_text("f-secret")
    found = find_credentials({"KAGGLE_API_TOKEN": str(tmp_path / "token")}, tmp_path)
    assert found.hide("f-secret") == "***"


def test_credentials_never_show_their_secret():
    assert "KGAT_secret" not in repr(MINE)


@pytest.mark.parametrize("folder", [{"KAGGLE_CONFIG_DIR": "elsewhere"}, {"XDG_CONFIG_HOME": "xdg"}, {}])
def test_kaggle_json_is_found_where_the_client_looks(folder, tmp_path):
    places = {name: str(tmp_path / value) for name, value in folder.items()}
    goal = {"KAGGLE_CONFIG_DIR": "elsewhere", "XDG_CONFIG_HOME": "xdg/kaggle"}.get(next(iter(folder), ""))
    path = tmp_path / (goal or ".config/kaggle") / "kaggle.json"
    path.parent.mkdir(parents=True)
    path.write_text('{"username": "ada", "key": "k-secret"}')
    assert find_credentials(places, tmp_path).source == str(path)


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o640, True), (0o604, True)])
def test_a_kaggle_json_that_others_can_read_is_warned_of(mode, warned, tmp_path, caplog):
    path = tmp_path / ".kaggle" / "kaggle.json"
    path.parent.mkdir()
    path.write_text('{"username": "ada", "key": "k-secret"}')
    path.chmod(mode)
    with caplog.at_level(logging.WARNING, "kit"):
        find_credentials({}, tmp_path)
    assert (f"chmod 600 {path}" in caplog.text) == warned
    assert "k-secret" not in caplog.text


def test_a_broken_kaggle_json_is_named_and_its_text_is_not_shown(tmp_path):
    path = tmp_path / ".kaggle" / "kaggle.json"
    path.parent.mkdir()
    path.write_text('{"username": "ada", "key": "k-secret"')
    with pytest.raises(KitError, match=r"kaggle\.json") as refused:
        find_credentials({}, tmp_path)
    assert "k-secret" not in str(refused.value)


def test_the_reason_is_found_in_every_form_that_kaggle_uses():
    assert answer_of(OSError("cut")) is None
    assert answer_of(http_error(403, '{"error": {"code": 403, "message": "accept the rules"}}')).reason == (
        "accept the rules"
    )
    assert answer_of(http_error(200, '{"code": 404, "message": "gone"}')).status == 404
    assert answer_of(http_error(502, "<html><b>Bad</b>\n gateway</html>")).reason == "Bad gateway"
    assert said(http_error(500, "x" * 5000)).found == f"Kaggle answered 500: {'x' * 300}"


def test_a_pause_is_asked_for_in_seconds_or_as_a_date():
    later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=90)
    dated = {"Retry-After": later.strftime("%a, %d %b %Y %H:%M:%S GMT")}
    assert answer_of(http_error(429, "", {"Retry-After": "7"})).retry_after_seconds == 7
    assert 80 < answer_of(http_error(429, "", dated)).retry_after_seconds <= 90
    assert answer_of(http_error(429, "", {"Retry-After": "soon"})).retry_after_seconds == 0


@pytest.mark.parametrize(
    ("error", "kind", "texts"),
    [
        (http_error(401, ""), Refused, ["KAGGLE_API_TOKEN", "kaggle auth login"]),
        (SystemExit(1), Refused, ["unknown or expired", "settings/api"]),
        (http_error(403, '{"error": {"message": "rules"}}'), Refused, ["competitions/a-slug/rules", "403: rules"]),
        (http_error(404, ""), Refused, ["`invoke download --competition SLUG`"]),
        (http_error(400, '{"message": "5 of 5 used"}'), Refused, ["5 of 5 used", "00:00 UTC", "hours"]),
        (http_error(429, "", {"Retry-After": "12"}), Refused, ["wait 12 s"]),
        (http_error(500, ""), Unanswered, ["later"]),
        (TimeoutError("no answer within 30 s"), Unanswered, ["within 30 s"]),
        (requests.ConnectionError("dropped"), Unanswered, ["dropped", "network"]),
        (AttributeError("of the client"), Unanswered, ["AttributeError"]),
    ],
)
def test_every_failure_says_what_it_was_and_what_to_do(error, kind, texts):
    found = said(error)
    assert type(found) is kind
    for text in texts:
        assert text in str(found)


def test_a_secret_that_the_server_repeats_is_hidden():
    assert "KGAT_secret" not in str(said(http_error(400, '{"message": "bad token KGAT_secret"}')))
    assert "KGAT_secret" not in str(said(OSError("proxy http://KGAT_secret@host")))


def test_a_secret_at_the_cut_does_not_show_its_beginning():
    for letters in range(280, 301):
        assert "KGA" not in said(http_error(400, f'{{"message": "{"x" * letters}KGAT_secret"}}')).found


def test_a_secret_that_begins_like_another_is_hidden_whole():
    assert Credentials("two", ("abcd", "abcdefgh")).hide("abcdefgh abcd") == "*** ***"


def test_a_broken_file_behind_the_credentials_in_use_is_nobodys_trouble(tmp_path):
    (tmp_path / ".kaggle").mkdir()
    (tmp_path / ".kaggle" / "kaggle.json").write_text("{")
    assert find_credentials({"KAGGLE_API_TOKEN": "v-secret"}, tmp_path).hide("v-secret") == "***"


def test_only_a_temporary_error_is_retried():
    temporary = [TimeoutError(), ConnectionResetError(), http_error(429, ""), http_error(503, "")]
    permanent = [http_error(403, ""), http_error(400, ""), SystemExit(1), ValueError()]
    assert all(map(is_temporary, temporary))
    assert not any(map(is_temporary, permanent))


def test_work_gives_its_value_its_error_or_up():
    assert Work(lambda: 3).result(5) == 3
    with pytest.raises(SystemExit):
        Work(lambda: sys.exit(2)).result(5)

    released = threading.Event()
    waiting = Work(released.wait)
    with pytest.raises(TimeoutError, match=r"within 0\.01 s"):
        waiting.result(0.01)
    released.set()
    assert waiting.result(5)
