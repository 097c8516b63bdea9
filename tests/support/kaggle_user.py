"""A user in front of the test server: `python -m invoke` in a process of its own, and nothing secret anywhere."""

import subprocess
import sys
from pathlib import Path

from command_line import PATIENCE_SECONDS
from kaggle_server import KEY, REFRESH_TOKEN, TOKEN, KaggleServer
from repository import ROOT

SECRETS = (TOKEN, KEY, REFRESH_TOKEN)
QUICK = ("--set", "kaggle.pause_seconds=0.01", "--set", "kaggle.attempts=3")


class User:
    """A workspace and a home folder. Whatever is said or written is searched for secrets after each command."""

    def __init__(self, server: KaggleServer, folder: Path, token: str | None = TOKEN, **variables: str) -> None:
        self.workspace, self.home = folder / "workspace", folder / "home"
        self.workspace.mkdir(parents=True, exist_ok=True)
        self.home.mkdir(exist_ok=True)
        self.environment = server.environment(self.home, token) | variables

    def start(self, *words, **options) -> subprocess.Popen:
        """Start a verb in this workspace without waiting for it."""
        command = [sys.executable, "-m", "invoke", *map(str, words), "--workspace", str(self.workspace)]
        return subprocess.Popen(
            command, cwd=ROOT, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            **options,
        )  # fmt: skip

    def invoke(self, *words, **options) -> subprocess.CompletedProcess:
        """Run a verb in this workspace to its end."""
        return self.ended(self.start(*words, **options))

    def ended(self, process: subprocess.Popen, answer: str | None = None) -> subprocess.CompletedProcess:
        """Wait for a started verb, with an answer on its standard input; no traceback, no secret."""
        out, err = process.communicate(answer, timeout=PATIENCE_SECONDS)
        assert "Traceback" not in out + err, err
        self.assert_nothing_secret(out + err)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def refused(self, *words, says=(), **options) -> str:
        """Run a verb that must end with a KitError; what it said."""
        done = self.invoke(*words, **options)
        assert done.returncode == 1, done.stdout + done.stderr
        assert "expected:" in done.stderr
        assert "do: " in done.stderr
        for text in says:
            assert text in done.stderr, done.stderr
        return done.stderr

    def assert_nothing_secret(self, said: str) -> None:
        credentials = self.home / ".kaggle"
        written = [path for folder in (self.workspace, self.home) for path in folder.rglob("*") if path.is_file()]
        for secret in SECRETS:
            assert secret not in said
            for path in written:
                if credentials not in path.parents:
                    assert secret.encode() not in path.read_bytes(), path
