"""The locked packages in, a kernel and a root file system for a dom0 out, in seconds.

Comes in: nothing but the cache. Goes out: `Image`; `personal` adds to it what one dom0 alone has,
its keys. Refuses to know: how it is booted.

Facts from trials: the cloud kernel has Xen's dom0 support, hvc and the backends built in, the rest
are modules. Debian's /usr/sbin/xl is a wrapper that picks a version, so PATH names the real one. A
missing /var/lock breaks xenconsole; a missing /dev/stdin and /dev/fd make Xen's block script spin.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from harness.cache import Cache
from harness.errors import HarnessError
from harness.linux_dom0 import cpio, files
from harness.linux_dom0.cpio import Entry, character_device, directory, link, regular
from harness.linux_dom0.files import MERGED, Files, read_packages, select, select_modules
from harness.linux_dom0.packages import fetch, fingerprint, read_lock
from harness.linux_dom0.privcmd import PROGRAM, program
from harness.linux_dom0.tools import Tools
from harness.progress import Progress, quiet

RECIPE = 1
OURS = Path(__file__).parents[2] / "guest-kernels" / "linux-dom0"
TOOLS = "usr/lib/xen-4.17/bin"
# Of the packages, these files and the libraries they load.
WANTED = (
    "usr/bin/bash",  # Xen's hotplug scripts
    "usr/bin/busybox",
    "usr/bin/flock",  # Xen's locking.sh
    "usr/lib/openssh/sftp-server",
    "usr/sbin/sshd",
    *(f"{TOOLS}/{name}" for name in (
        "libxl-save-helper", "xen-init-dom0", "xenconsole", "xenconsoled", "xenctx", "xenstored",
        "xl",
    )),
    "usr/lib/aarch64-linux-gnu/libgcc_s.so.1",  # loaded by xl when it ends a thread
    "usr/bin/xenstore*",
    "usr/sbin/xenhypfs",
    "etc/xen/scripts/*",
    "etc/xen/xl.conf",
)  # fmt: skip
MODULES = (
    "virtio_blk", "virtio_mmio", "virtio_net", "xen-privcmd", "xen-evtchn", "xen-gntdev",
    "xen-gntalloc", "xenfs", "xen-netback", "xen-blkback", "loop",
)  # fmt: skip
# What busybox is called by, here and in Xen's scripts.
APPLETS = (
    "awk", "basename", "cat", "chmod", "cp", "cut", "date", "dd", "devmem", "dirname", "dmesg",
    "echo", "env", "expr", "false", "find", "free", "grep", "head", "hostname", "id", "ip", "kill",
    "killall", "ln", "losetup", "ls", "lsmod", "md5sum", "mkdir", "mkfifo", "mknod", "modprobe",
    "mount", "mv", "nproc", "od", "pidof", "ps", "readlink", "realpath", "rm", "rmdir", "rmmod",
    "sed", "seq", "setsid", "sh", "sha256sum", "sleep", "sort", "stat", "sync", "tail", "tar",
    "test", "timeout", "touch", "tr", "true", "truncate", "umount", "uname", "uniq", "wc", "which",
    "xargs",
)  # fmt: skip
DIRECTORIES = (
    "dev", "opt", "proc", "root", "run", "sys", "tmp", "etc/ssh", "var/empty", "var/lib/xen",
    "var/lib/xenstored", "var/log/xen/console", "usr/local/bin",
)  # fmt: skip
PATH = f"/opt/xen/bin:/opt/xen/sbin:/opt/xen/lib/xen/bin:/{TOOLS}:/usr/sbin:/usr/bin:/usr/local/bin"
LIBRARY_PATH = "/opt/xen/lib"
TEXTS = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/bash\nsshd:x:100:65534::/run/sshd:/bin/false\n",
    "etc/group": "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n",
    "etc/shadow": "root:*:19000:0:99999:7:::\n",
    "etc/hosts": "127.0.0.1 localhost dom0\n",
    "etc/hostname": "dom0\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
    "etc/profile": f"export PATH={PATH} LD_LIBRARY_PATH={LIBRARY_PATH}\n",
    "etc/ssh/sshd_config": (
        "HostKey /etc/ssh/ssh_host_ed25519_key\n"
        "PermitRootLogin prohibit-password\n"
        "PasswordAuthentication no\nKbdInteractiveAuthentication no\n"
        "UsePAM no\nUseDNS no\nPrintLastLog no\nPrintMotd no\n"
        f"SetEnv PATH={PATH} LD_LIBRARY_PATH={LIBRARY_PATH}\n"
        "Subsystem sftp internal-sftp\n"
    ),
    "var/log/lastlog": "",
}
MODES = {"etc/shadow": 0o600}


@dataclass(frozen=True)
class Image:
    """A kernel and a root file system that boot as a dom0, but for the keys of its SSH server."""

    kernel: Path
    root: Path  # cpio
    identity: str
    tools: Path | None = None
    """Another cpio, whose files come before the image's own."""

    def with_tools(self, tools: Tools) -> Image:
        """Return the same image with the toolstack of another Xen."""
        identity = f"{self.identity}-{tools.identity}"
        return replace(self, tools=tools.archive, identity=identity)


