"""A message-id in, the mbox of its series out, by way of b4.

Comes in: what a user typed after `lore:`, a message-id or its address at lore.kernel.org. Goes out:
the mbox that `b4 am` makes of it. It refuses to know how an archive is spoken to; b4 does, with the
user's own configuration (`git config b4.midmask` names another archive).
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import unquote, urlsplit

from harness.errors import HarnessError, UsageError
from harness.programs import require
from harness.progress import Progress, quiet

# b4 itself gives up on a silent server after 30 s for each of its hosts.
PATIENCE_SECONDS = 90.0


def fetch(text: str, progress: Progress = quiet) -> bytes:
    """Return the mbox of the series that the message `text` belongs to.

    Raises UsageError for what is no message-id or unknown to the archive, HarnessError when the
    archive cannot be reached or b4 is not there.
    """
    message_id = read_message_id(text)
    progress(f"fetching {message_id} with b4")
    with tempfile.TemporaryDirectory(prefix="xenverify-b4-") as directory:
        try:
            done = subprocess.run(
                # No trailers of repliers: the patch is to be what its author sent.
                [_b4(), "am", "--no-add-trailers", "--outdir", "-", "--", message_id],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=False,
                cwd=directory,
                timeout=PATIENCE_SECONDS,
            )
        except subprocess.TimeoutExpired:
            raise HarnessError(
                f"b4 had no answer about {message_id} within {PATIENCE_SECONDS:.0f} s",
                advice="Is the archive reachable? Saved mails work without a network.",
            ) from None
    if done.returncode == 0 and done.stdout.strip():
        return done.stdout
    said = [line for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
    if re.search(r"failed|could not|cannot|resolve|refused|timed out", "\n".join(said), re.I) and (
        "404" not in "\n".join(said)
    ):
        raise HarnessError(
            f"b4 could not fetch {message_id}",
            evidence=[line[:200] for line in said[-2:]],
            advice="Is the archive reachable? Saved mails work without a network.",
        )
    raise UsageError(
        f"the mailing list's archive has no patch under {message_id}",
        evidence=[line[:200] for line in said[-3:]],
        advice="Take the Message-Id from the header of one mail of the series.",
    )


def read_message_id(text: str) -> str:
    """Return the message-id in `text`: bare, in angle brackets, or in a lore address."""
    text = text.strip()
    if text.startswith(("http://", "https://")):
        parts = [unquote(part) for part in urlsplit(text).path.split("/") if "@" in unquote(part)]
        text = parts[-1] if parts else text
    message_id = text.strip("<>")
    if not re.fullmatch(r"[^\s<>@/-][^\s<>@/]*@[^\s<>@/]+", message_id):
        raise UsageError(
            f"{text!r} is no message-id",
            advice="One looks like  lore:20240102030405.12345-1-name@example.org",
        )
    return message_id


def _b4() -> str:
    """Return the b4 beside this Python, which ci/setup installed, or else the system's."""
    beside = shutil.which("b4", path=str(Path(sys.executable).parent))
    return beside or str(require("b4"))
