"""Which Makefile is U-Boot's."""

import pytest

from harness.uboot.sources import UBOOT


@pytest.mark.parametrize(
    ("makefile", "version"),
    [
        ("VERSION = 2021\nPATCHLEVEL = 01\nSUBLEVEL =\nEXTRAVERSION =\n", "2021.01"),
        ("VERSION = 2026\nPATCHLEVEL = 10\nSUBLEVEL =\nEXTRAVERSION = -rc2\n", "2026.10-rc2"),
        ("VERSION = 6\nPATCHLEVEL = 1\nSUBLEVEL = 0\nEXTRAVERSION =\n", None),
        ("all:\n", None),
        ("VERSION = 2021\n", None),
    ],
    ids=["release", "candidate", "Linux", "another", "half"],
)
def test_the_version_is_read(makefile: str, version: str | None) -> None:
    assert UBOOT.version(makefile) == version
