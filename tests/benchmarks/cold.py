"""From nothing to the first optimiser step, and the whole demo: against decoding, importing and bare steps."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from kit.data.competition import load_training
from kit.data.images import decode
from kit.data.synthetic.generator import write_competition
from kit.runs.folder import Split

from .detectors import config_of
from .epoch import bare_with_kept_memory, in_memory
from .growth import OF_IMAGES, grown
from .measure import Row, timed
from .sizes import Sizes

ROOT = Path(__file__).parents[2]
_FIRST_SHARE, _FIRST_SECONDS, _SECOND_SECONDS, _DEMO_SHARE = 1.25, 3, 2, 1.6
_IMPORTS = "import kit.training.train, kit.training.fit"
_UNTIL_A_STEP = """
import os, sys, time
from pathlib import Path
from kit.training.train import train
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.optim.optimizer import register_optimizer_step_post_hook
entered = []
register_module_forward_pre_hook(lambda *_: entered.append(time.monotonic()))
def end(*_):
    print(time.monotonic() - entered[0], flush=True)
    os._exit(0)
register_optimizer_step_post_hook(end)
train(Path(sys.argv[1]), "cold", "laptop", ("model.weights=none", "trainer.accelerator=cpu", *sys.argv[2:]))
"""


def rows(sizes: Sizes, folder: Path) -> Iterator[Row]:
    """The rows of this module."""
    place, px = folder / "cold", sizes.size_px
    write_competition(place, 7, train_images=sizes.cold_images, test_images=8, size_px=px)
    files = sorted((place / "data" / "train").glob("*.png"))
    knobs = (f"model.image_size_px={sizes.laptop_px}", "competition.expected_ids=8")
    importing = timed(lambda: _python(_IMPORTS))
    decoding = timed(lambda: _decode(files))
    steps: list[float] = []
    first, second = (
        timed(lambda: steps.append(float(_python(_UNTIL_A_STEP, str(place), *knobs)))) for _ in range(2)
    )
    limit = _FIRST_SHARE + _FIRST_SECONDS / (decoding + importing)
    yield Row("cold", f"`invoke train` of {len(files)} PNGs of {px} px until its first step",
              "decoding each once on all cores, importing what training imports", "s", first, decoding + importing,
              "times as much", limit=round(limit, 3),
              note=f"limit: {_FIRST_SHARE} times + {_FIRST_SECONDS} s; decoding {decoding:.1f} s; "
                   f"the step itself {steps[0]:.1f} s")  # fmt: skip
    yield Row("cold", "the same again, cache and audit there", "importing what training imports", "s", second,
              importing, "apart", limit=_SECOND_SECONDS, note=f"the step itself {steps[1]:.1f} s")  # fmt: skip
    yield _demo(sizes, folder / "demo")
    yield from grown(sizes.large_few, sizes.large_many, px, folder / "growth", OF_IMAGES)


def _demo(sizes: Sizes, workspace: Path) -> Row:
    """The whole demo against as many bare steps as it takes; at the tiny size only its steps."""
    config = config_of("demo", sizes)
    write_competition(workspace / "steps", 3, size_px=256, train_images=sizes.demo_images, test_images=8)
    data = load_training(workspace / "steps", config)
    held = data.image_ids[: round(config.data.validation_share * len(data.image_ids))]
    split = Split(data.labels, data.image_ids, (held,), data.table_sha256)
    batches = in_memory(config, split, data)
    bare = config.training.max_epochs * bare_with_kept_memory(config, batches, len(data.labels))
    shutil.rmtree(workspace / "steps")
    verb = ["demo", "--workspace", str(workspace / "demo")] if sizes.whole_demo else ["--list"]
    whole = timed(lambda: _run(["-m", "invoke", *verb]))
    return Row("cold", "`invoke demo`, whole", "its own bare training steps", "s", whole, bare, "times as much",
               limit=_DEMO_SHARE)  # fmt: skip


def _decode(files: Sequence[Path]) -> None:
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(decode, files))


def _python(code: str, *arguments: str) -> str:
    return _run(["-c", code, *arguments])


def _run(arguments: Sequence[str]) -> str:
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return done.stdout
