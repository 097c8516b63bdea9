"""What comes before any verb: the streams are guarded, and a mistyped verb or flag gets the nearest names.

Invoke has no hook for either: `begin` is called when it looks for a collection in tasks.py.
"""

from __future__ import annotations

import ast
import copy
import re
from typing import Any

from invoke import Collection, Exit
from invoke.exceptions import ParseError
from invoke.parser import Parser, ParserContext

from kit.core.errors import KitError, closest_names
from kit.tasks.streams import guard_streams

_UNKNOWN = re.compile(r"No idea what (.*) is!", re.DOTALL)  # Invoke's words


def begin(namespace: Collection) -> Collection:
    """The collection of the verbs, for the Invoke that runs. Raises Exit for a word that is no verb and no flag."""
    from invoke.main import program

    if hasattr(program, "core"):  # else no command line is being read
        guard_streams()
        require_known_words(program, copy.deepcopy(namespace))  # reading the flags takes the help out of the tasks
    return namespace


def require_known_words(program: Any, namespace: Collection) -> None:
    """Raise Exit with the nearest names for the first word of a command line that is no verb and no flag.

    ``program`` is Invoke's, which has read its own flags; other faults of the line are left to it.
    """
    verbs = namespace.to_contexts()
    names = [str(name) for verb in verbs for name in (verb.name, *verb.aliases)]
    about = program.args.help.value
    if isinstance(about, str) and about not in names:
        raise Exit(str(_unknown_verb(about, names)), code=1)
    word, verb = _unknown(program, _without_positions(namespace.to_contexts()))
    if not word.startswith("-"):  # else Invoke would take a mistyped flag for a value without its flag
        word, verb = _unknown(program, verbs)
    if word:
        fault = _unknown_word(word, verb) if verb and verb.name else _unknown_verb(word, names)
        raise Exit(str(fault), code=1)


def _unknown(program: Any, verbs: list[ParserContext]) -> tuple[str, ParserContext | None]:
    """The first word of the command line that Invoke does not know, "" if there is none; and its verb."""
    try:
        Parser(contexts=verbs, initial=program.initial_context).parse_argv(list(program.core.unparsed))
    except ParseError as error:
        unknown = _UNKNOWN.fullmatch(str(error))
        return (ast.literal_eval(unknown[1]) if unknown else ""), error.context
    return "", None


def _without_positions(verbs: list[ParserContext]) -> list[ParserContext]:
    for verb in verbs:
        verb.positional_args.clear()
    return verbs


def _unknown_verb(word: str, names: list[str]) -> KitError:
    return KitError("a verb", repr(word), f"nearest: {closest_names(word, names)}; `invoke --list` shows all")


def _unknown_word(word: str, verb: ParserContext) -> KitError:
    """The error for a word behind a verb that is neither a flag of it nor another verb."""
    flags = [flag for flag in verb.flags if flag.startswith("--")]
    do = f"`invoke --help {verb.name}` shows its flags"
    if word.startswith("-"):
        return KitError(
            f"a flag of `invoke {verb.name}`", repr(word), f"nearest: {closest_names(word, flags)}; {do}"
        )
    return KitError(
        f"a flag of `invoke {verb.name}`, with at most one value behind it", repr(word),
        f"write the flag before its value, each flag once (but for those that may be repeated), and quote a value "
        f"with blanks; {do}",
    )  # fmt: skip
