"""An image store of one blob in a process of its own, so that its processor time is nobody else's."""

import contextlib
import multiprocessing
import socket
import threading
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path


def _answer(link: socket.socket, blob: Path) -> None:
    with link, link.makefile("rb") as asked, blob.open("rb") as file:
        first = 0
        while line := asked.readline().strip():
            if line.lower().startswith(b"range:"):
                first = int(line.partition(b"=")[2].rstrip(b"-"))
        word = b"206 Partial" if first else b"200 OK"
        left = blob.stat().st_size - first
        link.sendall(b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n" % (word, left))
        link.sendfile(file, first)


def _serve(blob: Path, told: Connection) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        told.send(server.getsockname()[1])
        while True:
            link, _ = server.accept()
            threading.Thread(target=_answer, args=(link, blob), daemon=True).start()


@contextlib.contextmanager
def plain_store(blob: Path) -> Iterator[int]:
    """Serve a file whatever is asked for; yields the port on the loopback."""
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    process = spawn.Process(target=_serve, args=(blob, there), daemon=True)
    process.start()
    try:
        yield here.recv()
    finally:
        process.kill()
        process.join()
        process.close()
        here.close()
        there.close()
