"""Find Kaggle's credentials before its client is imported: without them its import prints, waits and exits.

The sources and their precedence are the client's own; see ``sources``. What the client would misread (a line end in
a variable, a file in UTF-16) is read here and handed to it in variables.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import re
import shlex
import urllib.parse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kit.core.errors import KitError, reason
from kit.core.redaction import forms, protect, without
from kit.core.text_files import decoded, is_plain, undecodable

HOW_TO_GET = (
    "log in with `kaggle auth login`, or make a token at https://www.kaggle.com/settings/api and "
    "`export KAGGLE_API_TOKEN=...`"
)
TOKEN, USER, KEY = "KAGGLE_API_TOKEN", "KAGGLE_USERNAME", "KAGGLE_KEY"
_READABLE_BY_OTHERS = 0o044
_IN_A_HEADER = re.compile(r"[!-~]+")
_SECRET_NAMES = ("key", "refresh_token", "access_token")
_QUOTED_WHOLE = re.compile("""(["']).*\\1""")
_QUOTED = re.compile(r'"([^"]{16,})"')  # in a file that is no JSON
_ENDS_AN_ADDRESS = re.compile("[/?#]")
# http://USER:PASSWORD@host or USER:PASSWORD@host, also if it is no valid address
_PROXY = re.compile(r"^\s*(?:(?:[A-Za-z][\w+.-]*:)?//)?([^/@]*?):(.+)@")
# The token in what is none alone: "TOKEN" in quotes, Bearer TOKEN, NAME=TOKEN
_WORDS = re.compile(r"[A-Za-z0-9_.~+/-]{16,}")
log = logging.getLogger("kit")


@dataclass(frozen=True)
class Credentials:
    """The source of the credentials in use, and the secrets of all sources, which must never be shown.

    ``users`` are the names of all sources. ``variables`` are set for the client, which would misread the source.
    ``is_token`` is whether it holds a token, which goes before a name with a key.
    """

    source: str
    secrets: tuple[str, ...] = field(default=(), repr=False)
    users: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)
    is_token: bool = False

    def hide(self, text: str) -> str:
        """The text with every secret, in whatever form, replaced by asterisks."""
        return without(text, self._forms)

    @functools.cached_property
    def _forms(self) -> frozenset[str]:
        return frozenset(form for secret in self.secrets for form in forms(secret, self.users))


def sources(environment: Mapping[str, str], home: Path) -> tuple[str, ...]:
    """Every source of credentials, in the order of precedence."""
    return (
        f"the variable {TOKEN}",
        str(home / ".kaggle" / "access_token"),
        str(_config_folder(environment, home) / "kaggle.json"),
        f"the variables {USER} and {KEY}",
        str(home / ".kaggle" / "credentials.json"),
    )


def find_credentials(environment: Mapping[str, str] = os.environ, home: Path | None = None) -> Credentials:
    """The credentials of the first source that has any, with the secrets of all sources.

    The secrets are protected for the rest of the process before anything else is done. Warns of a kaggle.json that
    other users can read; does not connect to Kaggle. Raises KitError if that source cannot be used, and with the
    list of sources if none has credentials.
    """
    folder = Path.home() if home is None else home
    secrets, users = _every_secret(environment, folder)
    protect(secrets, users)
    for source, variables, is_token in _available(environment, folder):
        return Credentials(source, secrets, users, variables, is_token)
    searched = "\n".join(
        f"          {number}. {source}" for number, source in enumerate(sources(environment, folder), start=1)
    )
    raise KitError("credentials for Kaggle", f"none in these sources:\n{searched}", HOW_TO_GET)


def protect_secrets(environment: Mapping[str, str] = os.environ) -> None:
    """Let no secret of any source, and no password of a proxy, reach the terminal, whatever is done next.

    Downloads of weights quote the proxy too. Reads files, connects to nothing.
    """
    with contextlib.suppress(RuntimeError):  # this account has no home
        protect(*_every_secret(environment, Path.home()))


def _available(environment: Mapping[str, str], home: Path) -> Iterator[tuple[str, Mapping[str, str], bool]]:
    """Every source that has credentials, the variables for the client, whether it is a token; by precedence."""
    token, access, legacy, pair, oauth = sources(environment, home)
    variable = environment.get(TOKEN, "")
    path = Path(variable.strip())  # a variable holds the token itself, or the path of a file with it
    if variable and not _exists(path):
        text = _without_line_ends(TOKEN, variable)
        yield token, {} if text == variable else {TOKEN: text}, True
    elif variable and path.is_file() and (text := _token(path)):
        yield f"{token}, which names {path}", _unless_plain(path, {TOKEN: text}, variable != str(path)), True
    for path in (Path(access), Path(f"{access}.txt")):
        if path.is_file() and (text := _token(path)):
            yield str(path), _unless_plain(path, {TOKEN: text}), True
    file = _json_file(Path(legacy))
    values = {USER: file.get("username", ""), KEY: file.get("key", "")}
    values |= {name: value for name in values if (value := environment.get(name))}  # a variable overrides the file
    if all(values.values()):
        from_file = not environment.get(KEY)
        if from_file:
            _warn_if_readable(Path(legacy))
        usable = {
            name: _without_line_ends(name if environment.get(name) else f"{name[7:].lower()} in {legacy}", value)
            for name, value in values.items()
        }
        yield legacy if from_file else pair, _unless_plain(Path(legacy), usable, usable != values), False
    if _json_file(Path(oauth)).get("refresh_token"):
        if not is_plain(Path(oauth).read_bytes()):
            raise KitError(
                f"{oauth} as `kaggle auth login` writes it", "another encoding, or a byte order mark",
                "delete it, then `kaggle auth login`",
            )  # fmt: skip
        yield oauth, {}, False


