"""lore:MESSAGE-ID by way of the real b4, which speaks to an archive on this machine or to none."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import pytest

from harness import lore
from harness.changes import apply, read_change
from harness.errors import ChangeError, ExitCode, HarnessError, UsageError
from harness.tests.test_changes import AFTER_SERIES
from harness.tests.toytree import DATA, Toy, make_toy

KNOWN = "v2-1@bells.example"
PART = (
    (DATA / "one.patch")
    .read_bytes()
    .replace(b"\nSubject:", b"\nMessage-Id: <v2-1@bells.example>\nSubject:")
)
THREADS = {KNOWN: (DATA / "thread.mbox").read_bytes()}  # what the archive has, by one of its ids


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    return make_toy(tmp_path)


def ask_at(address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let b4 look for threads at `address`, with a cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "b4-cache"))
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "b4.midmask")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", f"{address}/all/%s")


@pytest.fixture
def archive(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Serve the thread in data/ at the address a public-inbox would."""

    class Archive(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = unquote(self.path).removeprefix("/all/").removesuffix("/t.mbox.gz")
            self.send_response(200 if name in THREADS else 404)
            self.end_headers()
            if name in THREADS:
                self.wfile.write(gzip.compress(THREADS[name]))

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            """Keep the terminal to the tests."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Archive) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        ask_at(f"http://127.0.0.1:{server.server_port}", monkeypatch, tmp_path)
        yield
        server.shutdown()


@pytest.mark.usefixtures("archive")
@pytest.mark.parametrize("form", [KNOWN, f"<{KNOWN}>", f"https://lore.kernel.org/all/{KNOWN}/"])
def test_a_series_is_fetched_by_the_id_of_one_of_its_mails(toy: Toy, form: str) -> None:
    heard: list[str] = []
    series = read_change(f"lore:{form}", toy.tree(), toy.cache, progress=heard.append)
    assert [patch.position for patch in series.patches] == [(1, 2), (2, 2)]
    assert series.version == 2
    assert apply(toy.tree(), series).tree == AFTER_SERIES
    assert heard == [f"fetching {KNOWN} with b4"]


@pytest.mark.usefixtures("archive")
def test_an_id_the_archive_does_not_know(toy: Toy) -> None:
    with pytest.raises(UsageError, match=r"has no patch under nobody@bells\.example"):
        read_change("lore:nobody@bells.example", toy.tree(), toy.cache)


@pytest.mark.usefixtures("archive")
def test_a_series_the_archive_has_only_part_of(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(THREADS, KNOWN, PART)
    with pytest.raises(ChangeError, match="not whole: it lacks patch 2/2"):
        read_change(f"lore:{KNOWN}", toy.tree(), toy.cache)


def test_an_archive_that_cannot_be_reached(
    toy: Toy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ask_at("http://127.0.0.1:1", monkeypatch, tmp_path)
    with pytest.raises(HarnessError, match="b4 could not fetch") as caught:
        read_change(f"lore:{KNOWN}", toy.tree(), toy.cache)
    assert caught.value.exit_code is ExitCode.HARNESS_FAILED
    assert "Saved mails work without a network" in caught.value.advice


def test_an_archive_that_never_answers(
    toy: Toy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Silent(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            done.wait()

        do_HEAD = do_GET

    done = threading.Event()
    with ThreadingHTTPServer(("127.0.0.1", 0), Silent) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        ask_at(f"http://127.0.0.1:{server.server_port}", monkeypatch, tmp_path)
        monkeypatch.setattr(lore, "PATIENCE_SECONDS", 3.0)
        with pytest.raises(HarnessError, match=r"no answer about .* within 3 s"):
            read_change(f"lore:{KNOWN}", toy.tree(), toy.cache)
        done.set()
        server.shutdown()


@pytest.mark.parametrize("text", ["", "nonsense", "--help@x", "a b@c", "a@b;rm", "https://x/y/"])
def test_what_is_no_message_id(toy: Toy, text: str) -> None:
    if text == "a@b;rm":  # odd, but nothing a shell would see
        assert lore.read_message_id(text) == text
        return
    with pytest.raises(UsageError, match="is no message-id"):
        read_change(f"lore:{text}", toy.tree(), toy.cache)
