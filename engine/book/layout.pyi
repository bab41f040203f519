from contextlib import AbstractContextManager
from typing import Final

LAYOUT_VERSION: Final[int]
MAX_DEPTH: Final[int]

def naming(path: str) -> AbstractContextManager[None]: ...
