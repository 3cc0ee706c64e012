"""`python -m harness.linux_dom0.relock`: make packages.json from what Debian's mirror has today.

The packages are those that some file of the image comes from, found by making the image from
everything that installing ROOTS would install; and those that Xen's tools are built with. For
developers: nothing else imports this.
"""

from __future__ import annotations

from harness.cache import Cache, default_cache
from harness.debian_apt import Apt, BinaryPackage, find_mirrors
from harness.linux_dom0.files import read_packages, select
from harness.linux_dom0.image import WANTED, _may_be_wanted
from harness.linux_dom0.packages import ARCHITECTURE, SUITE, fetch, write_lock

ROOTS = (
    "bash", "busybox-static", "linux-image-cloud-arm64", "openssh-server", "util-linux",
    "xen-utils-4.17", "xenstore-utils",
)  # fmt: skip
# Headers, and the libraries behind them: what a cross-built xl is compiled and linked against.
SYSROOT = (
    "libc6", "libc6-dev", "libfdt-dev", "libfdt1", "libncurses-dev", "libncurses6", "libtinfo6",
    "libuuid1", "libyajl-dev", "libyajl2", "linux-libc-dev", "uuid-dev", "zlib1g", "zlib1g-dev",
)  # fmt: skip


def main() -> None:
    """Write the lock."""
    cache = default_cache()
    with cache.scratch("relock") as scratch:
        apt = Apt(scratch, find_mirrors(), architecture=ARCHITECTURE)
        apt.fetch_binary_indexes(SUITE)
        candidates = apt.binary_packages(apt.closure(ROOTS))
        sysroot = apt.binary_packages(SYSROOT)
    write_lock({"dom0": _used(candidates, cache), "sysroot": sysroot})


def _used(candidates: list[BinaryPackage], cache: Cache) -> list[BinaryPackage]:
    """Return those of `candidates` that the image has something of."""
    paths = dict(zip(fetch(candidates, cache, print), candidates, strict=True))
    files = read_packages(paths, _may_be_wanted)
    used = {file.package for file in select(files, WANTED).values()}
    used |= {file.package for path, file in files.items() if path.startswith("boot/vmlinuz-")}
    return [package for path, package in paths.items() if path in used]


if __name__ == "__main__":
    main()
