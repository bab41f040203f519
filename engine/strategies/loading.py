"""From ``package.module:Class`` to a strategy's class."""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
import select
import signal
import sys
from typing import Final

from engine.errors import ConfigError
from engine.runtime.base import ActorSpec
from engine.strategies.base import Strategy

IMPORT_TIMEOUT_S: Final = 30.0
HANDLERS: Final = tuple(name for name in vars(Strategy) if name.startswith("on_"))


def load_strategy(path: str) -> type[Strategy]:
    """Import the class; the current directory is searched last. ConfigError, in one line, if it cannot be had."""
    module_name, _, attribute = path.partition(":")
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise ConfigError(_module_missing(module_name, error)) from None
    except Exception as error:
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise ConfigError(f"importing {module_name} failed: {said}") from error
    found = getattr(module, attribute, None)
    if found is None:
        raise ConfigError(f"{module_name} has no {attribute}{_meant(attribute, list(vars(module)))}")
    if not (isinstance(found, type) and issubclass(found, Strategy)):
        raise ConfigError(f"{path} is no strategy; name a class that derives from engine.strategies.Strategy")
    for handler in HANDLERS:
        if inspect.iscoroutinefunction(getattr(found, handler)):
            raise ConfigError(f"{path}: {handler} is async and would never run; write it as a plain function")
    return found


def check_strategy_loads(path: str) -> None:
    """Like :func:`load_strategy`, but in a child process: a strategy's code never runs in this one.

    To be called where no event loop and no thread runs, as on a command line.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _tell_and_leave(path, writer)
    os.close(writer)
    try:
        told = _read_all(reader, child)
    finally:
        os.close(reader)
        os.waitpid(child, 0)
    if told != "ok":
        raise ConfigError(told or f"importing {path.partition(':')[0]} ended the process that tried it")


def try_import(spec: ActorSpec) -> int:
    """What a process does that finds out whether a class can be had on its host: its exit code, 0 if it can. Why it
    cannot is the last line of its output.
    """
    try:
        load_strategy(str(spec.params["path"]))
    except ConfigError as error:
        print(error, flush=True)
        return 1
    return 0


def _tell_and_leave(path: str, writer: int) -> None:
    try:
        load_strategy(path)
        told = "ok"
    except BaseException as error:
        told = str(error) if isinstance(error, ConfigError) else f"importing {path} failed: {error!r}"
    os.write(writer, told.encode()[:4000])
    os._exit(0)


def _read_all(reader: int, child: int) -> str:
    ready, _, _ = select.select([reader], [], [], IMPORT_TIMEOUT_S)
    if not ready:
        os.kill(child, signal.SIGKILL)
        return f"importing it took more than {IMPORT_TIMEOUT_S:g} s"
    return os.read(reader, 4096).decode(errors="replace")


def _module_missing(module_name: str, error: ModuleNotFoundError) -> str:
    if error.name and (module_name == error.name or module_name.startswith(f"{error.name}.")):
        return f"there is no module {error.name}; install it or run from the folder that holds it"
    return f"importing {module_name} failed: it needs {error.name}, which is not installed"


def _meant(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]}?" if close else ""
