#!/usr/bin/env python3
"""The same as ``engine run``, from a checkout: ``python scripts/run_engine.py configs/demo.yml --for 20``.

The checkout's own ``.venv`` is used where the Python that runs this does not have the engine's dependencies.
"""

import importlib.util
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    python = ROOT / ".venv" / "bin" / "python"
    if importlib.util.find_spec("msgspec") is None and python.exists() and sys.executable != str(python):
        os.execv(python, [str(python), __file__, *sys.argv[1:]])
    sys.path.insert(0, str(ROOT))
    from engine.cli import main as engine

    return engine(["run", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
