"""A tree in, a patch to it out that makes Xen wrong in a known way: material for tests and trials.

Comes in: the name of an edit and a Xen tree from 4.11 to master. Goes out: a `git format-patch`
mail. It refuses to hold any text of Xen's: each edit finds its place by what the code there means,
when it is asked for, and the patch is made of the tree at hand.

    python -m harness.tests.edits allow-second-map --on debian:bookworm > allow-second-map.patch
    python -m harness.tests.edits --list

`--fix` turns the patch round: it goes from the wrong Xen to the tree, so that the tree has it and
`xenverify verify --reverse` takes it out. More than one name makes a series.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.cache import default_cache
from harness.errors import UsageError
from harness.git import GitError, git
from harness.references import resolve
from harness.trees import Tree

MM = ("xen/arch/arm/mm.c",)
P2M = ("xen/arch/arm/mmu/p2m.c", "xen/arch/arm/p2m.c")  # moved in 4.19
SETUP = ("xen/arch/arm/setup.c",)


@dataclass(frozen=True)
class Edit:
    """One way to make Xen wrong, and the files that may hold the place, likeliest first."""

    meaning: str
    files: tuple[str, ...]
    change: Callable[[str], str | None]  # None: the place is not in this file


class NoPlaceError(UsageError):
    """The tree has no code that this edit is about: Xen before 4.17 keeps no GFN in the page."""


def _within(function: str, pattern: str, replacement: str) -> Callable[[str], str | None]:
    """Return a change of the first match of `pattern` inside one function."""

    def change(text: str) -> str | None:
        head = re.search(rf"^[\w *]*\b{function}\([^;{{]*\)\s*^\{{", text, re.MULTILINE)
        if head is None:
            return None
        end = text.index("\n}", head.end())
        body, count = re.subn(pattern, replacement, text[head.end() : end], count=1)
        return text[: head.end()] + body + text[end:] if count else None

    return change


def _at_boot(statement: str, after: str = "console_init_postirq", include: str = "") -> Edit:
    """Return an edit that runs `statement` while Xen boots, before there is any domain."""

    def change(text: str) -> str | None:
        text = text.replace("\n#include", f"\n{include}\n#include", 1) if include else text
        return _within("start_xen", rf"\n( *){after}\(\);", rf"\g<0>\n\1{statement}")(text)

    return Edit(f"while booting: {statement}", SETUP, change)


def _on_second_map(statement: str) -> Edit:
    """Return an edit that runs `statement` where a second map of a page is refused."""
    change = _within("xenmem_add_to_physmap_one", r"rc = -EBUSY;", statement)
    return Edit(f"on a second map: {statement}", MM, change)


def _appended(text: str, files: tuple[str, ...] = MM) -> Edit:
    return Edit(f"at the end of the file: {text}", files, lambda content: content + text + "\n")


EDITS: dict[str, Edit] = {
    "allow-second-map": Edit(
        "a Xen heap page may be mapped at a second GFN",
        MM,
        _within(
            "xenmem_add_to_physmap_one",
            r"if \( gfn_eq\(page_get_xenheap_gfn\(.*?\), INVALID_GFN\) \)",
            "if ( true )",
        ),
    ),
    "keep-stale-gfn": Edit(
        "a removed Xen heap page keeps its stored GFN",
        P2M,
        _within(
            "p2m_put_l3_page",
            r"page_set_xenheap_gfn\(.*?, INVALID_GFN\);",
            "(void)mfn; /* xenverify: the stored GFN stays as it was. */",
        ),
    ),
    "wrong-errno": _on_second_map("rc = -EEXIST;"),
    "flaky-second-map": _on_second_map("rc = (READ_SYSREG64(CNTPCT_EL0) & 16) ? -EBUSY : 0;"),
    "panic-on-hypercall": _on_second_map(r'panic("xenverify: mapped a second time\\n");'),
    "hang-on-hypercall": _on_second_map("for ( ; ; ) cpu_relax();"),
    "panic-at-boot": _at_boot(r'panic("xenverify: no further\\n");', "console_init_preirq"),
    "hang-at-boot": _at_boot("for ( ; ; ) cpu_relax();"),
    "does-not-boot-quietly": _at_boot("call_psci_system_off();", include="#include <asm/psci.h>"),
    "does-not-build": _appended("int xenverify_wants = what_nobody_declared;"),
    "comment-only": _appended("/* xenverify was here. */"),
    "docs-only": _appended("xenverify was here.", ("README",)),
}


def make_patch(names: Sequence[str], tree: Tree, *, fix: bool = False) -> bytes:
    """Return the edits `names` of `tree` as mails: one patch, or a series in that order.

    With `fix` each patch leads from the wrong Xen towards `tree`, the last edit undone first.
    Raises NoPlaceError if the tree lacks the code to edit.
    """
    with tempfile.TemporaryDirectory(prefix="xenverify-edits-") as directory:
        objects = Path(directory) / "objects"
        objects.mkdir()
        environment = {  # what is made here goes away with the directory
            "GIT_INDEX_FILE": f"{directory}/index",
            "GIT_OBJECT_DIRECTORY": str(objects),
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": str(tree.repository / "objects"),
        }

        def run(*arguments: str, stdin: bytes = b"") -> bytes:
            return git(tree.repository, *arguments, stdin=stdin, environment=environment)

        run("read-tree", tree.tree)
        trees = [tree.tree]
        for name in names:
            path, content = _edited(name, run, trees[-1])
            blob = run("hash-object", "-w", "--stdin", stdin=content).decode().strip()
            mode = run("ls-files", "--stage", "--", path).split()[0].decode()
            run("update-index", "--cacheinfo", f"{mode},{blob},{path}")
            trees.append(run("write-tree").decode().strip())
        steps = list(zip(names, trees, trees[1:], strict=False))
        if fix:
            steps = [(name, wrong, right) for name, right, wrong in reversed(steps)]
        mails = [
            _mail(name, number, len(steps), run("diff-tree", "-p", "--full-index", old, new), fix)
            for number, (name, old, new) in enumerate(steps, start=1)
        ]
    return b"".join(mails)


def _edited(name: str, run: Callable[..., bytes], tree: str) -> tuple[str, bytes]:
    """Return the file that an edit is about, and its content with the edit made."""
    edit = EDITS[name]
    for path in edit.files:
        try:
            before = run("cat-file", "blob", f"{tree}:{path}")
        except GitError:  # another version's file
            continue
        after = edit.change(before.decode("latin-1"))
        if after is not None:
            return path, after.encode("latin-1")
    raise NoPlaceError(f"nothing to edit for {name}", evidence=edit.files)


def _mail(name: str, number: int, total: int, diff: bytes, fix: bool) -> bytes:
    place = f" {number}/{total}" if total > 1 else ""
    aim = "right again" if fix else "wrong"
    return (
        (
            f"From {'0' * 40} Mon Sep 17 00:00:00 2001\n"
            "From: xenverify <xenverify@localhost>\n"
            "Date: Thu, 1 Jan 2026 00:00:00 +0000\n"
            f"Subject: [PATCH{place}] Make Xen {aim}: {name}\n\n"
            f"For trials of xenverify only: {EDITS[name].meaning}\n---\n"
        ).encode()
        + diff
        + b"-- \n1.0\n\n"
    )


def main() -> None:
    """Write one patch or a series to standard output."""
    parser = argparse.ArgumentParser(prog="python -m harness.tests.edits", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("names", nargs="*", metavar="NAME", choices=[*EDITS, []])
    parser.add_argument("--on", metavar="REFERENCE", help="the tree to edit")
    parser.add_argument("--fix", action="store_true", help="turn the patch round")
    parser.add_argument("--list", action="store_true", help="say what edits there are")
    options = parser.parse_args()
    if options.list:
        print(*(f"{name:22} {edit.meaning}" for name, edit in EDITS.items()), sep="\n")
    elif not options.names or not options.on:
        parser.error("name an edit and, with --on, the tree to edit")
    else:
        tree = resolve(options.on, default_cache())
        sys.stdout.buffer.write(make_patch(options.names, tree, fix=options.fix))


if __name__ == "__main__":
    main()
