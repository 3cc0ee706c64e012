"""The command's first instructions: whoever interrupts it while it loads gets a sentence, too."""

from __future__ import annotations

import sys


def main() -> int:
    """Load the commands and run the one that was given; see harness.cli.main."""
    try:
        from harness.cli import main as run
    except KeyboardInterrupt:
        print("xenverify: interrupted; nothing is left behind  (exit 130)", file=sys.stderr)
        return 130
    return run()


if __name__ == "__main__":
    raise SystemExit(main())
