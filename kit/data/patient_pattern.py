"""Whether ``data.patient_pattern`` fits the images' names, and a pattern that would.

An image whose name it does not fit is taken as a patient of its own: a split may separate two images of one.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Container

LEAST_SHARE = 0.9  # of the names: if the pattern fits fewer, it is not known who the patients are
_CANDIDATES = (r"([^_.-]+)[_.-]", r"([^_.-]+[_.-][^_.-]+)[_.-]", r"(\D*\d+)\D")


def fitting_share(image_ids: Collection[str], pattern: str, groups: Container[str] = ()) -> float:
    """The share of the names at whose start the pattern fits, its first group not empty; 1 without any name.

    The names in ``groups`` (groups.csv) count as fitting: their patients are known.
    """
    matches = [(image_id, re.match(pattern, image_id)) for image_id in image_ids]
    fits = [
        name in groups or bool(match and (match[1] if match.re.groups else match[0])) for name, match in matches
    ]
    return sum(fits) / len(fits) if fits else 1.0


def knows_patients(image_ids: Collection[str], pattern: str, groups: Container[str] = ()) -> bool:
    """Whether nine tenths of the names or more fit the pattern or are in ``groups``, so that patients are known."""
    return fitting_share(image_ids, pattern, groups) >= LEAST_SHARE


def suggested_pattern(image_ids: Collection[str], largest_share: float) -> str | None:
    """A pattern that fits every name and makes fewer patients than images; None if no simple one does.

    No patient has more than ``largest_share`` of the images (``data.largest_patient_share``).
    """
    for pattern in _CANDIDATES:
        matches = [re.match(pattern, image_id) for image_id in image_ids]
        sizes = Counter(match[1] for match in matches if match)
        if all(matches) and 1 < max(sizes.values(), default=0) <= largest_share * len(image_ids):
            return pattern
    return None
