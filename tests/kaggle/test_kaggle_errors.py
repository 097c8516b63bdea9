"""What goes wrong on the wire, in words: the server's reason, the next step, and never a secret."""

import contextlib
import datetime
import json
import logging
import sys
import threading
import urllib.parse

import pytest
import requests
from requests.auth import _basic_auth_str

from kit.core.errors import KitError
from kit.core.redaction import redact
from kit.kaggle.advice import advice
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
        (AttributeError("of the client"), Unanswered, ["AttributeError", "pip install -U kaggle"]),
        (requests.exceptions.SSLError("[SSL: CERTIFICATE_VERIFY_FAILED] x"), Unanswered, ["REQUESTS_CA_BUNDLE"]),
    ],
)
def test_every_failure_says_what_it_was_and_what_to_do(error, kind, texts):
    found = said(error)
    assert type(found) is kind
    for text in texts:
        assert text in str(found)


NOTEBOOKS = "Submission not allowed:  This competition only accepts Submissions from Notebooks."
DAILY = (
    "Submission not allowed: Your team has used its daily Submission allowance (5) today, please try again tomorrow"
)
CAUSES = [  # a reason as Kaggle words it, what the advice has, what it must not have
    (400, NOTEBOOKS, ["takes notebooks only", "competitions/a-slug"], ["limit", "network"]),
    (400, DAILY, ["00:00 UTC", "hours"], ["notebook", "rules"]),
    (400, f"{DAILY} UTC (12 hours from now). {NOTEBOOKS}", ["takes notebooks only", "00:00 UTC"], ["rules"]),
    (400, "You have used all 5 submissions of today. Try again in 5 hours.", ["00:00 UTC"], ["notebook"]),
    (400, "Your team has used its total Submission allowance (100).", ["no more submissions"], ["UTC"]),
    (400, "Submission not allowed:  Submissions have been disabled for this competition.", ["a-slug"], ["limit"]),
    (400, "The deadline of this competition has passed", ["takes no submission now"], ["UTC", "limit"]),
    (400, "Submission files must be named submission.csv", ["follow Kaggle's message"], ["limit", "UTC"]),
    (400, "", ["follow Kaggle's message"], ["limit", "UTC"]),
    (403, "You must accept this competition's rules before you can continue.", ["a-slug/rules"], ["verify"]),
    (403, "You cannot submit until you accept the competition rules", ["a-slug/rules"], ["limit"]),
    (403, "Permission 'competitions.participate' was denied", ["with this account", "settings/api"], ["limit"]),
    (403, "Required permission 'competitions.get' was not satisfied", ["a-slug/rules", "correct the name"], []),
    (403, "You must verify your phone number", ["kaggle.com/settings"], ["rules"]),
    (403, "Permission 'kernels.get' was denied", ["as the owner"], ["rules"]),
    (409, 'The requested title "kit-mine" is already in use by a kernel.', ["--run NAME"], ["rules", "limit"]),
    (400, "Maximum batch GPU session count of 2 reached.", ["wait for their end"], ["week", "limit"]),
    (400, "Maximum weekly GPU quota of 30.00 hours reached.", ["new week", "invoke train"], ["00:00 UTC"]),
    (400, "Notebook not found", ["never saved", "--run NAME"], ["notebooks only"]),
    (400, "Submissions to this competition must be made from a Notebook.", ["takes notebooks only"], ["UTC"]),
    (400, "You can make 5 submissions per day, and have reached this limit.", ["00:00 UTC"], ["notebook", "more"]),
    (400, "Maximum number of submissions per day exceeded", ["00:00 UTC"], ["notebook", "session"]),
    (400, "You have no more submissions left today (5 in total).", ["00:00 UTC"], ["no more submissions"]),
    (400, "You have reached the maximum number of concurrent GPU sessions.", ["wait for their end"], ["week"]),
    (400, "Maximum batch CPU session count of 5 reached.", ["wait for their end"], ["week", "UTC"]),
    (400, "Accelerator Quota Exceeded You've exceeded the number of hours allowed to use GPU. Your quota will "
     "reset to 30 hours in 2 days.", ["new week"], ["UTC", "session"]),
    (403, "Your account is missing phone or identity verification.", ["verify this account"], ["rules"]),
    (403, "Your account needs to be phone verified to use the internet", ["verify this account"], ["rules"]),
    (400, "Submission not allowed: The competition has ended.", ["takes no submission now"], ["UTC"]),
]  # fmt: skip
UNKNOWN = (  # reasons with the words of a cause, which they do not name
    "You have exceeded the quota of 100 GB for private data sets.",
    "Daily AI Quota exceeded",
    "Quota exceeded for quota metric 'Queries' and limit 'Queries per minute'",
    "Could not find competition - please verify that you entered the correct competition ID and that the "
    "competition is still accepting submissions.",
    "Please verify that your account may see this data set",
    "Could not verify the signature of the upload",
    "504 Deadline Exceeded",
    "The team merger deadline of this competition is 2026-01-02; the upload was not found",
    "This account has used all of its private storage",
    "Submission not allowed:  Your file exceeds the maximum size of 20 GB.",
    'Submission not allowed: Submission files must be named "submission.json" for this Competition.',
    "The notebook must be private; the file was uploaded today",
    "The maximum session length is 12 hours",
    "The submission was made today",
)


