"""An upstream that does as it is told: a registry of a few routes in a thread."""

import http.server
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

Answer = tuple[int, dict[str, str], bytes]


@dataclass
class Asked:
    """One request that came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes = b""


@dataclass
class FakeUpstream:
    """Answers by a function of the test's own; `cuts` ends bodies of so many bytes at once."""

    answer: Callable[[Asked], Answer]
    asked: list[Asked] = field(default_factory=list)
    cut_after: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        fake = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _serve(self) -> None:
                size = int(self.headers.get("Content-Length") or 0)
                headers = {key.lower(): value for key, value in self.headers.items()}
                asked = Asked(self.command, self.path, headers, self.rfile.read(size))
                fake.asked.append(asked)
                status, more, body = fake.answer(asked)
                self.send_response(status)
                for name, value in ({"Content-Length": str(len(body))} | more).items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command == "HEAD":
                    return
                if fake.cut_after and len(body) > fake.cut_after[0]:
                    body = body[: fake.cut_after.pop(0)]
                    self.close_connection = True
                self.wfile.write(body)

            do_GET = do_HEAD = do_POST = _serve  # noqa: N815 - its names

            def log_message(self, *_words: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        """End it."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
