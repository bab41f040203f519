"""The ``engine`` command.

Exit codes: 0 done, 1 the work failed, 2 a bad command line or configuration. Errors are one line on
standard error.
"""

from __future__ import annotations

import argparse
import errno
import io
import os
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from engine.commands import books, control, inspect, logs, replay, run, venues
from engine.commands.common import CommandError, say_nothing_more
from engine.errors import ConfigError, EngineError

_FULL = (errno.ENOSPC, errno.EDQUOT)
_ADVICE = {
    errno.EACCES: "run as its owner",
    errno.EPERM: "run as its owner",
    errno.ENOSPC: "free some space there, then try again",
    errno.EDQUOT: "free some space there, then try again",
    errno.EROFS: "name a place that can be written",
}
_OK, _FAILED, _USAGE, _INTERRUPTED = 0, 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out one command; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    _survive_every_terminal()
    try:
        args = build_parser(arguments).parse_args(arguments)
        code: int = args.handler(args)
        sys.stdout.flush()
    except ConfigError as error:
        return _say(error, _USAGE)
    except EngineError as error:
        return _say(error, _FAILED)
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        # The reader of our output left.
        say_nothing_more()
        return _FAILED
    except OSError as error:
        advice = _ADVICE.get(error.errno or 0)
        if advice is None or (error.filename is None and error.errno not in _FULL):
            return _unexpected(error)
        where = f"{error.filename}: " if error.filename else ""
        return _say(CommandError(f"{where}{error.strerror}; {advice}"), _FAILED)
    except Exception as error:
        return _unexpected(error)
    return code


def _survive_every_terminal() -> None:
    """No command that has done its work fails by what it says.

    What the terminal's encoding lacks is shown as "?", and an output that is closed takes everything.
    """
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - as long as the process
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def build_parser(arguments: Sequence[str] = ()) -> argparse.ArgumentParser:
    """The parser of all commands. ``arguments`` tell whose options need more than this module to be known."""
    parser = _Parser(prog="engine", description="A multiprocess trading engine: every failure its own process.")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)
    run.register(subparsers, chosen=arguments[0] if arguments else "")
    inspect.register(subparsers)
    books.register(subparsers)
    logs.register(subparsers)
    control.register(subparsers)
    replay.register(subparsers)
    venues.register(subparsers)
    return parser


class _Parser(argparse.ArgumentParser):
    """Says what is wrong on one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(_USAGE, f"{self.prog}: {' '.join(message.split())}; see {self.prog} --help\n")


def _say(error: Exception, code: int) -> int:
    print(f"engine: {' '.join(str(error).split())}", file=sys.stderr)
    return code


def _unexpected(error: Exception) -> int:
    from engine.logs import redact_text

    text = redact_text("".join(traceback.format_exception(error)))
    said = redact_text(" ".join(f"{type(error).__name__}: {error}".split()))
    try:
        fd, name = tempfile.mkstemp(prefix="engine-error-", suffix=".txt")
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(text)
        where = f"is in {Path(name)}"
    except OSError as unwritten:
        where = f"could not be written: {unwritten.strerror}"
    print(f"engine: unexpected {said}; the traceback {where}", file=sys.stderr)
    return _FAILED


if __name__ == "__main__":
    sys.exit(main())
