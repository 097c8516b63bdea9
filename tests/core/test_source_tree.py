"""The commit of the kit's own checkout, and of no other repository."""

import os
import shutil
import subprocess
import sys

import pytest
from repository import ROOT

SAYS = "from kit.core.source_tree import git_state; print(git_state())"


def git(folder, *words):
    names = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
    done = subprocess.run(["git", *names, *words], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def outer(tmp_path):
    """A repository that holds a folder with a copy of the kit's core."""
    shutil.copytree(ROOT / "kit" / "core", tmp_path / "outer" / "inner" / "kit" / "core")
    (tmp_path / "outer" / "inner" / "kit" / "__init__.py").touch()
    git(tmp_path, "init", "-q", "outer")
    git(tmp_path / "outer", "commit", "-q", "--allow-empty", "-m", "theirs")
    return tmp_path / "outer"


def state_in(folder, **variables):
    env = {**os.environ, "PYTHONPATH": str(folder), **variables}
    done = subprocess.run(
        [sys.executable, "-c", SAYS], cwd=folder, env=env, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.mark.parametrize("is_ignored", [False, True])
def test_a_kit_inside_another_repository_has_no_commit(is_ignored, outer):
    if is_ignored:
        (outer / ".gitignore").write_text("inner\n")
    else:
        git(outer, "add", ".")
        git(outer, "commit", "-q", "-m", "a copy")
    assert state_in(outer / "inner") == "{}"


def test_a_checkout_inside_another_repository_has_its_own_commit(outer):
    git(outer / "inner", "init", "-q")
    git(outer / "inner", "add", ".")
    git(outer / "inner", "commit", "-q", "-m", "ours")
    own = git(outer / "inner", "rev-parse", "HEAD")
    (outer / "inner" / ".gitignore").write_text("__pycache__\n")
    assert state_in(outer / "inner") == str({"commit": own, "clean": False})
    # Git sets this variable for a hook of the outer repository.
    assert state_in(outer / "inner", GIT_DIR=str(outer / ".git")) == str({"commit": own, "clean": False})


def test_a_kit_outside_any_repository_has_no_commit(outer):
    shutil.rmtree(outer / ".git")
    assert state_in(outer / "inner") == "{}"
