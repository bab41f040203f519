"""Strategies: the interface to write one against, and the ones that ship."""

from engine.strategies.base import BookView, Desk, Strategy

__all__ = ["BookView", "Desk", "Strategy"]
