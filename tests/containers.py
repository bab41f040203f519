"""How much an object holds, all that it leads to: to show that something does not grow."""

from __future__ import annotations

import gc
import types
import weakref
from collections import deque
from collections.abc import Sized
from typing import Any

_ENDS = (type, types.ModuleType, types.FunctionType, types.BuiltinFunctionType, types.CodeType, str, bytes, int, float)
_CONTAINERS = (dict, list, set, frozenset, deque)


def containers(root: object, *but: object) -> list[Sized]:
    """Every container that can be reached from ``root``, not by way of classes, modules, functions' globals or
    ``but``.
    """
    seen = {id(each) for each in but}
    found: list[Sized] = []
    waiting: list[Any] = [root]
    while waiting:
        each = waiting.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        if isinstance(each, types.FunctionType):
            waiting += [cell.cell_contents for cell in each.__closure__ or () if cell != types.CellType()]
        if isinstance(each, _ENDS):
            continue
        if isinstance(each, _CONTAINERS) and not _is_cursors(each):
            found.append(each)
        waiting += gc.get_referents(each)
    return found


def largest(root: object, *but: object) -> int:
    """The length of the largest of them."""
    return max(len(each) for each in containers(root, *but))


def total(root: object, *but: object) -> int:
    """Their lengths together."""
    return sum(len(each) for each in containers(root, *but))


def _is_cursors(each: Sized) -> bool:
    """The list of a database connection's cursors, dead ones among them, which sqlite3 clears after every 200."""
    return isinstance(each, list) and bool(each) and all(isinstance(entry, weakref.ref) for entry in each)
