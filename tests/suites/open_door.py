"""The fleet's registry as one that asks nobody, which is what oras's suite is written for."""

import base64
import contextlib
import http.client
import http.server
import threading
from collections.abc import Iterator

_HOP = ("connection", "date", "server", "transfer-encoding", "keep-alive")


@contextlib.contextmanager
def open_door(registry: str, user: str, password: str) -> Iterator[int]:
    """Yield a port of the loopback that leads to the registry, logged in."""
    word = base64.b64encode(f"{user}:{password}".encode()).decode()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _lead(self) -> None:
            link = http.client.HTTPConnection(registry, timeout=60)
            headers = {key: value for key, value in self.headers.items() if key.lower() not in _HOP}
            headers["Authorization"] = f"Basic {word}"
            link.request(self.command, self.path, body=self._body(), headers=headers)
            answer = link.getresponse()
            body = answer.read()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in (*_HOP, "content-length"):
                    self.send_header(name, value)
            length = answer.getheader("content-length") if self.command == "HEAD" else None
            self.send_header("Content-Length", length or str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            link.close()

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))
            parts = []
            while size := int(self.rfile.readline().partition(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)

        do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _lead  # noqa: N815 - its names

        def log_message(self, *_words: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
