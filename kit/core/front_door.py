"""The names that a package offers, imported from their modules on first use.

So ``import kit.data`` costs nothing, and torch is loaded only by the names that need it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def front_door(package: str, names: Mapping[str, Sequence[str]]) -> tuple[list[str], Callable[[str], Any]]:
    """``__all__`` and ``__getattr__`` (PEP 562) of a package; ``names`` maps a module to the names it offers."""
    module_of = {name: module for module, offered in names.items() for name in offered}

    def get(name: str) -> Any:
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{package}.{module_of[name]}"), name)

    return sorted(module_of), get
