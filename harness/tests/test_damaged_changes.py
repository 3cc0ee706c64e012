"""Damaged input of every kind is read or refused in a sentence; it never ends in a traceback."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from harness.diffreading import read_diff
from harness.diffs import render
from harness.errors import ChangeError
from harness.mails import read_letters
from harness.placing import place
from harness.series import choose
from harness.tests.toytree import BELL, CLOCK, DATA

SAMPLES = [path.read_bytes() for path in sorted(DATA.glob("*.*"))]
MODES = {BELL: "100644", CLOCK: "100644", "xen/link": "120000"}
PIECES = [
    *(b"\n", b"\r\n", b"\0", b"\xff", b" ", b'"', b"--- ", b"+++ ", b"../", b"\\ No", b"<pre>"),
    *(b"@@ -1 +1 @@\n", b"@@ -99999999999999999999,0 +1 @@\n", b"diff --git a/x b/x\n"),
    *(b"old mode ", b"rename from ", b"index 0000000..e69de29\n", b"Patch\n", b"=?utf-8?q?"),
    *(b"From x 1 00:00:00 2026\n", b"Content-Type: multipart/mixed\n"),
    b"Content-Transfer-Encoding: base64\n",
]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Return a sample with a few slices taken out, doubled, or replaced by a piece of another."""
    data = draw(st.sampled_from(SAMPLES))
    for _ in range(draw(st.integers(1, 6))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.sampled_from([0, 1, 2, 30, 300, len(data)])))
        piece = draw(st.one_of(st.sampled_from(PIECES), st.binary(max_size=4)))
        middle = draw(st.sampled_from([b"", data[start:end] * 2, piece]))
        data = data[:start] + middle + data[end:]
    return data


@settings(max_examples=150, deadline=None, print_blob=True)
@given(damaged())
def test_damage_is_refused_or_read(data: bytes) -> None:
    try:
        chosen, _, _ = choose(read_letters(data))
        for letter in chosen:
            files, _ = place(read_diff(letter.text).files, MODES, lambda _: b"a\nb\n")
            again, _ = place(read_diff(render(files)).files, MODES, lambda _: b"a\nb\n")
            assert render(again) == render(files)
    except ChangeError as error:
        assert error.message and "\n" not in error.message