def image(cache: Cache, progress: Progress = quiet) -> Image:
    """Return the image, made now or earlier.

    Raises HarnessError if a package cannot be had, or lacks what is wanted of it.
    """
    packages = read_lock()["dom0"]
    digest = hashlib.sha256(f"{RECIPE} {fingerprint(packages)}".encode())
    makers = (Path(module.__file__ or "") for module in (cpio, files))
    for source in (Path(__file__), *makers, *sorted(OURS.iterdir())):
        digest.update(source.read_bytes())
    identity = digest.hexdigest()[:32]

    def make(directory: Path) -> None:
        fetched = fetch(packages, cache, progress)
        ours = regular(PROGRAM.lstrip("/"), program(cache).read_bytes(), 0o755)
        progress("making the root file system of a dom0")
        found = read_packages(fetched, _may_be_wanted)
        kernels = [path for path in found if path.startswith("boot/vmlinuz-")]
        if len(kernels) != 1:
            raise HarnessError(f"the packages have {len(kernels)} kernels", evidence=kernels)
        (directory / "vmlinuz").write_bytes(found[kernels[0]].entry.data)
        with (directory / "root.cpio").open("wb") as file:
            cpio.write([*_root(found), ours], file)

    entry = cache.entry("linux-dom0", identity, make, progress=progress)
    return Image(entry / "vmlinuz", entry / "root.cpio", identity)


def personal(image: Image, entries: Iterable[Entry], destination: Path) -> Path:
    """Write the image's root file system with `entries` added or replaced, and return it."""
    more = io.BytesIO()
    cpio.write(entries, more)
    tools = image.tools.read_bytes() if image.tools else b""
    destination.write_bytes(image.root.read_bytes() + tools + more.getvalue())
    return destination


def _may_be_wanted(path: str) -> bool:
    """Say whether to read a file at all; most of what packages hold is not for machines."""
    unread = ("usr/share/", "usr/lib/python3", "usr/lib/aarch64-linux-gnu/gconv/")
    return not path.startswith(unread)


def _root(found: Files) -> list[Entry]:
    entries = [file.entry for file in select(found, WANTED).values()]
    entries += select_modules(found, MODULES)
    entries += [link(name, f"usr/{name}") for name in MERGED]
    entries += [directory(path) for path in DIRECTORIES]
    entries += [directory("root", 0o700), directory("root/.ssh", 0o700)]
    entries += [link("var/lock", "../run/lock"), link("var/run", "../run")]
    entries += [link(f"usr/local/bin/{name}", "/usr/bin/busybox") for name in APPLETS]
    entries += [link("usr/bin/sh", "busybox")]
    entries += [
        regular(path, text.encode(), MODES.get(path, 0o644)) for path, text in TEXTS.items()
    ]
    entries += [
        character_device("dev/console", 5, 1),
        character_device("dev/null", 1, 3, 0o666),
        regular("init", (OURS / "init").read_bytes(), 0o755),
    ]
    return entries
