"""A client of gRPC that sends what it likes: frames of HTTP/2 by hand.

Source: RFC 9113 and 7541; every header is a literal that is not indexed.
"""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS = 0, 1, 4
END_HEADERS = 4


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return (
        len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload
    )


def call(stream: int, method: str, **more: str) -> bytes:
    """The beginning of a call, without a message; streams of a client have odd numbers."""
    headers = {
        ":method": "POST",
        ":scheme": "http",
        ":path": f"/arrow.flight.protocol.FlightService/{method}",
        ":authority": "127.0.0.1",
        "te": "trailers",
        "content-type": "application/grpc",
        **more,
    }
    written = bytearray()
    for name, value in headers.items():
        written += bytes([0, len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
    return frame(HEADERS, END_HEADERS, stream, bytes(written))


def message(stream: int, body: bytes) -> bytes:
    """A message of a call; it has to fit into a frame."""
    return frame(DATA, 0, stream, b"\0" + len(body).to_bytes(4, "big") + body)


@contextmanager
def connection(port: int, address: str = "127.0.0.1") -> Iterator[socket.socket]:
    """A connection on which calls may begin."""
    with socket.create_connection((address, port)) as opened:
        opened.sendall(PREFACE + frame(SETTINGS, 0, 0, b""))
        yield opened
