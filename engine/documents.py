"""YAML documents that know on which line each of their keys was written.

They say what is wrong with a configuration in one line: ``FILE:LINE: key.path: what is wrong, what to do``.
"""

from __future__ import annotations

import difflib
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from engine.errors import ConfigError

KeyPath = tuple[str, ...]
_Model = TypeVar("_Model", bound=BaseModel)
_NOT_YAML = (yaml.YAMLError, ValueError, RecursionError)


class Fault(Exception):
    """Something wrong at a key path of a document."""

    def __init__(self, path: KeyPath, text: str) -> None:
        super().__init__(text)
        self.path = path

    def describe(self) -> str:
        """``key.path: what is wrong``."""
        key = ".".join(self.path)
        return f"{key}: {self}" if key else str(self)


@dataclass
class Document:
    """A mapping, the folder its relative paths count from, and the place where each key was written."""

    origin: str
    folder: Path
    data: dict[str, Any]
    places: dict[KeyPath, str] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Document:
        """Read a YAML file; :class:`ConfigError` if it cannot be read, is no mapping or gives a key twice."""
        text = _text(path)
        try:
            data, lines = _parse(text)
        except Fault as fault:
            raise ConfigError(f"{path}:{fault}") from None
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = f":{mark.line + 1}" if mark else ""
            raise ConfigError(f"{path}{line}: not YAML: {error.problem or error.context}") from None
        except _NOT_YAML as error:
            raise ConfigError(f"{path}: not YAML: {one_line(error)}") from None
        places = {where: f"{path}:{line}" for where, line in lines.items()}
        return cls(str(path), path.absolute().parent, data, places)

    def error(self, fault: Fault) -> ConfigError:
        """The fault in one line, with the place where its key, or the nearest one above it, was written."""
        path = fault.path
        above = (path[:depth] for depth in range(len(path), -1, -1))
        place = next((self.places[key] for key in above if key in self.places), self.origin)
        return ConfigError(" ".join(f"{place}: {fault.describe()}".split()))

    def override(self, text: str, named: frozenset[str] = frozenset()) -> None:
        """Apply one ``dotted.key=YAML value``.

        ``named``: top-level sections whose entries are the user's own names; a value within an entry that is
        not there is refused as a misspelling.
        """
        key, equals, raw = text.partition("=")
        place = f"--set {text}"
        path = tuple(key.strip().split("."))
        if not equals or not all(path):
            raise ConfigError(f"{place}: write KEY=VALUE, as in --set clock.interval=0.1")
        try:
            value = yaml.safe_load(raw)
        except yaml.MarkedYAMLError as error:
            raise ConfigError(f"{place}: the value is not YAML: {error.problem or error.context}") from None
        except _NOT_YAML as error:
            raise ConfigError(f"{place}: the value is not YAML: {one_line(error)}") from None
        try:
            _put(self.data, path, value, named)
        except Fault as fault:
            raise ConfigError(f"{place}: {fault}") from None
        self.places = {known: at for known, at in self.places.items() if known[: len(path)] != path}
        for depth in range(1, len(path)):
            self.places.setdefault(path[:depth], place)
        self.places[path] = place

    def validate(self, model: type[_Model], patterns: Mapping[str, str]) -> _Model:
        """The document as a model. ``patterns``: in words, what each pattern of the model's strings wants."""
        try:
            return model.model_validate(self.data)
        except ValidationError as error:
            # A misspelt key is told before the one that it was meant to be, which is then missing.
            first = min(error.errors(), key=lambda each: each["type"] != "extra_forbidden")
            fault = _explain(model, first, patterns)
            others = error.error_count() - 1
            more = f" (and {others} more)" if others else ""
            raise self.error(Fault(fault.path, f"{fault}{more}")) from None


def suggest(wrong: str, known: Iterable[str]) -> str:
    """``; did you mean X?``, or the list of what is known, or nothing where nothing is."""
    names = sorted(str(name) for name in known)
    close = difflib.get_close_matches(wrong, names, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]}?"
    return f"; known: {', '.join(names)}" if names else ""


