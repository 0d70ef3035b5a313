"""A process that runs users' SQL over one snapshot and can reach nothing else.

Started as `python -I -m api.worker JOBS FILES`, the numbers of two inherited sockets. It leaves the
network before it imports anything that might start a thread, as a process with several cannot.
"""

import os
import socket
import sys

from api.sandbox import die_with_parent, leave_network

NICENESS = 5
"""How far workers step back behind the service itself."""


def main() -> None:
    """Give up rights, then answer jobs until the service is gone."""
    os.nice(NICENESS)  # at once, so that a worker that starts does not hold up those that work
    die_with_parent()
    leave_network()
    from api.sealed_database import SealedDatabase

    jobs, files = (socket.socket(fileno=int(number)) for number in sys.argv[1:3])
    try:
        SealedDatabase(jobs, files).serve()
    except (EOFError, BrokenPipeError, ConnectionResetError):
        sys.exit(0)


if __name__ == "__main__":
    main()
