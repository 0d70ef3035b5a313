"""A process that runs one viewer's SQL over one table and can reach nothing else.

Started as `python -I -m api.session_worker JOBS FILES`, and locked as `worker` is; apart from it,
as it holds no view of an atlas and never asks for a file.
"""

import socket
from typing import TYPE_CHECKING

from api.worker import run

if TYPE_CHECKING:
    from api.session_database import SessionDatabase


def _open(jobs: socket.socket, files: socket.socket) -> "SessionDatabase":
    from api.session_database import SessionDatabase

    return SessionDatabase(jobs, files)


if __name__ == "__main__":
    run(_open)
