"""Tasks for the data: download, describe and check them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from invoke import Context, Exit

from kit.tasks.command import SET, WORKSPACE, command, workspace_knobs
from kit.tasks.console import progress_bar, show_frame, show_table

if TYPE_CHECKING:
    from kit.reports.audit_report import Audit

_ORIGINS = {"kaggle": "from Kaggle", "hand": "put there by hand", "mounted": "linked to Kaggle's own copy"}


@command(
    iterable=["set_", "allow"],
    help=WORKSPACE
    | SET
    | {
        "competition": "its slug or its address (default: the competition in data/, else competition.slug)",
        "force": "download again what came from Kaggle before",
        "allow": "file-list: take files that differ from Kaggle's list of them, if tables and images fit",
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

        _show_audit(audit_workspace(folder, config, progress_bar))


@command(iterable=["set_"], help=WORKSPACE | SET)
def explore(context: Context, set_: Sequence[str] | None = None, workspace: str = ".") -> None:
    """Describe the data: tables here; figures and explore.html in WORKSPACE/explore."""
    config = workspace_knobs(Path(workspace), set_ or ())
    from kit.reports.dataset_report import describe

    report = describe(Path(workspace), config, progress_bar)
    for title, table in report.tables.items():
        show_frame(title, table)
    print(f"page: {report.page}")


@command(iterable=["set_"], help=WORKSPACE | SET)
def audit(context: Context, set_: Sequence[str] | None = None, workspace: str = ".") -> None:
    """Check the data for faults: a table here; audit.html and audit.json in WORKSPACE/audit."""
    config = workspace_knobs(Path(workspace), set_ or ())
    from kit.reports.audit_report import audit_workspace

    _show_audit(audit_workspace(Path(workspace), config, progress_bar))


def _show_audit(audit: Audit) -> None:
    """Print the findings and what to do about them. Raises Exit with code 1 if there is a fault."""
    rows = [(finding.check, finding.level, finding.text) for finding in audit.findings]
    rows += [(check, "ok", "nothing found") for check in audit.nothing_found]
    show_table("audit", ("check", "level", "what"), rows)
    for finding in audit.findings:
        if finding.level != "note":
            print(f"{finding.check}: {finding.do}")
    print(f"page: {audit.page}")
    if audit.counts["fault"]:
        raise Exit(code=1)
