"""Serves `/metrics` (Prometheus) and `/healthz` over HTTP, on the loopback interface unless told otherwise."""

from __future__ import annotations

import ipaddress
import socket
import sys
import threading
from http.server import ThreadingHTTPServer
from typing import Any
from urllib.parse import urlparse

from clcr_edge.errors import SinkError, UsageError
from clcr_edge.runtime.metrics import Metrics, prometheus

LOOPBACK = "127.0.0.1"
_TIMEOUT_S = 5.0  # of a client that connects and says nothing
_AT_ONCE = 4  # requests; further ones are cut off, so that no client can make threads without end


def parse_address(text: str) -> tuple[str, int]:
    """`PORT` -> loopback and the port; `HOST:PORT` (`[::1]:9100` for IPv6) as it says. Raises `UsageError`."""
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not (port.isascii() and port.isdigit() and int(port) < 65_536) or bool(colon) != bool(host):
        raise UsageError(f"--metrics {text}: give a port (9100), or HOST:PORT (0.0.0.0:9100) to open it to the network")
    return host or LOOPBACK, int(port)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server on `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class MetricsServer:
    """Serves from construction on until `close`; port 0 takes any that is free.

    `GET /metrics`: text of Prometheus, or OpenMetrics where the client asks. `GET /healthz`: one line of plain text, status
    200 for `ready` and `degraded: ...`, 503 for `starting` and `stalled`.
    Raises `SinkError` if the address cannot be had, `MissingPartError` without the prometheus-client package.
    """

    def __init__(self, metrics: Metrics, host: str = LOOPBACK, port: int = 0) -> None:
        try:
            self._server = _server_class(host)((host, port), _handler(metrics))
        except (OSError, OverflowError) as e:
            reason = getattr(e, "strerror", None) or e
            raise SinkError(f"metrics: {host}:{port} cannot be had ({reason}); name another port with --metrics") from None
        self.port = int(self._server.server_address[1])
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.2,), name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving and free the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(2.0)


def _server_class(host: str) -> type[ThreadingHTTPServer]:
    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        _free = threading.BoundedSemaphore(_AT_ONCE)

        def server_bind(self) -> None:
            # HTTPServer's own looks its name up in the DNS, which may take seconds where there is none.
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.socket.bind(self.server_address)
            self.server_address = self.socket.getsockname()
            self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

        def process_request(self, request: Any, client_address: Any) -> None:
            if self._free.acquire(blocking=False):
                super().process_request(request, client_address)
            else:
                self.shutdown_request(request)

        def process_request_thread(self, request: Any, client_address: Any) -> None:
            try:
                super().process_request_thread(request, client_address)
            finally:
                self._free.release()

        def handle_error(self, request: Any, client_address: Any) -> None:
            """A client that went away is no news, and a trace of it would land in the terminal view."""
            if not isinstance(sys.exc_info()[1], OSError):
                super().handle_error(request, client_address)

    return Server


def _handler(metrics: Metrics) -> Any:
    base: Any = prometheus().MetricsHandler.factory(metrics.registry())

    class Handler(base):  # type: ignore[misc]
        timeout = _TIMEOUT_S
        server_version = "clcr-edge"
        sys_version = ""

        def do_GET(self) -> None:  # noqa: N802 - the name is http.server's
            path = urlparse(self.path).path
            if path == "/metrics":
                super().do_GET()
            elif path == "/healthz":
                found = metrics.readiness
                self._plain(200 if found.serving else 503, found.line)
            else:
                self._plain(404, "there are /metrics and /healthz")

        def _plain(self, status: int, line: str) -> None:
            body = f"{line}\n".encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/plain; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.wfile.write(body)

    return Handler
