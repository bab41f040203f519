"""``python -m engine.simulator``: the same as ``engine simulate``."""

from __future__ import annotations

import argparse
import sys
from typing import NoReturn

from engine.simulator.command import add_arguments, main


class _Parser(argparse.ArgumentParser):
    """Says what is wrong on one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


if __name__ == "__main__":
    parser = _Parser(prog="engine simulate")
    add_arguments(parser)
    sys.exit(main(parser.parse_args()))
