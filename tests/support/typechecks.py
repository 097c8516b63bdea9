"""Types and shapes checked while the tests run: every function of kit by beartype, arrays by jaxtyping as well.

An import hook adds the checker to each function and dataclass; it is made when the function is first called. The
sides of arrays agree within a call. (``jaxtyped(typechecker=...)`` would check the arguments of each call twice.)
"""

import ast
import dataclasses
import functools
import hashlib
import importlib.machinery
import importlib.util
import inspect
import sys
import typing
from pathlib import Path
from unittest.mock import patch

from beartype import BeartypeConf, beartype
from jaxtyping import AbstractArray, jaxtyped

# An int is allowed where a float is annotated (PEP 484).
check = beartype(conf=BeartypeConf(is_pep484_tower=True))


def checked(thing):
    """A function that checks its arguments and its result; of a dataclass, its ``__init__`` does."""
    if inspect.isclass(thing):
        if dataclasses.is_dataclass(thing) and "__init__" in vars(thing):
            thing.__init__ = checked(thing.__init__)
        return thing
    made = []

    @functools.wraps(thing)
    def first(*args, **kwargs):
        __tracebackhide__ = True
        if not made:
            made.append(_checker(thing))
        return made[0](*args, **kwargs)

    return first


def _checker(function):
    """The function with the checks of its annotations; one that names what only a type checker imports is Any."""
    hints = {name: _resolved(hint, function.__globals__) for name, hint in function.__annotations__.items()}
    function.__annotations__ = hints
    checked_once = check(function)
    if not any(map(_has_array, hints.values())):
        return checked_once

    def in_own_shapes(*args, **kwargs):
        __tracebackhide__ = True
        with jaxtyped("context"):
            return checked_once(*args, **kwargs)

    return in_own_shapes


def _resolved(hint, names):
    def holder():
        pass

    holder.__annotations__ = {"hint": hint}
    try:
        return typing.get_type_hints(holder, names, include_extras=True)["hint"]
    except Exception:  # whatever an annotation raises
        return typing.Any


def _has_array(hint):
    if inspect.isclass(hint) and issubclass(hint, AbstractArray):
        return True
    return any(map(_has_array, typing.get_args(hint)))


class _Loader(importlib.machinery.SourceFileLoader):
    """Loads a module with ``@checked`` on each function and class; its bytecode is kept under a name of its own."""

    def get_code(self, fullname):
        # The import lock makes this safe, as for other hooks that compile sources in their own way.
        with patch("importlib._bootstrap_external.cache_from_source", _own_bytecode):
            return super().get_code(fullname)

    def source_to_code(self, data, path, **options):
        tree = ast.parse(data, path)
        _decorate(tree)
        return super().source_to_code(tree, path, **options)


_own_bytecode = functools.partial(
    importlib.util.cache_from_source,
    optimization="checked" + hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12],
)


def _decorate(node):
    """Add the decorator to each function and class; statements alone can hold one."""
    for name in ("body", "orelse", "finalbody", "handlers", "cases"):
        for part in getattr(node, name, ()):
            if isinstance(part, ast.FunctionDef):
                part.decorator_list.append(_decorator(part))
            elif isinstance(part, ast.ClassDef):
                part.decorator_list.insert(0, _decorator(part))
            _decorate(part)


def _decorator(node):
    place = {name: getattr(node, name) for name in ("lineno", "col_offset", "end_lineno", "end_col_offset")}
    load = ast.Load()
    loaded = ast.Call(ast.Name("__import__", load, **place), [ast.Constant("typechecks", **place)], [], **place)
    return ast.Attribute(loaded, "checked", load, **place)


class _Finder(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, fullname, path=None, target=None):
        if fullname.partition(".")[0] != "kit":
            return None
        spec = super().find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, importlib.machinery.SourceFileLoader):
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


def install():
    """Check kit's modules from now on."""
    sys.meta_path.insert(0, _Finder)