@pytest.mark.parametrize(("status", "reason", "has", "has_not"), CAUSES)
def test_the_advice_belongs_to_the_cause(status, reason, has, has_not):
    found = said(http_error(status, json.dumps({"error": {"code": status, "message": reason}})))
    assert type(found) is Refused
    assert reason in found.found
    for text in has:
        assert text in found.do
    for text in has_not:
        assert text not in found.do


@pytest.mark.parametrize("reason", UNKNOWN)
def test_a_reason_that_names_no_cause_gets_no_guess(reason):
    assert advice(reason, "a-slug") is None


def test_without_a_competition_no_address_is_left_open():
    assert "{" not in advice(NOTEBOOKS, "")
    assert advice("Successfully submitted", "a-slug") is None


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


TOKEN = "KGAT_0123456789abcdef"
MARKED = "\ufeff"
EDITORS = {
    "plain": ("utf-8", ""), "marked": ("utf-8", MARKED), "PowerShell": ("utf-16-le", MARKED),
    "the other way": ("utf-16-be", MARKED), "without a mark": ("utf-16-le", ""),
    "the other way without a mark": ("utf-16-be", ""),
}  # fmt: skip


@pytest.mark.parametrize("end", ["\r", "\n", "\r\n", " ", "\t\n"], ids=repr)
def test_a_line_end_of_a_variable_is_left_out_and_said(end, tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "kit"):
        found = find_credentials({"KAGGLE_API_TOKEN": TOKEN + end}, tmp_path)
    assert found.variables == {"KAGGLE_API_TOKEN": TOKEN}
    assert "the variable KAGGLE_API_TOKEN" in caplog.text
    assert TOKEN not in caplog.text
    assert TOKEN not in found.hide(f"{TOKEN + end!r} and {TOKEN}")
    pair = find_credentials({"KAGGLE_USERNAME": f"ada{end}", "KAGGLE_KEY": TOKEN + end}, tmp_path)
    assert pair.variables == {"KAGGLE_USERNAME": "ada", "KAGGLE_KEY": TOKEN}
    assert find_credentials({"KAGGLE_API_TOKEN": TOKEN}, tmp_path).variables == {}


@pytest.mark.parametrize("value", ["KGAT_first\nKGAT_second", "KGAT two words", "KGAT_gehe\xefm-0123", " \r\n"])
def test_what_no_token_holds_is_refused_with_the_variable_and_without_the_value(value, tmp_path):
    for variables in ({"KAGGLE_API_TOKEN": value}, {"KAGGLE_USERNAME": "ada", "KAGGLE_KEY": value}):
        with pytest.raises(KitError) as refused:
            find_credentials(variables, tmp_path)
        assert list(variables)[-1] in str(refused.value)
        for part in (value.strip() or "KGAT", "first", "second", "words", "0123"):
            assert part not in refused.value.found
        whole = dict.fromkeys(variables, "0123456789abcdef")  # set anew, as the error says
        assert find_credentials(whole, tmp_path).variables == {}


@pytest.mark.parametrize("editor", EDITORS)
@pytest.mark.parametrize("end", ["\n", "\r\n", ""], ids=repr)
def test_credentials_are_read_alike_from_every_editor(editor, end, tmp_path):
    encoding, mark = EDITORS[editor]
    is_plain = editor == "plain" and end != "\r\n"
    folder = tmp_path / ".kaggle"
    folder.mkdir()

    def write(name, text):
        (folder / name).write_bytes((mark + text + end).encode(encoding))
        (folder / name).chmod(0o600)

    write("kaggle.json", f'{{"username": "ada",{end}"key": "{TOKEN}"}}')
    found = find_credentials({}, tmp_path)
    assert found.source == str(folder / "kaggle.json")
    assert found.variables == ({} if is_plain else {"KAGGLE_USERNAME": "ada", "KAGGLE_KEY": TOKEN})
    assert found.hide(f"x {TOKEN} y") == "x *** y"
    write("access_token", TOKEN)
    found = find_credentials({}, tmp_path)
    assert found.source == str(folder / "access_token")
    assert found.variables == ({} if is_plain else {"KAGGLE_API_TOKEN": TOKEN})
    named = find_credentials({"KAGGLE_API_TOKEN": f"{folder / 'access_token'}\n"}, tmp_path)
    assert named.variables == {"KAGGLE_API_TOKEN": TOKEN}
    assert "KAGGLE_API_TOKEN" in named.source


