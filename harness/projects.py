"""What tells the source of one program from that of another: where it says its version, and so on.

Comes in: nothing. Goes out: `Project` values, for whoever resolves references.
Refuses to know: how a source is fetched, built or used.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Project:
    """One program that is built from source."""

    name: str  # for people
    package: str  # Debian's source package
    makefile: str  # the file that says the version; a source without it is not this program's
    version: Callable[[str], str | None]  # that file's text to the version
    reads: tuple[str, ...] = (".",)  # what of a source its build reads
    products: tuple[str, ...] = ()  # what a build leaves behind in a source, as git's patterns


def _xen_version(makefile: str) -> str | None:
    fields = dict(re.findall(r"(?m)^export XEN_(\w+)\s*\??:?=[ \t]*(.*?)[ \t]*$", makefile))
    version, subversion = fields.get("VERSION", ""), fields.get("SUBVERSION", "")
    if not (version.isdigit() and subversion.isdigit()):
        return None
    extra = re.sub(r"\$\(.*?\)", "", fields.get("EXTRAVERSION", ""))
    return f"{int(version)}.{int(subversion)}{extra}"


XEN = Project(
    name="Xen",
    package="xen",
    makefile="xen/Makefile",
    version=_xen_version,
    # In every version from 4.11 to master: the FLASK policy where checkpolicy is installed
    # (xen/xsm/flask/Makefile), everything else through Config.mk.
    reads=("Config.mk", "config", "tools/flask/policy", "xen"),
    # Stale objects in a build would be taken for new.
    products=(
        "*.o", "*.a", "*.d", "*.d2", ".*.cmd", "*.pyc", "*.orig", "*.rej",
        "/xen/xen", "/xen/xen.*", "/xen/xen-syms*", "/xen/.xen*", "/xen/.banner", "/xen/.config*",
        "/xen/arch/*/xen.lds", "/xen/arch/*/asm-offsets.s", "/xen/common/config.gz",
        "/xen/include/asm", "/xen/include/config/", "/xen/include/generated/",
        "/xen/include/asm-*/asm-offsets.h", "/xen/include/xen/compile.h",
        "/xen/arch/*/include/generated/", "/xen/tools/symbols", "/xen/tools/fixdep",
        "/xen/asm-offsets.s", "/xen/source", "/xen/.allconfig.tmp", "/xen/common/config_data.S",
        "/xen/arch/arm/efi/boot.c", "/xen/arch/arm/efi/ebmalloc.c", "/xen/arch/arm/efi/pe.c",
        "/xen/arch/arm/efi/runtime.c", "/xen/arch/*/include/asm/asm-offsets.h",
        "/xen/include/hypercall-defs.i", "/xen/include/xen/hypercall-defs.h",
        "/xen/xsm/flask/include/*_to_string.h", "/xen/xsm/flask/include/av_permissions.h",
        "/xen/xsm/flask/include/flask.h", "/xen/xsm/flask/policy.bin",
        "/xen/xsm/flask/flask-policy.S", "/xen/tools/kconfig/conf",
        "/xen/tools/kconfig/*.lex.c", "/xen/tools/kconfig/*.tab.[ch]",
    ),
)  # fmt: skip
