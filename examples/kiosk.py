"""A small local page that shows what is seen, heard and said, and what the network makes of it.

    python examples/kiosk.py [--camera SRC] [--mic SRC] [--bundle DIR] [--port 8765] [--seconds S]

Open the address it prints. SRC is an index, a device name, a URL or a file, as for `clcr-edge run`; a file is played once.
The page is served on this machine's loopback interface only, to names of this machine only, and nothing is stored: pictures
and sound leave the process for the browser beside it and for nowhere else. Ctrl-C ends.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import threading
import time
from collections import deque
from fractions import Fraction
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import av
import numpy as np

from clcr_edge import bundle
from clcr_edge.errors import ClcrEdgeError, UsageError
from clcr_edge.packets import AudioChunk, Prediction, VideoFrame, Word
from clcr_edge.runtime.assets import default_bundle
from clcr_edge.runtime.background import LiveRunner
from clcr_edge.runtime.feed import Listener
from clcr_edge.runtime.json_lines import as_json
from clcr_edge.runtime.onnx_engine import OnnxEngine
from clcr_edge.runtime.opening import open_pipeline
from clcr_edge.runtime.session import Session
from clcr_edge.runtime.sources import plan_sources
from clcr_edge.runtime.speech import open_speech

PICTURE_WIDTH = 480
PERIOD_S = 0.08  # the page need not be told more often
QUIET_DB = -60.0


def jpeg(image: np.ndarray) -> bytes:  # type: ignore[type-arg]
    """RGB uint8 `[H, W, 3]` -> JPEG, at most `PICTURE_WIDTH` wide."""
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
    width = min(PICTURE_WIDTH, frame.width) // 2 * 2
    height = max(2, round(frame.height * width / frame.width) // 2 * 2)
    codec = av.CodecContext.create("mjpeg", "w")
    codec.width, codec.height, codec.pix_fmt = width, height, "yuvj420p"
    codec.time_base = Fraction(1, 25)
    packets = codec.encode(frame.reformat(width, height, "yuvj420p", dst_color_range="JPEG"))
    return b"".join(bytes(p) for p in [*packets, *codec.encode(None)])


class Senses:
    """What the pipeline has just seen, heard and said. Filled by its thread, read by the page's."""

    def __init__(self) -> None:
        self.frame: VideoFrame | None = None
        self.level = 0.0  # 0 is quiet, 1 is full scale
        self.words: deque[Word] = deque(maxlen=8)
        self.word_count = 0
        self.notice = ""
        self._encode = threading.Lock()
        self._encoded: tuple[int, bytes] | None = None

    def listener(self) -> Listener:
        """The calls a pipeline should make."""
        return Listener(self._saw, self._heard, self._understood, self._noticed)

    def _saw(self, frame: VideoFrame) -> None:
        self.frame = frame

    def _heard(self, chunk: AudioChunk) -> None:
        rms = float(np.sqrt(np.mean(np.square(chunk.samples)))) if len(chunk.samples) else 0.0
        loud = 1.0 - 20.0 * math.log10(max(rms, 1e-6)) / QUIET_DB
        self.level = min(max(loud, 0.85 * self.level), 1.0)  # up at once, down slowly, as a meter does

    def _understood(self, word: Word) -> None:
        self.words.append(word)
        self.word_count += 1

    def _noticed(self, text: str) -> None:
        self.notice = text

    def picture(self) -> bytes | None:
        """The newest frame as JPEG; each frame is encoded once, and only if somebody looks."""
        frame = self.frame
        if frame is None:
            return None
        with self._encode:
            if self._encoded is None or self._encoded[0] != frame.seq:
                self._encoded = (frame.seq, jpeg(frame.image))
            return self._encoded[1]


