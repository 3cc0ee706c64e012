"""A profile's name in, a QEMU machine out: `qemu/NAME.toml` read, checked, and put as arguments.

What runs on the machine, this does not know: no Xen, no domain, no process.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from harness.errors import UsageError

PROFILES = Path(__file__).resolve().parent.parent / "qemu"
DEFAULT = "virt-gicv3"
MIB = 1 << 20

Kind = TypeVar("Kind", str, int)


@dataclass(frozen=True)
class Machine:
    """A machine as QEMU shall make it; addresses and sizes are bytes unless they say MiB."""

    name: str
    summary: str
    program: str
    board: str
    cpu: str
    cpus: int
    ram_base: int
    ram_mib: int
    modules: int
    """The first address where a boot module may lie: clear of Xen and of QEMU's DTB."""
    options: Mapping[str, str] = field(default_factory=dict)
    cpu_properties: Mapping[str, str] = field(default_factory=dict)

    @property
    def ram_size(self) -> int:
        """Bytes of RAM."""
        return self.ram_mib * MIB

    @property
    def ram_end(self) -> int:
        """The first address behind RAM."""
        return self.ram_base + self.ram_size

    def at_least(self, *, cpus: int = 1, ram_mib: int = 0) -> Machine:
        """The same machine, grown where a scenario needs more of it."""
        return replace(self, cpus=max(self.cpus, cpus), ram_mib=max(self.ram_mib, ram_mib))

    def arguments(self, memory_backend: str = "") -> list[str]:
        """QEMU's arguments for the bare machine: mute, and ended by a reboot."""
        backend = {"memory-backend": memory_backend} if memory_backend else {}
        return [
            *("-machine", _with_options(self.board, {**self.options, **backend})),
            *("-cpu", _with_options(self.cpu, self.cpu_properties)),
            *("-smp", str(self.cpus)),
            *("-m", str(self.ram_mib)),
            *("-nodefaults", "-display", "none", "-no-reboot"),
        ]


def machine_names() -> list[str]:
    """The names of all profiles, the default first."""
    names = sorted(path.stem for path in PROFILES.glob("*.toml"))
    return sorted(names, key=lambda name: name != DEFAULT)


def load_machine(name: str = DEFAULT) -> Machine:
    """Read the profile `name`; raise UsageError when there is none, or when it is not whole."""
    if name not in machine_names():
        raise UsageError(
            f"there is no machine called {name!r}",
            advice="Machines: " + ", ".join(machine_names()),
        )
    return read_profile(PROFILES / f"{name}.toml")


def read_profile(path: Path) -> Machine:
    """Read one profile file, or raise UsageError with the place that is wrong."""
    try:
        profile = tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise UsageError(f"{path} is not a machine profile: {problem}") from problem
    machine = Machine(
        name=path.stem,
        summary=_value(profile, path, str, "summary"),
        program=_value(profile, path, str, "qemu", "program"),
        board=_value(profile, path, str, "qemu", "machine"),
        options=_strings(profile, path, "qemu", "options"),
        cpu=_value(profile, path, str, "cpu", "model"),
        cpu_properties=_strings(profile, path, "cpu", "properties"),
        cpus=_value(profile, path, int, "cpu", "count"),
        ram_base=_value(profile, path, int, "memory", "base"),
        ram_mib=_value(profile, path, int, "memory", "mib"),
        modules=_value(profile, path, int, "memory", "modules"),
    )
    if not machine.ram_base < machine.modules < machine.ram_end:
        raise UsageError(f"{path}: memory.modules lies outside RAM")
    return machine


def _value(profile: Mapping[str, Any], path: Path, kind: type[Kind], *keys: str) -> Kind:
    value: Any = profile
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    if type(value) is not kind:
        wanted = "a number" if kind is int else "a string"
        raise UsageError(f"{path}: {'.'.join(keys)} must be {wanted}")
    return value


def _strings(profile: Mapping[str, Any], path: Path, *keys: str) -> dict[str, str]:
    table: Any = profile
    for key in keys:
        table = table.get(key, {}) if isinstance(table, Mapping) else None
    if not isinstance(table, dict) or not all(isinstance(text, str) for text in table.values()):
        raise UsageError(f"{path}: {'.'.join(keys)} must be a table of strings")
    return dict(table)


def _with_options(name: str, options: Mapping[str, str]) -> str:
    return ",".join([name, *(f"{key}={value}" for key, value in options.items())])
