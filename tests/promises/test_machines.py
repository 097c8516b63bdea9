"""Several machines under torchrun, here two agents on this one; and one machine in a job of a scheduler."""

import contextlib
import os
import random
import socket
import subprocess
import sys

import pytest
from command_line import PATIENCE_SECONDS
from repository import ROOT
from toy import TOY

from kit.runs.folder import Run, read_finished


def free_port():
    """One below those that the system hands out: other tests' connections do not take it meanwhile."""
    for port in random.SystemRandom().sample(range(20_000, 30_000), 100):
        with contextlib.suppress(OSError), socket.socket() as free:
            free.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no free port")


@pytest.mark.slow
def test_two_machines_train_one_run_as_the_readme_starts_it(toy):
    port = free_port()
    knobs = (*TOY, "training.max_epochs=1", "trainer.nodes=2", "trainer.devices=1", "trainer.accelerator=cpu")
    words = ["train", "--run", "big", "--preset", "demo", *(w for knob in knobs for w in ("--set", knob))]
    agents = [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--node-rank", str(node)),
                *("--nproc-per-node", "1", "--master-addr", "127.0.0.1", "--master-port", str(port)),
                *("-m", "--", "invoke", *words, "--workspace", str(toy)),
            ],
            cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True,
        )
        for node in range(2)
    ]  # fmt: skip
    said = [agent.communicate(timeout=PATIENCE_SECONDS)[0] for agent in agents]
    assert [agent.returncode for agent in agents] == [0, 0], said
    assert "MEMBER: 2/2" in said[1]
    assert read_finished(Run(toy, "big")).epochs == (1,)


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 2])
def test_a_job_of_slurm_trains_as_a_shell_does(devices, toy):
    """With the variables of a batch script for four tasks, none of which srun has started."""
    job = {
        "SLURM_JOB_ID": "1234", "SLURM_JOB_NAME": "train", "SLURM_NTASKS": "4", "SLURM_NTASKS_PER_NODE": "4",
        "SLURM_NNODES": "2", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0",
    }  # fmt: skip
    knobs = (*TOY, "training.max_epochs=1", f"trainer.devices={devices}", "trainer.accelerator=cpu")
    words = ["train", "--preset", "demo", *(w for knob in knobs for w in ("--set", knob)), "--workspace", str(toy)]
    done = subprocess.run(
        [sys.executable, "-m", "invoke", *words], cwd=ROOT, env=os.environ | job | {"OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "srun" not in done.stderr
    assert read_finished(Run(toy, "demo")).epochs == (1,)
