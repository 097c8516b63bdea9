"""The number of a process in a training: set by a launcher, or refused."""

import os

import pytest

from kit.core.errors import KitError
from kit.runs.locks import rank, require_launcher

TASKS = ("SLURM_PROCID", "JSM_NAMESPACE_RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK")
NAMES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", *TASKS)


@pytest.fixture
def environment(monkeypatch):
    def set_to(**values):
        for name in NAMES:
            monkeypatch.delenv(name, raising=False)
        for name, value in values.items():
            monkeypatch.setenv(name, value)

    return set_to


@pytest.mark.parametrize(
    ("values", "number"),
    [
        ({}, 0), ({"RANK": ""}, 0), ({"RANK": "0"}, 0), ({"LOCAL_RANK": "0"}, 0),
        ({"RANK": "1", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "host"}, 1),  # torchrun, second machine
        ({"LOCAL_RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}, 1),  # Lightning's own launcher
        ({"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}, 0),
    ],
)  # fmt: skip
def test_a_launcher_numbers_its_processes(values, number, environment):
    environment(**values)
    require_launcher(1)
    assert rank() == number


@pytest.mark.parametrize("name", ["RANK", "LOCAL_RANK"])
def test_the_first_number_without_a_launcher_is_that_of_one_process_only(name, environment):
    """Lightning would wait for processes that nobody starts, or start one that takes itself for the first."""
    environment(**{name: "0"})
    require_launcher(1)
    with pytest.raises(KitError, match=f"{name} in the environment"):
        require_launcher(2)
    environment(**{name: "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"})
    require_launcher(2)
    environment()
    require_launcher(2)


@pytest.mark.parametrize(
    "values",
    [
        {"RANK": "1"}, {"RANK": "3", "WORLD_SIZE": "8"}, {"RANK": "3", "MASTER_ADDR": "host"}, {"LOCAL_RANK": "1"},
        {"RANK": "2", "WORLD_SIZE": "2", "MASTER_ADDR": "host"}, {"RANK": "x"}, {"RANK": "-1"}, {"RANK": "1.0"},
        {"RANK": "1", "WORLD_SIZE": "many", "MASTER_ADDR": "host"}, {"RANK": "\u0663"},
    ],
)  # fmt: skip
def test_a_number_without_a_launcher_waits_for_nobody(values, environment):
    environment(**values)
    with pytest.raises(KitError, match="env -u RANK -u LOCAL_RANK invoke train") as caught:
        require_launcher(1)
    assert next(iter(values.values())) in caught.value.found
    environment()  # as advised
    require_launcher(1)
    assert rank() == 0


@pytest.mark.parametrize("name", TASKS)
def test_a_shell_or_a_first_task_of_a_scheduler_trains_as_anywhere(name, environment):
    """A login shell on a node has these variables too, and batch scripts have task 0."""
    for values in ({name: "0"}, {name: ""}, {name: "0", "SLURM_NTASKS": "4", "SLURM_JOB_NAME": "x"}):
        environment(**values)
        require_launcher(1)
        require_launcher(2)  # Lightning starts the other
        assert rank() == 0
    environment(**{name: "3", "RANK": "1", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "host"})
    require_launcher(2)  # torchrun in a task on each node
    assert rank() == 1


@pytest.mark.parametrize("number", ["1", "12", "x", "-1", "\u0660"])
@pytest.mark.parametrize("name", TASKS)
def test_a_further_task_of_a_scheduler_is_refused_before_anything_begins(name, number, environment):
    environment(**{name: number})
    for processes in (1, 2):
        with pytest.raises(KitError, match=f"env -u {name} invoke train") as caught:
            require_launcher(processes)
        assert f"{name}={number!r}" in caught.value.found
    environment()  # as advised
    require_launcher(1)


@pytest.mark.parametrize("name", ["RANK", "LOCAL_RANK", *TASKS])
def test_a_variable_without_a_value_is_gone_before_lightning_reads_a_number(name, environment):
    environment(**{name: ""})
    require_launcher(1)
    assert name not in os.environ
