"""Types and shapes checked while the tests run: every function of kit by beartype, arrays by jaxtyping as well.

An import hook adds the checker to each function and dataclass; it is made when the function is first called, and
jaxtyping's own, which binds the arguments anew at each call, only where an array is annotated.
"""

import ast
import dataclasses
import functools
import importlib.machinery
import inspect
import sys
import typing

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
    if any(map(_has_array, hints.values())):
        return jaxtyped(function, typechecker=check)
    function.__annotations__ = hints
    return check(function)


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
    """Loads a module with ``@checked`` on each function and class, whatever bytecode lies beside it."""

    def get_code(self, fullname):
        tree = ast.parse(self.get_data(self.path), self.path)
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                node.decorator_list.append(_decorator(node))
            elif isinstance(node, ast.ClassDef):
                node.decorator_list.insert(0, _decorator(node))
        return compile(ast.fix_missing_locations(tree), self.path, "exec", dont_inherit=True)


def _decorator(node):
    made = ast.parse("__import__('typechecks').checked", mode="eval").body
    for part in ast.walk(made):
        ast.copy_location(part, node)
    return made


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
