"""What the kernel takes away from a SQL worker: paths, sockets, memory and files.

Apart from `worker`, as it is all system calls. DuckDB's own page on security says that untrusted
SQL needs an operating system's sandbox and that its settings are defence in depth. Each layer is
proven by trying what it forbids, not by the call that set it up.
"""

import ctypes
import json
import os
import resource
import signal
import socket
import sys
import threading
from collections.abc import Callable

_LIBC = ctypes.CDLL(None, use_errno=True)

LINUX = sys.platform == "linux"
"""Elsewhere only the limits of POSIX hold, without that of memory."""

# Numbers of linux/landlock.h, linux/prctl.h and sched.h; the calls have no wrapper in libc.
_LANDLOCK_CREATE_RULESET, _LANDLOCK_RESTRICT_SELF = 444, 446
_LANDLOCK_VERSION = 1
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000

_FS_RIGHTS = {1: 13, 2: 14, 3: 15, 5: 16}
"""Bits of file rights that a version of Landlock knows, from that version on."""
_NET_FROM, _SCOPES_FROM = 4, 6

LAYERS = ("landlock", "network_namespace", "limits")
"""What may hold, beside the gate and DuckDB's own settings, which always do."""

NEEDED = ("landlock", "network_namespace")
"""Without these the service does not bind beyond loopback unless told to."""


class _Ruleset(ctypes.Structure):
    _fields_ = (
        ("fs", ctypes.c_uint64),
        ("net", ctypes.c_uint64),
        ("scoped", ctypes.c_uint64),
    )


def die_with_parent() -> None:
    """Ask for SIGKILL when the thread that started this process ends; hide from debuggers."""
    if LINUX:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        _LIBC.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def leave_network() -> None:
    """Go to a network of one's own, without a device that is up; needs a single thread."""
    if LINUX and _LIBC.unshare(_CLONE_NEWNET) != 0:
        _LIBC.unshare(_CLONE_NEWUSER | _CLONE_NEWNET)


def forbid_paths() -> None:
    """Let this thread, and all that it starts from now on, open no path by Landlock."""
    version = LINUX and _LIBC.syscall(_LANDLOCK_CREATE_RULESET, None, 0, _LANDLOCK_VERSION)
    if version < 1:
        return
    bits = max(n for since, n in _FS_RIGHTS.items() if since <= version)
    rules = _Ruleset(
        (1 << bits) - 1, 3 if version >= _NET_FROM else 0, 3 if version >= _SCOPES_FROM else 0
    )
    size = 24 if version >= _SCOPES_FROM else 16 if version >= _NET_FROM else 8
    descriptor = _LIBC.syscall(_LANDLOCK_CREATE_RULESET, ctypes.byref(rules), size, 0)
    _LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if descriptor >= 0:
        _LIBC.syscall(_LANDLOCK_RESTRICT_SELF, descriptor, 0)
        os.close(descriptor)


def open_gauge() -> int | None:
    """A descriptor that tells how much memory this process holds; None where the system has none.

    To be opened before paths are forbidden; `limit_memory` closes it.
    """
    return os.open("/proc/self/statm", os.O_RDONLY) if LINUX else None


def limit_memory(memory_bytes: int, gauge: int | None) -> None:
    """Forbid address space beyond what this process holds now and so many bytes more."""
    if gauge is None:
        return
    pages = int(os.pread(gauge, 200, 0).split()[0])
    os.close(gauge)
    space = pages * os.sysconf("SC_PAGE_SIZE") + memory_bytes
    resource.setrlimit(resource.RLIMIT_AS, (space, space))


def limit_resources(memory_bytes: int, n_files: int, gauge: int | None) -> None:
    """Forbid to write any file, and memory beyond what this process holds now.

    Args:
        memory_bytes: address space that may still be added.
        n_files: most open descriptors.
        gauge: of this process's memory.
    """
    limit_memory(memory_bytes, gauge)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (n_files, n_files))


def probe_layers(threads: int) -> dict[str, bool]:
    """Which layers hold, found by trying what each forbids.

    Args:
        threads: how many threads ran when paths were forbidden; those beside the first are not
            held by Landlock.
    """
    return {
        "landlock": threads == 1 and _is_refused(lambda: os.listdir("/")),
        "network_namespace": _is_refused(_reach_loopback),
        "limits": resource.getrlimit(resource.RLIMIT_FSIZE)[0] == 0,
    }


def main() -> None:
    """Give up every right, as a worker does, and print which layers hold as JSON."""
    gauge = open_gauge()
    leave_network()
    n_threads = count_threads()
    forbid_paths()
    limit_resources(1 << 30, 64, gauge)
    print(json.dumps(probe_layers(n_threads)))


def count_threads() -> int:
    """Threads of this process."""
    return len(os.listdir("/proc/self/task")) if LINUX else threading.active_count()


def _reach_loopback() -> None:
    """Send a datagram to this machine; needs an interface that is up, but no one who listens."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as caller:
        caller.sendto(b"", ("127.0.0.1", 9))


def _is_refused(attempt: Callable[[], object]) -> bool:
    try:
        attempt()
    except OSError:
        return True
    return False


if __name__ == "__main__":
    main()
