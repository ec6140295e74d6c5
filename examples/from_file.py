"""Predictions on a media file, through the Python API: one line whenever the label changes.

    python examples/from_file.py CLIP [--bundle DIR] [--real-time] [--no-stt]

CLIP is anything PyAV reads: mp4, mpg, avi, wav, flac. Without --bundle, the bundle that ships (or the newest in ./out) runs.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from clcr_edge import bundle
from clcr_edge.errors import ClcrEdgeError
from clcr_edge.runtime.assets import default_bundle
from clcr_edge.runtime.onnx_engine import OnnxEngine
from clcr_edge.runtime.opening import open_pipeline
from clcr_edge.runtime.session import Session
from clcr_edge.runtime.sources import plan_sources
from clcr_edge.runtime.speech import open_speech


def main() -> None:
    parser = argparse.ArgumentParser(description="Predictions on a media file.")
    parser.add_argument("clip")
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--real-time", action="store_true", help="wait for the clock instead of going as fast as possible")
    parser.add_argument("--no-stt", action="store_true", help="without speech recognition")
    args = parser.parse_args()

    engine = OnnxEngine.from_bundle(bundle.read(args.bundle or default_bundle()))
    session = Session(engine)
    speech = None if args.no_stt else open_speech(live=False)
    label = None
    # A path that is no file yet still means a file here, so the error names it.
    clip = str(Path(args.clip).resolve())
    with open_pipeline(session, plan_sources(clip, None), speech=speech, fast=not args.real_time) as pipeline:
        for prediction in pipeline:
            if prediction.label != label:
                label = prediction.label
                print(f"{prediction.t_s:7.2f} s  {label:>6}  {prediction.probs[label]:.2f}")
    print(pipeline.summary.line)


if __name__ == "__main__":
    try:
        main()
    except ClcrEdgeError as e:
        sys.exit(f"from_file: {e}")
