"""Where U-Boot's source says what it is: for `harness.references`, which resolves the rest."""

from __future__ import annotations

import re

from harness.projects import Project


def _version(makefile: str) -> str | None:
    fields = dict(re.findall(r"(?m)^(VERSION|PATCHLEVEL|EXTRAVERSION) =[ \t]*(\S*)", makefile))
    # The kernel's Makefile looks the same; its versions are no years.
    if not re.fullmatch(r"20\d\d", fields.get("VERSION", "")) or not fields.get("PATCHLEVEL"):
        return None
    return f"{fields['VERSION']}.{fields['PATCHLEVEL']}{fields.get('EXTRAVERSION', '')}"


UBOOT = Project(
    name="U-Boot",
    package="u-boot",
    makefile="Makefile",
    version=_version,
    products=("*.o", "*.a", "*.su", ".*.cmd", "/u-boot*", "/.config*", "/include/config/",
              "/include/generated/", "/include/autoconf*", "/spl/"),
)  # fmt: skip
