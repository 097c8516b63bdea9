"""Each device of the one-box choice, alone and with the others, scored on the synthetic test's truth.

python tests/support/devices_on_the_truth.py WORKSPACE NAME=RUN,RUN,... [KEY=VALUE,KEY=VALUE ...]

RUNs are finished trainings of one recipe with different seeds. Each KEY=VALUE,... is a device's knobs; without any
it is every device. Prints a row of a Markdown table for each: the score of each run, its paired difference to the
same run without, the mean of the differences, and in how many runs ``evaluate`` kept the device.
"""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd

from kit.choosing import one_box
from kit.config import Config
from kit.data.competition import patients
from kit.data.synthetic.generator import TRUTH
from kit.metrics.average_precision import Matches, match, mean_average_precision
from kit.metrics.bootstrap import paired_difference
from kit.submission.folders import read_submissions

SEED = 0
TODAY = ""
AUTO = ("fusion.method=auto,fusion.iou=auto", "decision.localisation=auto", "decision.box_scale=auto")
DEVICES = ("fusion.method=wbf_or", "fusion.method=wbf_sum", *AUTO, ",".join(AUTO))


def answered(workspace: Path, run: str, knobs: str) -> tuple[Matches, list[str]]:
    """The matched answers of a run with these knobs, and the devices that its report kept."""
    settings = [part for knob in knobs.split(",") if knob for part in ("--set", knob)]
    common = ["--run", run, *settings, "--workspace", str(workspace)]
    subprocess.run([sys.executable, "-m", "invoke", "evaluate", *common], check=True, stdout=subprocess.DEVNULL)
    message = f"{run} {knobs or 'as it is'}"
    subprocess.run([sys.executable, "-m", "invoke", "predict", "--message", message, *common],
                   check=True, stdout=subprocess.DEVNULL)  # fmt: skip
    submission = read_submissions(workspace / "submissions")[-1]
    truth = pd.read_csv(workspace / TRUTH)
    answers = one_box.answers_to_detections(pd.read_csv(submission.csv))
    report = json.loads((workspace / "runs" / run / "report.json").read_text(encoding="utf-8"))
    kept = [name for name, device in report.get("devices", {}).items() if device["kept"]]
    return match(truth, answers, sorted(set(truth["image_id"]))), kept


def main(workspace: Path, recipe: str, *devices: str) -> None:
    """Print the table of one recipe."""
    title, _, names = recipe.partition("=")
    runs = names.split(",")
    images = pd.read_csv(workspace / TRUTH)["image_id"].unique()
    people = patients(images, Config().data.patient_pattern, {})
    today = {run: answered(workspace, run, TODAY)[0] for run in runs}
    columns = " | ".join(runs)
    print(f"| {title} | {columns} | mean difference | kept in |\n|---|{'---|' * len(runs)}---|---|")
    scores = " | ".join(f"{mean_average_precision(today[run]):.3f}" for run in runs)
    print(f"| as it is | {scores} | | |", flush=True)
    for knobs in devices or DEVICES:
        cells, gains, kept = [], [], []
        for run in runs:
            found, of_run = answered(workspace, run, knobs)
            gain = paired_difference(found, today[run], people, SEED).overall
            cells.append(f"{gain.value:+.3f} ({gain.low:+.3f} to {gain.high:+.3f})")
            gains.append(gain.value)
            kept += of_run
        counts = ", ".join(f"{name} {kept.count(name)}" for name in sorted(set(kept))) or "none"
        print(f"| `{knobs}` | {' | '.join(cells)} | {sum(gains) / len(gains):+.3f} | {counts} |", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
