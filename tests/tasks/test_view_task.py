"""`invoke view` as it is typed: one source, the page as the last line, and every refusal's advice works."""

import shlex

import pytest
from command_line import assert_refused, invoke
from toy import second_run

from kit.core.errors import KitError
from kit.runs.folder import Run
from kit.tasks.command import view_command
from kit.tasks.view import _require_one_source


@pytest.mark.parametrize(
    ("flags", "out"),
    [
        ({"--data", "--run"}, {"--run"}),
        ({"--data", "--submission"}, {"--submission"}),
        ({"--submission", "--run", "--against"}, {"--against", "--run"}),
        ({"--run", "--set"}, {"--set"}),
        ({"--submission", "--set"}, {"--set"}),
    ],
)
def test_flags_of_two_sources_are_refused_until_one_is_left_out(flags, out):
    with pytest.raises(KitError) as caught:
        _require_one_source(flags)
    assert caught.value.do.startswith(f"leave out {', '.join(sorted(out))}")
    _require_one_source(flags - out)  # as it says


@pytest.mark.parametrize("flags", [set(), {"--run"}, {"--run", "--against"}, {"--against"}, {"--data", "--set"}])
def test_the_flags_of_one_source_are_taken(flags):
    _require_one_source(flags)


@pytest.mark.parametrize(
    ("workspace", "expected"),
    [
        (".", "invoke view --run a"),
        ("demo", "invoke view --run a --workspace demo"),
        ("my work", "invoke view --run a --workspace 'my work'"),
    ],
)
def test_the_command_that_other_verbs_print_names_their_workspace(workspace, expected):
    assert view_command(workspace, "--run", "a") == expected


@pytest.mark.slow
def test_each_source_has_its_page_named_in_the_last_line(evaluated):
    second_run(Run(evaluated, "demo"), "other")
    place = ("--workspace", evaluated, "--no-open")
    done = invoke("predict", "--run", "demo", "--workspace", evaluated)
    (printed,) = [line for line in done.stdout.splitlines() if line.startswith("images: ")]
    told = shlex.split(printed.removeprefix("images: ").strip("`"))  # as it says, from the same folder
    assert told[:2] == ["invoke", "view"]
    for words, page in (
        (("--run", "demo"), "runs/demo/view.html"),
        (("--run", "demo", "--against", "other"), "comparisons/demo-vs-other/view.html"),
        (told[2:], "submissions/0001-run-demo/view.html"),
        (("--data",), "explore/view.html"),
    ):
        done = invoke("view", *words, *(place if "--workspace" not in words else ("--no-open",)))
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-1] == f"page: {evaluated / page}"
        assert (evaluated / page).is_file()
    for words, said in (
        (("--run", "demo", "--against", "demo"), "two different runs"),
        (("--run", "demmo"), "nearest: demo"),
        (("--run", "demo", "--against", "othr"), "nearest: other"),
        (("--submission", "7"), "the newest are: 0001"),
        (("--submission", "x"), "write --submission 1"),
        (("--data", "--run", "demo"), "leave out --run"),
    ):
        assert_refused(invoke("view", *words, *place), said)
