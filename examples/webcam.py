"""Camera, microphone and speech, opened one by one through the Python API: what `clcr-edge run` does, in your own program.

    python examples/webcam.py [--camera 0] [--mic NAME] [--bundle DIR] [--seconds S]

Needs the extras: pip install 'clcr-edge[live]', and apt install libportaudio2. Ctrl-C ends.
"""

from __future__ import annotations

import argparse
import sys
import threading
from pathlib import Path

from clcr_edge import bundle
from clcr_edge.errors import ClcrEdgeError
from clcr_edge.runtime.assets import default_bundle
from clcr_edge.runtime.camera import Camera
from clcr_edge.runtime.microphone import Microphone
from clcr_edge.runtime.onnx_engine import OnnxEngine
from clcr_edge.runtime.pipeline import live
from clcr_edge.runtime.session import Session
from clcr_edge.runtime.speech import open_speech


def main() -> None:
    parser = argparse.ArgumentParser(description="Predictions on a camera and a microphone.")
    parser.add_argument("--camera", default="0", help="index, device path or URL")
    parser.add_argument("--mic", help="index, name or part of a name; default: the default microphone")
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    args = parser.parse_args()

    engine = OnnxEngine.from_bundle(bundle.read(args.bundle or default_bundle()))
    session = Session(engine)
    wake = threading.Event()  # sources set it when something has arrived; the pipeline sleeps on it
    camera = Camera(int(args.camera) if args.camera.isdigit() else args.camera, wake=wake, notice=print)
    microphone = Microphone(int(args.mic) if args.mic and args.mic.isdigit() else args.mic, wake=wake, notice=print)
    speech = open_speech(live=True)

    label = None
    with live(session, camera=camera, microphone=microphone, wake=wake, speech=speech) as pipeline:
        try:
            for prediction in pipeline:
                for word in pipeline.new_words:
                    print(f"         heard {word.text!r}")
                if prediction.label != label:
                    label = prediction.label
                    newest = max(prediction.modality_weights, key=prediction.modality_weights.__getitem__)
                    print(f"{label:>6}  {prediction.probs[label]:.2f}  mostly from {newest}  {prediction.latency_ms:.1f} ms")
                if (prediction.tick + 1) * engine.config.tick.seconds >= args.seconds:
                    break
        except KeyboardInterrupt:
            pass
    print(pipeline.summary.line)


if __name__ == "__main__":
    try:
        main()
    except ClcrEdgeError as e:
        sys.exit(f"webcam: {e}")
