"""A console whose other end is a test."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterable, Iterator
from itertools import count

import pexpect
import pytest

from harness.console import Console


@pytest.fixture
def pair() -> Iterator[tuple[Console, socket.socket]]:
    ours, theirs = socket.socketpair()
    console = Console(ours)
    yield console, theirs
    console.close()
    theirs.close()


Pair = tuple[Console, socket.socket]


def test_keeps_text_with_plain_newlines(pair: Pair) -> None:
    console, xen = pair
    xen.sendall(b"(XEN) one\r\n")
    console.expect("one\n", 5)
    mark = console.mark()
    xen.sendall(b"(XEN) two\r\n")
    console.expect("two\n", 5)
    assert console.text == "(XEN) one\n(XEN) two\n"
    assert console.since(mark) == "(XEN) two\n"


def test_expects_one_thing_after_the_other(pair: Pair) -> None:
    console, xen = pair
    xen.sendall(b"a1 b2 a3")
    assert console.expect(r"a\d", 5) == "a1"
    assert console.expect(r"a\d", 5) == " b2 a3"
    with pytest.raises(pexpect.TIMEOUT):
        console.expect(r"a\d", 0.05)
    xen.sendall(b"a4")
    assert console.expect(r"a\d", 5) == "a4"
    xen.close()
    with pytest.raises(pexpect.EOF):
        console.expect(r"a\d", 5)


def test_types(pair: Pair) -> None:
    console, xen = pair
    console.send("h")
    assert xen.recv(10) == b"h"


def test_knows_when_the_other_end_is_gone(pair: Pair) -> None:
    console, xen = pair
    assert not console.closed
    xen.sendall(b"(XEN) Panic on CPU 0:")  # not even a newline
    xen.close()
    console.drain()
    assert console.closed
    assert console.sick


def test_waits_for_the_end_of_a_crash_and_no_longer(pair: Pair) -> None:
    console, xen = pair
    assert console.crash(5) is None
    xen.sendall(b"(XEN) Xen BUG at mm.c:1\r\n")
    console.wait_for_text(0, 5)
    assert console.sick
    crash = console.crash(0.05)
    assert crash is not None and not crash.whole
    xen.sendall(b"(XEN) registers\r\n(XEN) Manual reset required ('noreboot' specified)\r\n")
    crash = console.crash(5)
    assert crash is not None and crash.whole
    assert len(crash.lines) == 3


def test_waits_for_a_crash_that_is_told_slowly_but_not_for_one_without_end(pair: Pair) -> None:
    console, xen = pair
    enough = threading.Event()

    def tell(lines: Iterable[int]) -> None:
        for number in lines:
            time.sleep(0.02)
            xen.sendall(f"(XEN) register {number}\r\n".encode())
            if enough.is_set():
                return

    xen.sendall(b"(XEN) Xen BUG at mm.c:1\r\n")
    console.wait_for_text(0, 5)
    teller = threading.Thread(target=tell, args=(range(60),))
    teller.start()
    crash = console.crash(1.0)  # less than it takes to tell
    teller.join()
    assert crash is not None and len(crash.lines) == 61
    teller = threading.Thread(target=tell, args=(count(),))
    teller.start()
    assert console.crash(0.1) is not None
    enough.set()
    teller.join()


def test_survives_broken_text_cut_anywhere(pair: Pair) -> None:
    console, xen = pair
    for byte in "é\r\n".encode() + b"\xff\n":
        xen.sendall(bytes([byte]))
        time.sleep(0.005)
    xen.close()
    console.drain()
    assert console.text == "é\n\ufffd\n"


def test_reads_megabytes_and_searches_only_their_end(pair: Pair) -> None:
    console, xen = pair
    line = b"(d1) " + b"x" * 100 + b"\n"
    began = time.monotonic()
    for _ in range(400):
        xen.sendall(line * 100)
    xen.sendall(b"the end\n")
    console.expect("the end\n", 30)
    assert time.monotonic() - began < 10
    assert len(console.text) == 400 * 100 * len(line) + 8
