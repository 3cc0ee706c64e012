"""How a stage says what it is doing, without knowing who listens: a phrase goes to a callable."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str], None]


def quiet(phrase: str) -> None:
    """Listen to nothing: the default of every stage."""
    del phrase
