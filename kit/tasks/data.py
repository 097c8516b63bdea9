"""Tasks for the data: download, describe and check them."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from invoke import Context, Exit

from kit.core.errors import KitError
from kit.tasks.command import SET, WORKSPACE, command, number, view_command, whole_number, workspace_knobs
from kit.tasks.console import progress_bar, show_frame, show_table

if TYPE_CHECKING:
    from kit.importing.record import ImportRecord
    from kit.reports.against import CommonImages
    from kit.reports.audit_report import Audit

_ORIGINS = {"kaggle": "from Kaggle", "hand": "put there by hand", "mounted": "linked to Kaggle's own copy"}


@command(
    iterable=["set_", "allow"],
    help=WORKSPACE
    | SET
    | {
        "competition": "its slug or its address (default: the competition in data/, else competition.slug)",
        "force": "download again what came from Kaggle before",
        "allow": "a fault found by the audit, or file-list: files that differ from Kaggle's list; may be repeated",
    },
)
def download(
    context: Context,
    competition: str | None = None,
    force: bool = False,
    set_: Sequence[str] | None = None,
    allow: Sequence[str] | None = None,
    workspace: str = ".",
) -> None:
    """Download the competition's files into data/ and verify them; continues after an interruption."""
    from kit.kaggle.download import download as download_competition

    folder = Path(workspace)
    config = workspace_knobs(folder, set_ or ())
    record, already = download_competition(folder, config, competition, force, progress_bar, tuple(allow or ()))
    print(
        f"competition {record.slug}: {'all is there' if already else 'checked'}, {len(record.files)} files "
        f"({sum(record.files.values()) / 2**20:.1f} MiB) in {folder / 'data'}, {_ORIGINS[record.origin]}"
    )
    if not already:
        from kit.reports.audit_report import audit_workspace

        _show_audit(audit_workspace(folder, config, progress_bar), tuple(allow or ()))


@command(iterable=["set_"], help=WORKSPACE | SET)
def explore(context: Context, set_: Sequence[str] | None = None, workspace: str = ".") -> None:
    """Describe the data: tables here; figures and explore.html in WORKSPACE/explore."""
    config = workspace_knobs(Path(workspace), set_ or ())
    from kit.reports.dataset_report import describe

    report = describe(Path(workspace), config, progress_bar)
    for title, table in report.tables.items():
        show_frame(title, table)
    print(f"images: `{view_command(workspace, '--data')}`")
    print(f"page: {report.page}")


@command(
    iterable=["set_"],
    help=WORKSPACE
    | SET
    | {"against": "workspace of a first stage: its training images must be neither in test/ nor in train/ here"},
)
def audit(
    context: Context, set_: Sequence[str] | None = None, against: str | None = None, workspace: str = "."
) -> None:
    """Check the data for faults: a table here; audit.html and audit.json in WORKSPACE/audit."""
    config = workspace_knobs(Path(workspace), set_ or ())
    if against is not None:
        from kit.reports.against import compare_sets

        _show_common_images(compare_sets(Path(workspace), Path(against), config, progress_bar), against)
    from kit.reports.audit_report import audit_workspace

    _show_audit(audit_workspace(Path(workspace), config, progress_bar))


@command(
    name="import",
    help={
        "from": "the publisher's form: vindr, rsna, siim, chestx-det, nih, coco, yolo or voc",
        "source": "the set's folder, a COCO file, or a data.yaml",
        "into": "folder of the new workspace",
        "labels": "CSV source,target: the set's labels under other names; an empty target leaves a label out",
        "readers": "fuse several readers' boxes of a finding (default), all, or the name of one reader",
        "size": "longer side of the new images in pixels, at most (default: 1024)",
        "no-empty": "leave out the images without a box",
        "empty": "share of the images without a box that is kept, 0 to 1 (default: 1)",
    },
)
def import_set(
    context: Context,
    from_: str,
    source: str,
    into: str,
    labels: str | None = None,
    readers: str = "fuse",
    size: str = "1024",
    no_empty: bool = False,
    empty: str | None = None,
) -> None:
    """Make a workspace of a boxed set in its publisher's form (VinDr, RSNA, COCO, ..., DICOM too)."""
    from kit.importing import ImportOptions, carry_out, finished_import, plan_import

    size_px, share = whole_number("--size", size, 1), number("--empty", empty or "1")
    if no_empty and empty is not None:
        raise KitError("--empty or --no-empty", "both", "leave one out: --no-empty is --empty 0")
    if not 0 <= share <= 1:
        raise KitError("--empty with a share, 0 to 1", repr(empty), "write --empty 0.2, for example")
    options = ImportOptions(from_, Path(source), Path(into), Path(labels) if labels else None, readers,
                            size_px or 1, 0.0 if no_empty else share)  # fmt: skip
    record = finished_import(options)
    if record:
        print(f"already imported: {_imported(record)}, into {Path(into) / 'data'}")
        return
    plan = plan_import(options, progress_bar)
    show_frame("labels", plan.labels)
    for note in plan.notes:
        print(note)
    unclear = plan.labels[(plan.labels["near"] != plan.labels["becomes"]) & (plan.labels["near"] != "")]
    if len(unclear) and labels is None:
        print("near: labels of the competition; --labels MAP.csv (source,target) renames labels or leaves them out")
    record = carry_out(plan, progress_bar)
    print(f"imported {_imported(record)}, into {Path(into) / 'data'}; origins: {Path(into) / 'data' / 'import'}")
    if record.test_images:
        flags = f"--workspace {shlex.quote(into)} --set competition.expected_ids={record.test_images}"
        print(f"to train there: invoke train {flags}")


def _imported(record: ImportRecord) -> str:
    test = f", {record.test_images} test images without truth" if record.test_images else ""
    return f"{record.train_images} images with {record.boxes} boxes{test}"


def _show_common_images(found: CommonImages, against: str) -> None:
    """Print what two sets have in common. Raises Exit with code 1 if images of the test are among it."""
    if found.page is None:
        print(f"no image of {against} is in test/ or train/ here")
        return
    rows = [(finding.check, finding.level, finding.text) for finding in found.findings]
    show_table(f"audit against {against}", ("check", "level", "what"), rows)
    for finding in found.findings:
        print(f"{finding.check}: {finding.do}")
    print(f"page: {found.page}")
    if any(finding.level == "fault" for finding in found.findings):
        raise Exit(code=1)


def _show_audit(audit: Audit, allow: Sequence[str] = ()) -> None:
    """Print the findings and what to do about them. Raises Exit with code 1 if there is a fault not allowed."""
    rows = [(finding.check, finding.level, finding.text) for finding in audit.findings]
    rows += [(check, "ok", "nothing found") for check in audit.nothing_found]
    show_table("audit", ("check", "level", "what"), rows)
    for finding in audit.findings:
        if finding.level != "note":
            print(f"{finding.check}: {finding.do}")
    print(f"page: {audit.page}")
    if any(finding.level == "fault" and finding.check not in allow for finding in audit.findings):
        raise Exit(code=1)
