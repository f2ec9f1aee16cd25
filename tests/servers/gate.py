"""A door in front of an HTTP server: it asks for name and password, speaks TLS, or says no.

It passes everything else on unchanged, so that what stands behind it keeps its contract.
"""

import base64
import ssl
import threading
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from tests.servers.certificates import Certificates


class Gate(ThreadingHTTPServer):
    """`url` leads to what `upstream` leads to; the next answers may be given beforehand."""

    daemon_threads = True

    def __init__(self, upstream: str, certificates: Certificates | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = urlsplit(upstream)
        self.answers: deque[tuple[int, bytes]] = deque()
        """Status and body of the next requests, which then go no further."""
        self.login: tuple[str, str] | None = None
        self.asked = 0
        """How many requests came."""
        scheme = "http"
        if certificates is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificates.server)
            self.socket = context.wrap_socket(self.socket, server_side=True)
            scheme = "https"
        self.url = f"{scheme}://127.0.0.1:{self.server_address[1]}{self.upstream.path}"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that breaks off (it does not trust the certificate) is no news."""


@contextmanager
def gate(upstream: str, certificates: Certificates | None = None) -> Iterator[Gate]:
    """A gate in front of `upstream` (a URL), open as long as the block runs."""
    opened = Gate(upstream, certificates)
    thread = threading.Thread(target=opened.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield opened
    finally:
        opened.shutdown()
        thread.join()
        opened.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: Gate

    def do_GET(self) -> None:  # the library's name
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.asked += 1
        if self.server.answers:
            self._answer(*self.server.answers.popleft())
        elif not self._known():
            self._answer(401, b'{"error_code": 401, "message": "Unauthorized"}')
        else:
            self._pass_on(body)

    do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815

    def _known(self) -> bool:
        if self.server.login is None:
            return True
        word = base64.b64encode(":".join(self.server.login).encode()).decode()
        return self.headers.get("Authorization") == f"Basic {word}"

    def _pass_on(self, body: bytes) -> None:
        upstream = self.server.upstream
        request = urllib.request.Request(
            f"{upstream.scheme}://{upstream.netloc}{self.path}",
            body or None,
            {"Content-Type": self.headers.get("Content-Type", "application/json")},
            method=self.command,
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                self._answer(answer.status, answer.read())
        except urllib.error.HTTPError as error:
            with error:
                self._answer(error.code, error.read())

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the tests' output is theirs."""