def _every_secret(environment: Mapping[str, str], home: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The secrets and the user names of all sources, also of those that are broken or not used, and of proxies."""
    _, access, legacy, _, oauth = sources(environment, home)
    variable = environment.get(TOKEN, "").strip()
    secrets = [environment.get(KEY, ""), "" if _exists(Path(variable)) else variable]
    users = [environment.get(USER, "")]
    for name in environment:
        if name.lower().endswith("_proxy") and (proxy := _PROXY.search(environment[name])):
            users.append(proxy[1])
            secrets += [proxy[2], urllib.parse.unquote(proxy[2])]
            # A password with one of these letters ends the address early: errors quote a part, as USER:PART.
            parts = _ENDS_AN_ADDRESS.split(proxy[2])
            secrets += [text for part in parts if part for text in (part, f"{proxy[1]}:{part}")]
    for path in (Path(variable), Path(access), Path(f"{access}.txt")):
        secrets.append(_text_if_any(path))
    for path in (Path(legacy), Path(oauth)):
        text = _text_if_any(path)
        try:
            content = json.loads(text)
        except ValueError:
            secrets += _QUOTED.findall(text)
            continue
        if isinstance(content, dict):
            secrets += [content.get(name, "") for name in _SECRET_NAMES]
            users.append(content.get("username", ""))
    secrets += [
        word
        for text in secrets
        if isinstance(text, str)
        for word in _WORDS.findall(text)
        if word not in (TOKEN, USER, KEY)
    ]
    kept = [dict.fromkeys(text for text in texts if isinstance(text, str) and text) for texts in (secrets, users)]
    return tuple(kept[0]), tuple(kept[1])


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


def _text_if_any(path: Path) -> str:
    try:
        return decoded(path.read_bytes()) if path.is_file() else ""
    except (OSError, ValueError):  # a text that is no path, or bytes that are no text
        return ""


def _token(path: Path) -> str:
    """The token in a file; "" if it is blank. Raises KitError if it cannot be read or is no token."""
    text = _read(path, f"{path} to be readable text with a token")
    return _without_line_ends(str(path), text) if text.strip() else ""


def _without_line_ends(source: str, value: str) -> str:
    """The value without white space around it. Raises KitError, without the value, for what no credential has."""
    usable = value.strip().strip("\ufeff").strip()
    if _QUOTED_WHOLE.fullmatch(usable):
        raise KitError(
            f"{source} without quotation marks around the value", "quotation marks (the value is not shown)",
            "take them away: a shell does so, a file of variables such as Docker's --env-file keeps them",
        )  # fmt: skip
    if not _IN_A_HEADER.fullmatch(usable):
        strange = next((letter for letter in usable if not _IN_A_HEADER.fullmatch(letter)), "")
        kind = (
            "white space" if strange.isspace() or not strange else "a letter that is not ASCII, or a control code"
        )
        where = f"at position {usable.index(strange) + 1} of {len(usable)}" if strange else "only"
        raise KitError(
            f"{source} to hold letters, digits and signs, without spaces or line ends between them",
            f"{kind} {where} (the value is not shown)",
            f"set it anew, as one line; {HOW_TO_GET}",
        )
    if usable != value and source.isupper():
        log.warning("the variable %s has white space or a line end around its value; it is left out", source)
    return usable


def _unless_plain(path: Path, variables: Mapping[str, str], is_needed: bool = False) -> Mapping[str, str]:
    """The variables, if the client would misread the file or they are needed anyway; otherwise none."""
    return variables if is_needed or (path.is_file() and not is_plain(path.read_bytes())) else {}


def _json_file(path: Path) -> dict[str, str]:
    """The texts in a JSON file by name; empty if there is no file. Raises KitError if it cannot be read."""
    if not _exists(path):
        return {}
    do = f"correct or delete it, then {HOW_TO_GET}"
    expected = f"{path} to be readable JSON with credentials"
    try:
        content = json.loads(_read(path, expected))
    except ValueError:
        raise KitError(expected, "broken", do) from None  # never the file's text: it holds the key
    if not isinstance(content, dict):
        raise KitError(f"{path} to hold credentials", type(content).__name__, do)
    return {name: value for name, value in content.items() if isinstance(value, str)}


def _read(path: Path, expected: str) -> str:
    do = f"correct or delete it, then {HOW_TO_GET}"
    try:
        return decoded(path.read_bytes())
    except OSError as error:
        raise KitError(expected, reason(error), do) from None
    except UnicodeDecodeError as error:
        raise KitError(expected, undecodable(error), do) from None


def _warn_if_readable(path: Path) -> None:
    if os.name == "posix" and path.stat().st_mode & _READABLE_BY_OTHERS:
        log.warning("%s can be read by other users: `chmod 600 %s`", path, shlex.quote(str(path)))