def one_line(error: BaseException) -> str:
    """An exception's type and text, on one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {one_line(error)}") from None


def _parse(text: str) -> tuple[dict[str, Any], dict[KeyPath, int]]:
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if not isinstance(node, yaml.MappingNode):
            raise Fault((), "1: the file holds no keys; see configs/ for examples")
        return loader.construct_document(node), dict(_lines(node, ()))
    finally:
        loader.dispose()


def _lines(node: yaml.Node, path: KeyPath, above: tuple[int, ...] = ()) -> Iterator[tuple[KeyPath, int]]:
    if id(node) in above:
        return
    inside = (*above, id(node))
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield (*path, str(index)), item.start_mark.line + 1
            yield from _lines(item, (*path, str(index)), inside)
    elif isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, value in node.value:
            name, line = str(key.value), key.start_mark.line + 1
            if name in seen and name != "<<":
                where = ".".join((*path, name))
                raise Fault((), f"{line}: {where}: is given twice, first on line {seen[name]}; remove one")
            seen[name] = line
            yield (*path, name), line
            yield from _lines(value, (*path, name), inside)


def _put(data: dict[str, Any], path: KeyPath, value: Any, named: frozenset[str]) -> None:
    target: Any = data
    for depth, part in enumerate(path):
        is_last = depth == len(path) - 1
        here = ".".join(path[:depth])
        if isinstance(target, list):
            if not part.isdecimal() or int(part) >= len(target):
                raise Fault((), f"{here} is a list of {len(target)}; it has no item {part}")
        elif not isinstance(target, dict):
            raise Fault((), f"{here} is a plain value; it holds no {part}")
        elif depth == 1 and path[0] in named and part not in target and not is_last:
            raise Fault((), f"there is no {part} under {here}{suggest(part, target)}")
        at: Any = int(part) if isinstance(target, list) else part
        if is_last:
            target[at] = value
        elif isinstance(target, dict) and target.get(at) is None:
            target[at] = {}
        target = target[at]


# ------------------------------------------------------------------------- what a validation error says


def _explain(model: type[BaseModel], error: ErrorDetails, patterns: Mapping[str, str]) -> Fault:
    kind, value, context = error["type"], error["input"], error.get("ctx", {})
    path = tuple(str(part) for part in error["loc"] if part != "[key]")
    if kind == "extra_forbidden":
        return Fault(path, f"unknown key{suggest(path[-1], _known_keys(model, path[:-1]))}")
    if kind == "missing":
        return Fault(path[:-1], f"{path[-1]} is missing; add it")
    if kind == "value_error":
        return Fault(path, str(context["error"]))
    if kind == "string_pattern_mismatch":
        pattern = context["pattern"]
        return Fault(path, f"is {_short(value)}; {patterns.get(pattern, f'it should match {pattern}')}")
    if kind == "literal_error":
        return Fault(path, f"is {_short(value)}; write {context['expected']}")
    if kind == "too_short":
        return Fault(path, "is empty; give at least one")
    if kind in ("model_type", "dict_type"):
        return Fault(path, f"is {_short(value)}; it should be a mapping of keys to values")
    said = error["msg"].replace("Input should be", "it should be")
    return Fault(path, f"is {_short(value)}; {said[0].lower()}{said[1:]}")


def _known_keys(model: type[BaseModel], path: KeyPath) -> list[str]:
    """The keys that may be written at a path; an entry's ``name`` is its key and not written again."""
    at: Any = model
    for part in path:
        fields = at.model_fields if _is_model(at) else {}
        at = _plain_type(fields[part].annotation if part in fields else _item_type(at))
    if not _is_model(at):
        return []
    return [key for key in at.model_fields if key != "name" or not path]


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _plain_type(kind: Any) -> Any:
    """Without ``Annotated`` and without ``| None``."""
    arguments = typing.get_args(kind)
    if typing.get_origin(kind) is Annotated:
        return _plain_type(arguments[0])
    if type(None) in arguments:
        return _plain_type(next(option for option in arguments if option is not type(None)))
    return kind


def _item_type(kind: Any) -> Any:
    """What a list or a mapping holds."""
    arguments = typing.get_args(kind)
    return arguments[-1] if arguments else None


def _short(value: Any) -> str:
    if value is None:
        return "empty"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