class Kiosk(ThreadingHTTPServer):
    """Serves the page, the picture, and the stream of predictions."""

    daemon_threads = True

    def __init__(self, port: int, runner: LiveRunner, senses: Senses) -> None:
        self.runner = runner
        self.senses = senses
        try:
            super().__init__(("127.0.0.1", port), Page)
        except OSError as e:
            raise UsageError(f"--port {port}: cannot be opened ({e.strerror}); choose another") from None

    def handle_error(self, request: object, client_address: object) -> None:
        """A browser that goes away in mid-answer is no error."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class Page(BaseHTTPRequestHandler):
    """One request."""

    server: Kiosk

    def do_GET(self) -> None:
        host = self.headers.get("Host", "").rsplit(":", 1)[0]
        if host not in ("127.0.0.1", "localhost"):
            # Another site's page could otherwise reach this one through a name that it points here.
            self.send_error(HTTPStatus.FORBIDDEN)
        elif self.path == "/":
            self._send("text/html; charset=utf-8", HTML.encode())
        elif self.path.startswith("/picture.jpg"):
            picture = self.server.senses.picture()
            if picture is None:
                self.send_error(HTTPStatus.NOT_FOUND)
            else:
                self._send("image/jpeg", picture)
        elif self.path == "/events":
            self._stream()
        else:
            self.send_error(HTTPStatus.NOT_FOUND)

    def _send(self, kind: str, body: bytes) -> None:
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Security-Policy", "default-src 'self'; style-src 'unsafe-inline'; script-src 'unsafe-inline'")
        self.end_headers()
        self.wfile.write(body)

    def _stream(self) -> None:
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        runner, last = self.server.runner, None
        while True:
            prediction = runner.next(last, timeout_s=1.0)
            if prediction is not None:
                last = prediction
                self._event("prediction", self._message(prediction))
                time.sleep(PERIOD_S)
            elif not runner.running:
                self._event("end", {"reason": str(runner.error or "")})
                return
            else:
                self.wfile.write(b": still here\n\n")

    def _event(self, name: str, message: dict[str, object]) -> None:
        self.wfile.write(f"event: {name}\ndata: {json.dumps(message)}\n\n".encode())
        self.wfile.flush()

    def _message(self, prediction: Prediction) -> dict[str, object]:
        senses = self.server.senses
        return {
            **as_json(prediction),
            "level": round(senses.level, 3),
            "words": [{"text": w.text, "confidence": round(w.confidence, 2)} for w in senses.words],
            "word_count": senses.word_count,
            "notice": senses.notice,
        }

    def log_message(self, *_args: object) -> None:
        """Requests are not logged."""


HTML = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>clcr-edge</title>
<style>
  :root { --ink: #22303a; --soft: #6d7b85; --line: #dfe5e8; --ground: #f4f6f6; --card: #fff;
          --language: #b8860b; --vision: #2b7a8f; --audio: #8a5a9e; --yes: #3c7d53; }
  @media (prefers-color-scheme: dark) {
    :root { --ink: #e3e9ec; --soft: #93a1aa; --line: #2f3a41; --ground: #161c20; --card: #1e262b;
            --language: #d9ab3f; --vision: #5cb3c8; --audio: #b98fca; --yes: #6fbf8b; } }
  * { box-sizing: border-box; }
  body { margin: 0; min-height: 100vh; background: var(--ground); color: var(--ink);
         font: 16px/1.45 system-ui, "Segoe UI", "Helvetica Neue", "DejaVu Sans", sans-serif;
         display: grid; place-items: center; padding: 24px; }
  main { width: min(1060px, 100%); display: grid; gap: 18px; grid-template-columns: 1.15fr 1fr; }
  section { background: var(--card); border: 1px solid var(--line); border-radius: 14px; padding: 18px 20px; }
  h2 { margin: 0 0 12px; font-size: 13px; font-weight: 600; letter-spacing: .04em; color: var(--soft); }
  h2.second { margin-top: 22px; }
  #seen { padding: 0; overflow: hidden; position: relative; height: 364px; background: #10161a; }
  #seen.empty { background: var(--card); }
  #seen img { width: 100%; height: 100%; object-fit: contain; display: block; }
  #square { position: absolute; inset: 0; margin: auto; border: 1px dashed #ffffff70; border-radius: 4px; }
  #seen.empty #square { display: none; }
  #seen h2 { position: absolute; left: 20px; top: 16px; margin: 0; color: #fff; text-shadow: 0 0 6px #0009; }
  #seen.empty h2 { color: var(--soft); text-shadow: none; }
  #answer { display: flex; align-items: baseline; gap: 16px; margin-bottom: 10px; }
  #label { font-size: 92px; line-height: 1; font-weight: 650; min-width: 1.2em; }
  #label.none { color: var(--soft); font-size: 52px; line-height: 92px; font-weight: 500; }
  #share { color: var(--soft); font-variant-numeric: tabular-nums; }
  .row { display: grid; grid-template-columns: 84px 1fr 72px; align-items: center; gap: 10px; height: 23px; }
  .row.short { grid-template-columns: 44px 1fr 44px; height: 20px; }
  .row span { font-size: 14px; } .row .number { text-align: right; color: var(--soft); font-variant-numeric: tabular-nums; }
  .track { height: 8px; border-radius: 4px; background: var(--line); overflow: hidden; }
  .fill { height: 100%; width: 0; border-radius: 4px; background: var(--soft); transition: width .12s linear; }
  .best .fill { background: var(--yes); } .best span:first-child { font-weight: 650; }
  .language .fill { background: var(--language); } .vision .fill { background: var(--vision); }
  .audio .fill { background: var(--audio); }
  #words { min-height: 34px; display: flex; flex-wrap: wrap; gap: 8px; }
  #words b { font-weight: 500; padding: 3px 12px; border-radius: 999px; border: 1px solid var(--line); color: var(--soft); }
  #words b:last-child { color: var(--ink); border-color: var(--language); }
  #words i { color: var(--soft); font-style: normal; }
  footer { grid-column: 1 / -1; color: var(--soft); font-size: 13px; display: flex; justify-content: space-between; }
  @media (max-width: 760px) { main { grid-template-columns: 1fr; } }
</style>
<main>
  <section id="seen" class="empty"><h2>seen</h2><img id="picture" alt="" hidden><div id="square"></div></section>
  <section>
    <div id="answer"><div id="label" class="none">&hellip;</div><div id="share"></div></div><div id="classes"></div>
  </section>
  <section>
    <h2>heard</h2><div class="audio"><div class="track"><div class="fill" id="level"></div></div></div>
    <h2 class="second">said</h2><div id="words"><i>nothing yet</i></div>
  </section>
  <section><h2>what it goes by</h2><div id="modalities"></div></section>
  <footer><span id="state">connecting</span><span id="cost"></span></footer>
</main>
<script>
  const $ = id => document.getElementById(id);
  const rows = {};
  function row(parent, key, kind) {
    if (!rows[kind + key]) {
      const r = document.createElement("div");
      r.className = "row " + kind;
      r.innerHTML = '<span></span><div class="track"><div class="fill"></div></div><span class="number"></span>';
      r.firstChild.textContent = key;
      parent.append(r);
      rows[kind + key] = r;
    }
    return rows[kind + key];
  }
  function fill(r, share, text) {
    r.querySelector(".fill").style.width = (100 * share).toFixed(1) + "%";
    r.lastChild.textContent = text;
  }
  const age = s => s === null ? "none yet" : s < 1 ? Math.round(s * 1000) + " ms" : s.toFixed(1) + " s";
  let shown = -1, loading = false, said = -1;
  $("picture").onload = () => {
    const { naturalWidth: w, naturalHeight: h } = $("picture"), box = $("seen");
    loading = $("picture").hidden = false;
    box.className = "";
    // The network looks at the centre square only; a thin line shows it.
    const side = Math.min(w, h) * Math.min(box.clientWidth / w, box.clientHeight / h);
    $("square").style.width = $("square").style.height = side + "px";
  };
  $("picture").onerror = () => { loading = false; };
  const events = new EventSource("/events");
  events.addEventListener("prediction", e => {
    const p = JSON.parse(e.data);
    $("label").textContent = p.label;
    $("label").className = p.label.length > 2 ? "none" : "";
    $("share").textContent = Math.round(100 * p.probs[p.label]) + " %" + (p.ready ? "" : ", warming up");
    for (const [key, prob] of Object.entries(p.probs)) {
      const r = row($("classes"), key, "short");
      r.classList.toggle("best", key === p.label);
      fill(r, prob, prob.toFixed(2));
    }
    for (const [key, weight] of Object.entries(p.modality_weights)) {
      fill(row($("modalities"), key, key), weight, age(p.age_s[key]));
    }
    $("level").style.width = (100 * p.level).toFixed(0) + "%";
    if (p.word_count !== said && p.words.length) {
      said = p.word_count;
      $("words").replaceChildren(...p.words.map(w => {
        const b = document.createElement("b");
        b.textContent = w.text;
        b.title = "confidence " + w.confidence;
        return b;
      }));
    }
    if (p.frame_seq !== null && p.frame_seq !== shown && !loading) {
      shown = p.frame_seq;
      loading = true;
      $("picture").src = "/picture.jpg?" + shown;
    }
    $("state").textContent = p.notice;
    $("cost").textContent = "tick " + p.tick + ", " + p.latency_ms.toFixed(1) + " ms";
    document.body.dataset.ticks = p.tick;
  });
  events.addEventListener("end", e => {
    events.close();
    $("state").textContent = JSON.parse(e.data).reason || "the media has ended";
    document.body.dataset.ended = "yes";
  });
</script>
</html>
"""


