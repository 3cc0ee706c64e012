"""Which lines of a failed build's log are shown. The texts are what gcc, ld and make print."""

from __future__ import annotations

from harness.buildlog import decisive_lines, ran_out_of_room

COMPILER = """\
make[1]: Entering directory '/xen/xen'
  CC      common/bell.o
In file included from common/bell.c:3:
common/bell.c:12:5: error: 'bells' undeclared (first use in this function)
   12 |     bells++;
      |     ^~~~~
common/bell.c:12:5: note: each undeclared identifier is reported only once
  CC      common/rope.o
make[2]: *** [Rules.mk:246: common/bell.o] Error 1
make[1]: *** [Makefile:610: __build] Error 2
make: *** [Makefile:180: build] Error 2
"""


def test_a_compilers_complaint_comes_with_its_source_line() -> None:
    assert decisive_lines(COMPILER) == [
        "common/bell.c:12:5: error: 'bells' undeclared (first use in this function)",
        "   12 |     bells++;",
        "      |     ^~~~~",
    ]


def test_a_linkers_complaint_is_found() -> None:
    line = "aarch64-linux-gnu-ld: bell.c:7: undefined reference to `rope'"
    assert decisive_lines(f"  LD  xen-syms\n{line}\nmake: *** [Makefile:1: xen] Error 1") == [line]


def test_makes_own_complaint_is_found() -> None:
    line = "make[1]: *** No rule to make target 'bell.o', needed by 'built_in.o'.  Stop."
    assert decisive_lines(f"  CC x.o\n{line}\nmake: *** [Makefile:1: build] Error 2") == [line]


def test_a_recipe_that_fails_shows_what_came_before() -> None:
    said = ["gzip -c x", "gzip: x: time out of range", "make[2]: *** [Makefile:9: x.gz] Error 2"]
    rest = ["make[1]: Leaving directory '/xen'", "make: *** [Makefile:3: all] Error 2"]
    assert decisive_lines("\n".join([*said, *rest])) == said
    assert decisive_lines("\n".join(["other", *said, *rest])) == said


def test_anything_else_shows_the_end() -> None:
    text = "\n".join(str(number) for number in range(100))
    assert decisive_lines(text)[-1] == "99"
    assert decisive_lines("") == []


def test_a_log_cannot_draw_on_the_readers_terminal() -> None:
    text = "x.c:1:1: \x1b[31merror: \x1b[0m\x1b]0;title\x07bad\r\n"
    [line] = decisive_lines("x.c:1:1: error: \x1b[31mbad\x1b[0m\x07\n")
    assert line == "x.c:1:1: error: bad"
    assert all(character >= " " for line in decisive_lines(text) for character in line)


def test_no_more_is_shown_than_is_read() -> None:
    assert len(decisive_lines("x.c:1:1: error: bad\n" * 500)) <= 12


def test_a_full_disk_is_told_from_a_bad_source() -> None:
    assert ran_out_of_room("fatal error: error writing to x.s: No space left on device")
    assert not ran_out_of_room(COMPILER)
