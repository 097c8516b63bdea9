"""What to do about a refusal of Kaggle, by the cause that its reason names: one refusal may name several.

The reasons are Kaggle's own, as its users quote them. A reason that is not in the table gets no guess.
"""

from __future__ import annotations

import datetime
import re

FOLLOW = "follow Kaggle's message, then repeat the command"
PAGE, SETTINGS = "https://www.kaggle.com/competitions", "https://www.kaggle.com/settings"

_IS_UP = r"\b(reached|exceeded|exhausted|used)\b"
# Patterns that one sentence of the reason has, all of them, and what to do; what lasts longest first.
_CAUSES = (
    (
        (r"\b(only|must)\b.*\b(from|through|via|by|using) (an? |the |kaggle )*notebooks?\b",),
        f"this competition takes notebooks only and no CSV: submit a notebook on its page, {PAGE}/{{slug}}",
    ),
    (
        (
            r"submissions have been disabled|(not|no longer) (currently )?accept(ing|s)? submissions|"
            r"after the deadline|\b(deadline|competition)\b.*\b(passed|ended|is over|closed)\b",
        ),
        f"the competition takes no submission now: its page says until when, {PAGE}/{{slug}}",
    ),
    (
        (r"(total|lifetime|overall) (number of )?submission|limited by total",),
        "the competition takes no more submissions of this team",
    ),
    (
        (r"accept (the|this) competition'?s? rules|accept the rules|rules .*not .*accepted",),
        f"join and accept the rules at {PAGE}/{{slug}}/rules, then repeat the command",
    ),
    (
        (r"\bverif(y|ied|ication)\b(?! (that|whether|if)\b)", r"\b(account|phone|identity|persona|email)\b"),
        f"verify this account at {SETTINGS}, then repeat the command",
    ),
    (
        (r"'competitions\.\w+' (was|is) (denied|not satisfied)",),
        f"join with this account at {PAGE}/{{slug}}/rules, or correct the name; a token that may only read is "
        f"replaced at {SETTINGS}/api",
    ),
    (
        (r"'(kernels|kernelsessions|datasets)\.\w+' (was|is) (denied|not satisfied)",),
        f"log in as the owner; a token that may only read is replaced at {SETTINGS}/api",
    ),
    (
        (r"\b(maximum|concurrent|simultaneous|too many)\b.*\b(sessions|session (count|limit))\b",),
        "other sessions of this account still run: wait for their end, or stop them at "
        "https://www.kaggle.com/code, then repeat the command",
    ),
    (
        (_IS_UP, r"\b(gpu|tpu|accelerator)s?\b", r"\b(quota|hours)\b"),
        f"wait for the new week ({SETTINGS} has the hours left), or `invoke train` here",
    ),
    (
        (r"title .* already in use",),
        "another kernel or data set of this account has that title: rename or delete it at "
        "https://www.kaggle.com/work, or choose another --run NAME",
    ),
    (
        (r"notebook not found|kernel not found",),
        "a kernel of that name was begun on the site and never saved: save or delete it at "
        "https://www.kaggle.com/work, or choose another --run NAME",
    ),
)
_DAILY = (
    (
        r"\bsubmi(ssions?|t|tted)\b",
        r"\b(daily|today|(per|each|every|a) day)\b",
        r"\b(limit|allowance|maximum|exceeded|reached|used|allowed|left|remaining|only|more)\b",
    ),
    (
        r"\d+ of \d+ used|submission limit|used (all|its)\b.*\bsubmissions?\b",
        r"^(?!.*\b(total|lifetime|overall)\b)",
    ),
)


def advice(reason: str, slug: str) -> str | None:
    """What to do about a refusal, or None if its reason names no known cause; ``slug`` may be empty."""
    sentences = re.split(r"(?<=[.!?;:])\s+", " ".join(reason.split()))

    def names(patterns: tuple[str, ...]) -> bool:
        return any(all(re.search(one, text, re.IGNORECASE) for one in patterns) for text in sentences)

    found = [do for patterns, do in _CAUSES if names(patterns)]
    if any(map(names, _DAILY)):
        found.append(f"a daily limit starts again at 00:00 UTC, in {_hours_left():.1f} hours")
    return "; ".join(found).replace("{slug}", slug or "SLUG") or None


def _hours_left() -> float:
    now = datetime.datetime.now(datetime.UTC)
    midnight = (now + datetime.timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    return (midnight - now).total_seconds() / 3600
