"""A mistyped verb or flag: the nearest names, for every verb and every flag that there is."""

import subprocess
import sys

import pytest
from invoke import Exit, Program
from repository import ROOT

import tasks
from kit.tasks.start import require_known_words

VERBS = {verb.name: verb for verb in tasks.namespace.to_contexts()}
NAMES = [name for verb in VERBS.values() for name in (verb.name, *verb.aliases)]
FLAGS = [(name, flag) for name, verb in VERBS.items() for flag in verb.flags if flag.startswith("--")]


def check(*words):
    program = Program()
    program.parse_core(["invoke", *words])
    require_known_words(program, tasks.namespace)


def refused(*words):
    with pytest.raises(Exit) as caught:
        check(*words)
    assert caught.value.code == 1
    return caught.value.message


@pytest.mark.parametrize("name", NAMES)
def test_a_mistyped_verb_has_its_nearest_names(name):
    mistyped = name[:-2] + name[-1] + name[-2] + "x"
    for words in ((mistyped,), ("--help", mistyped)):
        said = refused(*words)
        assert repr(mistyped) in said
        assert name in said.partition("nearest: ")[2]
    check("--help", name)  # as advised
    check("--list")


@pytest.mark.parametrize(("name", "flag"), FLAGS)
def test_a_mistyped_flag_has_its_nearest_names(name, flag):
    mistyped = f"{flag[:-1]}q{flag[-1]}"
    said = refused(name, mistyped, "1")
    assert repr(mistyped) in said
    assert flag in said.partition("nearest: ")[2]
    check(name, "--help")  # as advised
    needs_value = VERBS[name].flags[flag].takes_value
    check(name, *(["--run", "x"] if name.startswith("kernel") and flag != "--run" else []),
          flag, *(["1"] if needs_value else []))  # fmt: skip


@pytest.mark.parametrize(
    "words", [("train", "--run", "a", "--run", "b"), ("train", "mine"), ("submit", "--message", "a", "b")]
)
def test_a_value_without_its_flag_is_no_verb(words):
    said = refused(*words)
    assert f"found:    {words[-1]!r}" in said
    assert "write the flag before its value, each flag once" in said
    check("train", "--run", "b")  # as advised
    check("submit", "--message", "a b")


def test_a_mistyped_flag_of_invoke_itself_is_no_flag_of_a_verb():
    assert "'--lsit'" in refused("--lsit")


def test_a_value_may_stand_without_its_flag_where_the_verb_needs_it():
    check("kernel.status", "mine", "--wait")
    assert "nearest: --wait" in refused("kernel.status", "--wiat", "mine")


def test_other_faults_of_a_line_are_said_by_invoke():
    check("train", "--run")
    check("kernel.push")


def test_a_collection_that_nobody_runs_is_only_looked_up():
    with pytest.raises(AttributeError):
        tasks.__getattr__("other")


def test_the_check_leaves_every_flag_its_help():
    """Invoke takes the help out of a task when it reads the flags, so a second reading finds none."""
    command = [sys.executable, "-m", "invoke", "--help", "import"]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "folder of the new workspace" in said
