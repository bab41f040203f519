"""Attached strategies: kept in the state folder until detached, so that they return with the next run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml

from engine.config import EngineConfig, StrategyConfig, check_strategy
from engine.errors import ConfigError

FOLDER = "attached"


def save_attached(state_dir: Path, strategy: StrategyConfig) -> None:
    """Remember an attached strategy, on disk when this returns."""
    folder = state_dir / FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    path = folder / f"{strategy.name}.yml"
    temporary = path.with_suffix(".new")
    with temporary.open("w", encoding="utf-8") as file:
        yaml.safe_dump(strategy.model_dump(mode="json"), file, sort_keys=False)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def forget_attached(state_dir: Path, name: str) -> bool:
    """Forget a strategy; False if it was not an attached one."""
    path = state_dir / FOLDER / f"{name}.yml"
    if not path.exists():
        return False
    path.unlink()
    return True


def load_attached(state_dir: Path, config: EngineConfig, log: Any) -> list[StrategyConfig]:
    """The attached strategies that still fit this configuration; the others are named in the log and left out."""
    found = []
    for path in sorted((state_dir / FOLDER).glob("*.yml")):
        try:
            strategy = StrategyConfig.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
            check_strategy(config, strategy)
        except (ValueError, ConfigError, yaml.YAMLError) as error:
            log.error("an attached strategy cannot run with this configuration", file=str(path), error=str(error))
        else:
            found.append(strategy)
    return found
