"""Several machines under torchrun, here two agents on this one: started at once, they train one run."""

import os
import socket
import subprocess
import sys

import pytest
from repository import ROOT
from toy import TOY

from kit.runs.folder import Run, read_finished


@pytest.mark.slow
def test_two_machines_train_one_run_as_the_readme_starts_it(toy):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
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
    said = [agent.communicate(timeout=300)[0] for agent in agents]
    assert [agent.returncode for agent in agents] == [0, 0], said
    assert "MEMBER: 2/2" in said[1]
    assert read_finished(Run(toy, "big")).epochs == (1,)