def test_a_log_in_that_an_editor_has_changed_is_named_with_the_way_back(tmp_path):
    path = tmp_path / ".kaggle" / "credentials.json"
    path.parent.mkdir()
    text = f'{{"refresh_token": "{TOKEN}"}}'
    path.write_bytes(text.encode("utf-16"))
    with pytest.raises(KitError, match="kaggle auth login") as refused:
        find_credentials({}, tmp_path)
    assert str(path) in str(refused.value)
    path.write_text(text)  # as the log-in writes it
    assert find_credentials({}, tmp_path).source == str(path)


def test_a_token_file_that_is_no_text_is_named_and_no_older_source_is_taken(tmp_path):
    folder = tmp_path / ".kaggle"
    folder.mkdir()
    (folder / "access_token").write_bytes(b"\xe9\xe9")
    (folder / "kaggle.json").write_text(f'{{"username": "ada", "key": "{TOKEN}"}}')
    with pytest.raises(KitError, match="access_token"):
        find_credentials({}, tmp_path)
    (folder / "access_token").unlink()
    assert find_credentials({}, tmp_path).source.endswith("kaggle.json")


def test_the_secrets_of_a_broken_file_are_hidden_too(tmp_path):
    folder = tmp_path / ".kaggle"
    folder.mkdir()
    (folder / "kaggle.json").write_text(f'{{"username": "ada", "key": "{TOKEN}"')
    found = find_credentials({"KAGGLE_API_TOKEN": "v-secret-0123"}, tmp_path)
    assert found.hide(f"v-secret-0123 {TOKEN}") == "*** ***"


@pytest.mark.parametrize("password", ["Gehe1m-0123", "a%20b%2Fc-0123", "with:colon@0123"])
def test_the_password_of_a_proxy_is_a_secret_too(password, tmp_path):
    proxy = f"http://ada:{password}@proxy:8080"
    found = find_credentials({"KAGGLE_API_TOKEN": TOKEN, "https_proxy": proxy, "no_proxy": "localhost"}, tmp_path)
    for said in (proxy, urllib.parse.unquote(password), _basic_auth_str("ada", urllib.parse.unquote(password))):
        assert "***" in found.hide(said)
        assert "0123" not in found.hide(said)
    assert found.hide("http://proxy:8080 localhost") == "http://proxy:8080 localhost"


@pytest.mark.parametrize("password", ["Longpassw0rd#Otherhalf", "Longpassw0rd/x", "Longpassw0rd?y=1"])
def test_a_part_of_a_proxys_password_is_a_secret_too(password, tmp_path):
    found = find_credentials(
        {"KAGGLE_API_TOKEN": TOKEN, "HTTPS_PROXY": f"http://me:{password}@127.0.0.1:9"}, tmp_path
    )
    for said in ("'me:Longpassw0rd' is not a valid host", "host='Longpassw0rd'", password):
        assert "Longpassw0rd" not in found.hide(f"Failed to parse: {said}")


@pytest.mark.parametrize(
    "written", ['"{}"', "'{}'", "Bearer {}", "KAGGLE_API_TOKEN={}", "export KAGGLE_API_TOKEN='{}'"]
)
@pytest.mark.parametrize("in_a_file", [False, True])
def test_a_token_with_more_around_it_is_hidden_alone_too(in_a_file, written, tmp_path, monkeypatch):
    monkeypatch.setattr("kit.core.redaction._protected", set())
    text = written.format(TOKEN)
    if in_a_file:
        (tmp_path / ".kaggle").mkdir()
        (tmp_path / ".kaggle" / "access_token").write_text(text)
    with contextlib.suppress(KitError):
        find_credentials({} if in_a_file else {"KAGGLE_API_TOKEN": text}, tmp_path)
    assert redact(f"the variable KAGGLE_API_TOKEN: {TOKEN}") == "the variable KAGGLE_API_TOKEN: ***"


@pytest.mark.parametrize("quote", ["'", '"'])
@pytest.mark.parametrize("name", ["KAGGLE_API_TOKEN", "KAGGLE_KEY"])
def test_quotation_marks_around_a_value_are_named_and_without_them_it_is_taken(name, quote, tmp_path):
    environment = {"KAGGLE_USERNAME": "ada", name: f"{quote}{TOKEN}{quote}"}
    with pytest.raises(KitError) as refused:
        find_credentials(environment, tmp_path)
    assert refused.value.expected.startswith(f"{name} without quotation marks")
    assert refused.value.do.startswith("take them away")
    assert TOKEN not in str(refused.value)
    assert name in find_credentials(environment | {name: TOKEN}, tmp_path).source


@pytest.mark.parametrize("scheme", ["", "//", "http://", "socks5h://"])
def test_the_password_of_a_proxy_is_hidden_with_a_scheme_and_without(scheme, tmp_path):
    proxy = f"{scheme}ada:Gehe1m-0123@proxy:8080"
    found = find_credentials({"KAGGLE_API_TOKEN": TOKEN, "all_proxy": proxy}, tmp_path)
    assert found.hide(f"{proxy} Gehe1m-0123") == f"{scheme}***@proxy:8080 ***"


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
