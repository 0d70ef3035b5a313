"""A process that runs users' SQL over one snapshot and can reach nothing else.

Started as `python -I -m api.worker JOBS FILES`, the numbers of two inherited sockets. It leaves the
network before it imports anything that might start a thread, as a process with several cannot.
"""

import os
import socket
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from api.sandbox import die_with_parent, leave_network

if TYPE_CHECKING:
    from api.sealed_database import SealedDatabase

NICENESS = 5
"""How far workers step back behind the service itself."""


def main() -> None:
    """Answer jobs over an atlas."""
    run(_open)


def run(open_database: "Callable[[socket.socket, socket.socket], SealedDatabase]") -> None:
    """Give up rights, then answer jobs until the service is gone.

    Args:
        open_database: imports what it needs, then opens a database over the two sockets.
    """
    os.nice(NICENESS)  # at once, so that a worker that starts does not hold up those that work
    die_with_parent()
    leave_network()
    jobs, files = (socket.socket(fileno=int(number)) for number in sys.argv[1:3])
    try:
        open_database(jobs, files).serve()
    except (EOFError, BrokenPipeError, ConnectionResetError):
        sys.exit(0)


def _open(jobs: socket.socket, files: socket.socket) -> "SealedDatabase":
    from api.sealed_database import SealedDatabase

    return SealedDatabase(jobs, files)


if __name__ == "__main__":
    main()
