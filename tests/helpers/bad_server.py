"""HTTP servers that do what no good server would: they say nothing, too little, or too much."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

Behaviour = Callable[[socket.socket, str], None]


def silent(connection: socket.socket, path: str) -> None:
    time.sleep(60)


def trickle(connection: socket.socket, path: str) -> None:
    connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n')
    while True:
        connection.sendall(b'a')
        time.sleep(0.1)


def slow_header(connection: socket.socket, path: str) -> None:
    connection.sendall(b'HTTP/1.1 200 OK\r\n')
    while True:
        connection.sendall(b'X: y\r\n')
        time.sleep(0.1)


def endless(connection: socket.socket, path: str) -> None:
    connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n')
    while True:
        connection.sendall(bytes(2**16))


def endless_range(connection: socket.socket, path: str) -> None:
    """Says that it sends a part of a small file, and does not end."""
    connection.sendall(b'HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-9/10\r\n\r\n')
    while True:
        connection.sendall(b'\xff' * 2**16)


def circle(connection: socket.socket, path: str) -> None:
    connection.sendall(f'HTTP/1.1 302 Found\r\nLocation: {path}\r\nContent-Length: 0\r\n\r\n'.encode())


def refusing(connection: socket.socket, path: str) -> None:
    connection.sendall(b'HTTP/1.1 500 Oh\x1b[31m dear\r\nContent-Length: 0\r\n\r\n')


def page(*names: str) -> bytes:
    """A server's page about a folder."""
    body = ''.join(f'<a href="{name}">{name}</a>\n' for name in names).encode()
    return b'HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n' % len(body) + body


def slow_to_search(connection: socket.socket, path: str) -> None:
    """A page on which regular expressions for links take very long."""
    body = b'<a' + b' ' * 200_000 + b'href'
    connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n' % len(body) + body)


def listing(then: Behaviour, *names: str) -> Behaviour:
    """A good page about the folder, and files that behave badly."""

    def behave(connection: socket.socket, path: str) -> None:
        if path.endswith('.safetensors'):
            then(connection, path)
        else:
            connection.sendall(page(*names))

    return behave


@contextmanager
def serving(behaviour: Behaviour) -> Iterator[str]:
    """Serve on a port of this machine; gives the URL."""
    server = socket.create_server(('127.0.0.1', 0))

    def answer(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            request = b''
            while b'\r\n\r\n' not in request:
                part = connection.recv(4096)
                if not part:
                    return
                request += part
            behaviour(connection, request.split()[1].decode())

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection, _ = server.accept()
                threading.Thread(target=answer, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f'http://127.0.0.1:{server.getsockname()[1]}/zoo'
    finally:
        server.close()
