"""The names that a package offers, each imported from its module when it is first used.

So ``import kit.data`` costs nothing, and only what needs torch loads it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def front_door(package: str, names: Mapping[str, Sequence[str]]) -> tuple[list[str], Callable[[str], Any]]:
    """``__all__`` and ``__getattr__`` (PEP 562) of a package, from its modules and what each of them offers."""
    module_of = {name: module for module, offered in names.items() for name in offered}

    def get(name: str) -> Any:
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{package}.{module_of[name]}"), name)

    return sorted(module_of), get
