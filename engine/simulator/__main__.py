"""``python -m engine.simulator``: the same as ``engine simulate``."""

from __future__ import annotations

import argparse
import sys

from engine.simulator.command import add_arguments, main

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="engine simulate")
    add_arguments(parser)
    sys.exit(main(parser.parse_args()))
