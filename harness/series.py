"""Letters in, the ones that make one series out, in the order they apply.

Comes in: what a mail, an mbox or a range of commits holds. Goes out: `Patch` and `Series`, the
values that later stages take. It refuses to know trees, and to guess which of two is meant.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.diffs import FileChange
from harness.errors import ChangeError
from harness.mails import Letter


@dataclass(frozen=True)
class Patch:
    """One patch: who, what, and a diff that `git apply -p1` reads."""

    subject: str
    author: str
    date: str  # ISO 8601 where the source says so
    position: tuple[int, int] | None  # (1, 2): the first of two
    diff: bytes
    files: tuple[FileChange, ...]
    notes: tuple[str, ...] = ()  # what was mended or guessed
    bases: tuple[str, ...] = ()  # commits its author says it is based on

    @property
    def added(self) -> int:
        """How many lines it adds."""
        return sum(file.added for file in self.files)

    @property
    def removed(self) -> int:
        """How many lines it takes away."""
        return sum(file.removed for file in self.files)


@dataclass(frozen=True)
class Series:
    """One change: its patches in the order they apply."""

    origin: str  # as the user named it; a file by its name alone
    patches: tuple[Patch, ...]
    version: int = 1
    cover: str = ""  # the cover letter's subject
    notes: tuple[str, ...] = ()

    @property
    def subject(self) -> str:
        """What the whole of it is called: by its cover letter, else by its first patch."""
        return self.cover or self.patches[0].subject

    @property
    def added(self) -> int:
        """How many lines its patches add."""
        return sum(patch.added for patch in self.patches)

    @property
    def removed(self) -> int:
        """How many lines its patches take away."""
        return sum(patch.removed for patch in self.patches)

    @property
    def files(self) -> tuple[str, ...]:
        """Every file its patches touch, each once, in order."""
        return tuple(dict.fromkeys(file.path for patch in self.patches for file in patch.files))

    def label(self, patch: Patch) -> str:
        """Return what to call one patch of this series: `2/3 "subject"`."""
        place = self.patches.index(patch) + 1
        number = f"{place}/{len(self.patches)}" if len(self.patches) > 1 else ""
        if not number and patch.position is not None:
            number = "{}/{}".format(*patch.position)
        name = f'"{patch.subject}"' if patch.subject else ""
        return " ".join(filter(None, (number, name))) or self.origin


def choose(
    letters: tuple[Letter, ...], *, whole: bool = False
) -> tuple[tuple[Letter, ...], str, tuple[str, ...]]:
    """Return the letters that make one series, in order; its cover's subject; what was left out.

    Of several versions the last counts; replies and talk do not. One patch of a series is taken
    alone, for a file may hold just that, unless the `whole` is asked for.
    """
    patches = [one for one in letters if one.has_diff and not one.reply and not one.is_cover]
    replies = [one for one in letters if one.has_diff and one.reply]
    notes: list[str] = []
    if not patches and len(replies) == 1:
        patches = replies
        notes.append("the patch is in a reply")
    if not patches:
        raise ChangeError(
            "no diff in it" + (f" ({len(letters)} messages)" if len(letters) > 1 else ""),
            advice="A change is a git format-patch mail, an mbox, a patchwork page or a diff; "
            "a reply that quotes a patch is none.",
        )
    newest = max(one.version for one in patches)
    older = sorted({one.version for one in patches} - {newest})
    if older:
        notes.append(f"v{newest} taken, {', '.join(f'v{v}' for v in older)} passed over")
    patches = _in_order([one for one in patches if one.version == newest], whole)
    covers = [one for one in letters if one.is_cover and one.version == newest and not one.reply]
    if covers:
        notes.append("cover letter passed over")
    talk = len(letters) - len(covers) - sum(one.has_diff and not one.reply for one in letters)
    if talk and patches != replies:
        notes.append(f"{talk} message{'s' * (talk > 1)} without a patch passed over")
    if len(patches) == 1 and (place := patches[0].position) is not None and place[1] > 1:
        notes.append(f"patch {place[0]} of a series of {place[1]}, alone")
    cover = covers[0].subject if covers and len(patches) > 1 else ""
    return tuple(patches), cover, tuple(notes)


def _in_order(patches: list[Letter], whole: bool) -> list[Letter]:
    """Sort by n/m and make sure that the series is whole; without numbers, keep the order."""
    unique: dict[object, Letter] = {}
    for one in patches:  # a list and its author may both have sent it, the one with a footer
        unique.setdefault(one.message_id or (one.subject, one.text), one)
    patches = list(unique.values())
    numbered = [one for one in patches if one.position is not None]
    if not numbered or (len(patches) == 1 and not whole):
        return patches
    if len(numbered) < len(patches):
        stray = next(one for one in patches if one.position is None)
        raise ChangeError(
            f'it holds a series and, outside its numbers, the patch "{stray.subject}"',
            advice="Give them as separate files, in the order they apply.",
        )
    totals = {one.position[1] for one in numbered if one.position}
    if len(totals) > 1:
        counts = " and ".join(str(total) for total in sorted(totals))
        raise ChangeError(
            f"it holds more than one series, of {counts} patches",
            advice="Give them as separate files, in the order they apply.",
        )
    by_place: dict[int, Letter] = {}
    for one in numbered:
        place = one.position[0] if one.position else 0
        if place in by_place:
            raise ChangeError(
                f"it holds two different patches {place}/{max(totals)}",
                evidence=[by_place[place].subject, one.subject],
                advice="Leave in only the one you mean.",
            )
        by_place[place] = one
    if missing := [place for place in range(1, max(totals) + 1) if place not in by_place]:
        numbers = ", ".join(f"{place}/{max(totals)}" for place in missing)
        raise ChangeError(
            f"the series is not whole: it lacks patch {numbers}",
            advice="Fetch the whole thread, or give the patches you want as separate files.",
        )
    return [by_place[place] for place in sorted(by_place)]
