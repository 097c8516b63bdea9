"""Where Kaggle's credentials are looked for, before its client (which prints, waits and exits) is imported.

The places and their precedence are the client's own; see ``sources``.
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
_SHORTEST_SECRET = 4  # anything shorter is a placeholder, and hiding it would garble the text
log = logging.getLogger("kit")


@dataclass(frozen=True)
class Credentials:
    """Where the credentials in use come from, and the texts that must never be shown, also of other sources."""

    source: str
    secrets: tuple[str, ...] = field(default=(), repr=False)

    def hide(self, text: str) -> str:
        """The text with every secret replaced by asterisks."""
        for secret in sorted(self.secrets, key=len, reverse=True):  # one may be the beginning of another
            if len(secret) >= _SHORTEST_SECRET:
                text = text.replace(secret, _HIDDEN)
        return text


def sources(environment: Mapping[str, str], home: Path) -> tuple[str, ...]:
    """Every place that is looked at, in order."""
    return (
        "the variable KAGGLE_API_TOKEN",
        str(home / ".kaggle" / "access_token"),
        str(_config_folder(environment, home) / "kaggle.json"),
        "the variables KAGGLE_USERNAME and KAGGLE_KEY",
        str(home / ".kaggle" / "credentials.json"),
    )


def find_credentials(environment: Mapping[str, str] = os.environ, home: Path | None = None) -> Credentials:
    """The first credentials there are, with the secrets of all. Raises KitError with the places if there are none.

    Warns of a kaggle.json that other users can read. Nothing is asked of Kaggle.
    """
    place = Path.home() if home is None else home
    found = _found(environment, place)
    for source, secrets in found:
        hidden = list(secrets)
        with contextlib.suppress(KitError):  # a broken file behind the one in use is nobody's trouble
            for _, others in found:
                hidden += others
        return Credentials(source, tuple(hidden))
    looked_at = "\n".join(
        f"          {number}. {each}" for number, each in enumerate(sources(environment, place), 1)
    )
    raise KitError("credentials for Kaggle", f"none in these places:\n{looked_at}", HOW_TO_GET)


def _found(environment: Mapping[str, str], home: Path) -> Iterator[tuple[str, list[str]]]:
    token, access, legacy, pair, oauth = sources(environment, home)
    given = environment.get("KAGGLE_API_TOKEN", "")
    if given:  # the token itself, or the path of a file with it
        content = _token_file(Path(given))
        if content or not _exists(Path(given)):
            yield token, [content or given]
    for path in (Path(access), Path(f"{access}.txt")):
        content = _token_file(path)
        if content:
            yield str(path), [content]
    file = _json_file(Path(legacy))
    user = environment.get("KAGGLE_USERNAME") or file.get("username")
    key = environment.get("KAGGLE_KEY") or file.get("key")
    if user and key:
        from_file = not environment.get("KAGGLE_KEY")  # a variable goes before the same entry of the file
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
    """The texts of a JSON file; none where there is no file. Raises KitError where it cannot be read."""
    if not _exists(path):
        return {}
    do = f"correct or delete it, then {HOW_TO_GET}"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "broken"  # never the text: it holds the key
        raise KitError(f"{path} to be readable JSON with credentials", reason or "unreadable", do) from None
    if not isinstance(content, dict):
        raise KitError(f"{path} to hold credentials", type(content).__name__, do)
    return {name: value for name, value in content.items() if isinstance(value, str)}


def _warn_if_readable(path: Path) -> None:
    if os.name == "posix" and path.stat().st_mode & _READABLE_BY_OTHERS:
        log.warning("%s can be read by other users: `chmod 600 %s`", path, path)