def main() -> None:
    parser = argparse.ArgumentParser(description="A local page of what is seen, heard and said.")
    parser.add_argument("--camera")
    parser.add_argument("--mic")
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--port", type=int, default=8765, help="0 chooses a free one")
    parser.add_argument("--seconds", type=float, default=float("inf"))
    args = parser.parse_args()

    plan = plan_sources(args.camera, args.mic)
    session = Session(OnnxEngine.from_bundle(bundle.read(args.bundle or default_bundle())))
    try:
        speech = None if plan.mic is None else open_speech(live=plan.is_live)
    except ClcrEdgeError as e:
        speech = None
        print(f"going on without language: {e}", file=sys.stderr)
    senses = Senses()
    runner = LiveRunner(open_pipeline(session, plan, speech=speech, listener=senses.listener()))
    with Kiosk(args.port, runner, senses) as kiosk:
        print(f"http://127.0.0.1:{kiosk.server_address[1]}/", flush=True)
        threading.Thread(target=kiosk.serve_forever, daemon=True).start()
        begun = time.monotonic()
        with runner:
            try:
                while time.monotonic() - begun < args.seconds:
                    time.sleep(0.1)
            except KeyboardInterrupt:
                pass
        kiosk.shutdown()


if __name__ == "__main__":
    try:
        main()
    except ClcrEdgeError as e:
        sys.exit(f"kiosk: {e}")
