"""What another machine sent along with a command: trees, repositories and commits by their names.

Comes in: the name of a reference, a repository or a change, as the user typed it *there*. Goes out:
what it is here, or None for what was not sent. `harness.remote.sending` is the other end; without
XENVERIFY_SENT in the environment, nothing was.
"""

from __future__ import annotations

import base64
import functools
import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from harness.mails import Letter

VARIABLE = "XENVERIFY_SENT"


@dataclass(frozen=True)
class SentTree:
    """A tree object in a repository here, and what it was called there."""

    repository: str
    tree: str
    commit: str | None
    label: str


@dataclass(frozen=True)
class Sent:
    """Everything that was sent along; the keys are the user's words."""

    trees: dict[str, SentTree] = field(default_factory=dict)  # by reference
    places: dict[str, str] = field(default_factory=dict)  # a repository by its PATH
    letters: dict[str, tuple[Letter, ...]] = field(default_factory=dict)  # by change

    def write(self) -> str:
        """Return it as text."""
        letters = {
            name: [asdict(one) | {"text": base64.b64encode(one.text).decode()} for one in several]
            for name, several in self.letters.items()
        }
        trees = {name: asdict(tree) for name, tree in self.trees.items()}
        return json.dumps({"trees": trees, "places": self.places, "letters": letters})

    @classmethod
    def read(cls, text: str) -> Sent:
        """Return what `write` wrote."""
        data: dict[str, Any] = json.loads(text)
        return cls(
            {name: SentTree(**tree) for name, tree in data["trees"].items()},
            data["places"],
            {name: tuple(map(_letter, several)) for name, several in data["letters"].items()},
        )


def _letter(data: dict[str, Any]) -> Letter:
    position = data["position"]
    return Letter(
        **data
        | {
            "text": base64.b64decode(data["text"]),
            "position": tuple(position) if position else None,
        }
    )


def sent() -> Sent:
    """Return what was sent along with this command."""
    file = os.environ.get(VARIABLE)
    return _read(file) if file else Sent()


@functools.cache
def _read(file: str) -> Sent:
    return Sent.read(Path(file).read_text())
