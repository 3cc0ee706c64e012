"""Text in, a file out that is whole or not there: written aside, then renamed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def write_whole(path: Path, text: str) -> None:
    """Put `text` at `path`; a reader, or an interruption, never meets half of it."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_text(text, encoding="utf-8")
    aside.replace(path)


def write_json(path: Path, data: Any) -> None:
    """Put `data` at `path` as JSON that a person can read, too."""
    write_whole(path, json.dumps(data, indent=2, ensure_ascii=False) + "\n")
