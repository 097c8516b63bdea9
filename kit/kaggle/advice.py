"""What to do about a refusal of Kaggle, by the cause that its reason names: one refusal may name several.

The reasons are Kaggle's own, as its users quote them. A reason that is not in the table gets no guess.
"""

from __future__ import annotations

import datetime
import re

FOLLOW = "follow Kaggle's message, then repeat the command"
PAGE, SETTINGS = "https://www.kaggle.com/competitions", "https://www.kaggle.com/settings"

# A pattern of the reason, and what to do; what lasts longest first.
_CAUSES = (
    (
        r"only accepts submissions from notebooks|must be made through notebooks",
        f"this competition takes notebooks only and no CSV: submit a notebook on its page, {PAGE}/{{slug}}",
    ),
    (
        r"submissions have been disabled|deadline|competition (has ended|is over|is closed|has closed)",
        f"the competition takes no submission now: its page says until when, {PAGE}/{{slug}}",
    ),
    (
        r"(total|lifetime|overall) submission|limited by total",
        "the competition takes no more submissions of this team",
    ),
    (
        r"accept (the|this) competition'?s? rules|accept the rules|rules .*not .*accepted",
        f"join and accept the rules at {PAGE}/{{slug}}/rules, then repeat the command",
    ),
    (
        r"verif(y|ied|ication)|phone number",
        f"verify this account at {SETTINGS}, then repeat the command",
    ),
    (
        r"'competitions\.\w+' (was|is) (denied|not satisfied)",
        f"join with this account at {PAGE}/{{slug}}/rules, or correct the name; a token that may only read is "
        f"replaced at {SETTINGS}/api",
    ),
    (
        r"'(kernels|kernelsessions|datasets)\.\w+' (was|is) (denied|not satisfied)",
        f"log in as the owner; a token that may only read is replaced at {SETTINGS}/api",
    ),
    (
        r"maximum batch \w+ session count",
        "other sessions of this account still run: wait for their end, or stop them at "
        "https://www.kaggle.com/code, then repeat the command",
    ),
    (
        r"(weekly|quota).*(reached|exceeded|used)|exceeded.*quota",
        f"wait for the new week ({SETTINGS} has the hours left), or `invoke train` here",
    ),
    (
        r"title .* already in use",
        "another kernel or data set of this account has that title: rename or delete it at "
        "https://www.kaggle.com/work, or choose another --run NAME",
    ),
    (
        r"notebook not found|kernel not found",
        "a kernel of that name was begun on the site and never saved: save or delete it at "
        "https://www.kaggle.com/work, or choose another --run NAME",
    ),
)
_DAILY = (
    r"daily .*(allowance|limit)|\bused (all|its)\b|\d+ of \d+ used|submissions? (of|for) today|submission limit"
)
_LASTING = r"total|lifetime|overall"


def advice(reason: str, slug: str) -> str | None:
    """What to do about a refusal, or None if its reason names no known cause; ``slug`` may be empty."""
    text = " ".join(reason.split())
    found = [do for pattern, do in _CAUSES if re.search(pattern, text, re.IGNORECASE)]
    if re.search(_DAILY, text, re.IGNORECASE) and not re.search(_LASTING, text, re.IGNORECASE):
        found.append(f"a daily limit starts again at 00:00 UTC, in {_hours_left():.1f} hours")
    return "; ".join(found).replace("{slug}", slug or "SLUG") or None


def _hours_left() -> float:
    now = datetime.datetime.now(datetime.UTC)
    midnight = (now + datetime.timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    return (midnight - now).total_seconds() / 3600
