"""A headless Chromium on a leash: its DevTools protocol over a pair of pipes, with the standard library alone."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


class Browser:
    """One page."""

    def __init__(self, process: subprocess.Popen[bytes], read_fd: int, write_fd: int) -> None:
        self._process = process
        self._read_fd, self._write_fd = read_fd, write_fd
        self._buffer = b""
        self._count = 0
        target = self._call("Target.createTarget", {"url": "about:blank"})["targetId"]
        attached = self._call("Target.attachToTarget", {"targetId": target, "flatten": True})
        self._session: str = attached["sessionId"]

    def _call(self, method: str, params: dict[str, Any] | None = None, session: str | None = None) -> Any:
        self._count += 1
        message = {"id": self._count, "method": method, "params": params or {}}
        if session is not None:
            message["sessionId"] = session
        os.write(self._write_fd, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + 30
        while True:
            while b"\0" in self._buffer:
                line, self._buffer = self._buffer.split(b"\0", 1)
                answer = json.loads(line)
                if answer.get("id") == self._count:
                    assert "error" not in answer, answer
                    return answer["result"]
            ready, _, _ = select.select([self._read_fd], [], [], deadline - time.monotonic())
            assert ready, f"the browser did not answer {method}"
            self._buffer += os.read(self._read_fd, 1 << 20)

    def open(self, url: str, width: int = 1150, height: int = 640) -> None:
        """Go to a page."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self._call("Emulation.setDeviceMetricsOverride", size, self._session)
        self._call("Page.navigate", {"url": url}, self._session)

    def value(self, expression: str) -> Any:
        """Value of a JavaScript expression in the page."""
        result = self._call("Runtime.evaluate", {"expression": expression, "returnByValue": True}, self._session)
        return result["result"].get("value")

    def wait(self, expression: str, seconds: float = 20.0) -> Any:
        """Wait until an expression is true; gives its value."""
        deadline = time.monotonic() + seconds
        while not (value := self.value(expression)):
            assert time.monotonic() < deadline, f"never came true: {expression}"
            time.sleep(0.05)
        return value

    def screenshot(self, path: Path) -> None:
        """Write the page as PNG."""
        data = self._call("Page.captureScreenshot", {"format": "png"}, self._session)["data"]
        path.write_bytes(base64.b64decode(data))


@contextmanager
def browser() -> Iterator[Browser]:
    """A `Browser`, or skip where no Chromium is installed."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("needs the program chromium (apt install)")
    from_us, to_it = os.pipe()
    from_it, to_us = os.pipe()
    # Chromium goes on writing its profile for a moment after it was told to end.
    with tempfile.TemporaryDirectory(prefix="clcr-", ignore_cleanup_errors=True) as folder:
        # Chromium reads its orders from descriptor 3 and answers on 4.
        command = (
            f'exec 3<&{from_us} 4>&{to_us}; exec "{program}" --headless=new --no-sandbox --disable-gpu --hide-scrollbars '
            f'--remote-debugging-pipe --user-data-dir="{folder}" --no-first-run --disable-background-networking'
        )
        process = subprocess.Popen(
            ["/bin/bash", "-c", command], pass_fds=(from_us, to_us), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(from_us)
        os.close(to_us)
        try:
            yield Browser(process, from_it, to_it)
        finally:
            process.kill()
            process.wait()
            os.close(from_it)
            os.close(to_it)
