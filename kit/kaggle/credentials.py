"""Find Kaggle's credentials before its client is imported: without them its import prints, waits and exits.

The sources and their precedence are the client's own; see ``sources``.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kit.core.errors import KitError

HOW_TO_GET = (
    "log in with `kaggle auth login`, or make a token at https://www.kaggle.com/settings/api and "
    "`export KAGGLE_API_TOKEN=...`"
)
_HIDDEN = "***"
_READABLE_BY_OTHERS = 0o044
_SHORTEST_SECRET = 4  # a shorter one is a placeholder; redacting it would garble the text
log = logging.getLogger("kit")


@dataclass(frozen=True)
class Credentials:
    """The source of the credentials in use, and the secrets of all sources, which must never be shown."""

    source: str
    secrets: tuple[str, ...] = field(default=(), repr=False)

    def hide(self, text: str) -> str:
        """The text with every secret replaced by asterisks."""
        for secret in sorted(self.secrets, key=len, reverse=True):  # a secret may begin with another
            if len(secret) >= _SHORTEST_SECRET:
                text = text.replace(secret, _HIDDEN)
        return text


def sources(environment: Mapping[str, str], home: Path) -> tuple[str, ...]:
    """Every source of credentials, in the order of precedence."""
    return (
        "the variable KAGGLE_API_TOKEN",
        str(home / ".kaggle" / "access_token"),
        str(_config_folder(environment, home) / "kaggle.json"),
        "the variables KAGGLE_USERNAME and KAGGLE_KEY",
        str(home / ".kaggle" / "credentials.json"),
    )


def find_credentials(environment: Mapping[str, str] = os.environ, home: Path | None = None) -> Credentials:
    """The credentials of the first source that has any, with the secrets of all sources.

    Warns of a kaggle.json that other users can read; does not connect to Kaggle. Raises KitError with the list of
    sources if none has credentials.
    """
    folder = Path.home() if home is None else home
    available = _available(environment, folder)
    for source, secrets in available:
        hidden = list(secrets)
        with contextlib.suppress(KitError):  # a broken file of a later source does not matter
            for _, others in available:
                hidden += others
        return Credentials(source, tuple(hidden))
    searched = "\n".join(
        f"          {number}. {source}" for number, source in enumerate(sources(environment, folder), start=1)
    )
    raise KitError("credentials for Kaggle", f"none in these sources:\n{searched}", HOW_TO_GET)


def _available(environment: Mapping[str, str], home: Path) -> Iterator[tuple[str, list[str]]]:
    """Every source that has credentials, with its secrets, in the order of precedence."""
    token, access, legacy, pair, oauth = sources(environment, home)
    variable = environment.get("KAGGLE_API_TOKEN", "")
    if variable:  # the token itself, or the path of a file with it
        content = _token_file(Path(variable))
        if content or not _exists(Path(variable)):
            yield token, [content or variable]
    for path in (Path(access), Path(f"{access}.txt")):
        content = _token_file(path)
        if content:
            yield str(path), [content]
    file = _json_file(Path(legacy))
    user = environment.get("KAGGLE_USERNAME") or file.get("username")
    key = environment.get("KAGGLE_KEY") or file.get("key")
    if user and key:
        from_file = not environment.get("KAGGLE_KEY")  # a variable overrides the same entry of the file
        if from_file:
            _warn_if_readable(Path(legacy))
        yield (legacy if from_file else pair), [key, *filter(None, [file.get("key")])]
    stored = _json_file(Path(oauth))
    if stored.get("refresh_token"):
        yield oauth, [value for name in ("refresh_token", "access_token") if (value := stored.get(name))]


def _config_folder(environment: Mapping[str, str], home: Path) -> Path:
    if environment.get("KAGGLE_CONFIG_DIR"):
        return Path(environment["KAGGLE_CONFIG_DIR"])
    folder = home / ".kaggle"
    xdg = environment.get("XDG_CONFIG_HOME") or str(home / ".config")
    return folder if _exists(folder) or not _exists(Path(xdg) / "kaggle") else Path(xdg) / "kaggle"


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a token may be too long for a path
        return False


def _token_file(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip() if path.is_file() else ""
    except (OSError, UnicodeDecodeError):
        return ""


def _json_file(path: Path) -> dict[str, str]:
    """The texts in a JSON file by name; empty if there is no file. Raises KitError if it cannot be read."""
    if not _exists(path):
        return {}
    do = f"correct or delete it, then {HOW_TO_GET}"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        reason = (
            error.strerror if isinstance(error, OSError) else "broken"
        )  # never the file's text: it holds the key
        raise KitError(f"{path} to be readable JSON with credentials", reason or "unreadable", do) from None
    if not isinstance(content, dict):
        raise KitError(f"{path} to hold credentials", type(content).__name__, do)
    return {name: value for name, value in content.items() if isinstance(value, str)}


def _warn_if_readable(path: Path) -> None:
    if os.name == "posix" and path.stat().st_mode & _READABLE_BY_OTHERS:
        log.warning("%s can be read by other users: `chmod 600 %s`", path, path)
