"""A source and a compiler in; out comes where and how make runs on them, for Xen and U-Boot alike.

Refuses to know: what is made.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from harness.cache import Cache
from harness.sandbox import Sandbox
from harness.toolchain import Toolchain

# What a build would otherwise say of the time; equal sources must give equal bytes.
EPOCH = 315532800  # 1980; gzip takes no time before 1970-01-01 00:00:01
HEADERS = ".xenverify-headers"  # beside the source's top level; see note_headers


def place(
    source: Path, toolchain: Toolchain, cache: Cache, *, trusted: bool, confined: bool
) -> Sandbox:
    """Return the sandbox to build `source` in.

    Of the compiler cache, code under review may only read: what it wrote there could get into
    later builds of other trees.
    """
    ccache = None
    if shutil.which("ccache") is not None:
        ccache = cache.root / "ccache"
        ccache.mkdir(parents=True, exist_ok=True)
    return Sandbox(
        directory=source,
        readable=toolchain.homes,
        ccache=ccache,
        ccache_writable=trusted,
        confined=confined,
    )


def compiler(toolchain: Toolchain, sandbox: Sandbox) -> str:
    """Return what make shall call as CC."""
    return f"ccache {toolchain.compiler}" if sandbox.ccache else str(toolchain.compiler)


def environment(sandbox: Sandbox) -> dict[str, str]:
    """Return the whole environment of a build; nothing of the user's gets in."""
    variables = {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": str(sandbox.inside),
        "LC_ALL": "C",
        "TZ": "UTC",
        "SOURCE_DATE_EPOCH": str(EPOCH),
    }
    if sandbox.ccache_inside is not None:
        variables |= {
            "CCACHE_DIR": str(sandbox.ccache_inside),
            "CCACHE_MAXSIZE": "2G",
            "CCACHE_DEPEND": "1",  # cold, 9 % more CPU than no ccache; 25 % without this
            "CCACHE_NOCOMPRESS": "1",
            "CCACHE_EXTRAFILES": str(sandbox.inside / HEADERS),
        }
        if not sandbox.ccache_writable:
            variables |= {"CCACHE_READONLY": "1", "CCACHE_TEMPDIR": "/tmp"}
    return variables


def note_headers(source: Path) -> None:
    """Leave a file that is another one when `#include` could find another file than before.

    ccache looks at the headers that a compilation read the last time, so it does not see a new one
    that comes first in the search path ("caveats" of its direct mode); nor one that Kbuild makes.
    """
    names = [str(path.relative_to(source)) for path in source.rglob("*.h")]
    makers = [path for name in ("Makefile", "Kbuild") for path in source.glob(f"**/asm/{name}")]
    texts = (path.read_text() for path in sorted(makers))
    (source / HEADERS).write_text("\n".join([*sorted(names), *texts, ""]))
