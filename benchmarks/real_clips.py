"""False events on real clips that hold no digit to be seen or said, or (GRID) one said digit: what a bundle says for nothing.

    python benchmarks/real_clips.py BUNDLE CLIP [CLIP ...]

A clip `name.mpg` of the GRID corpus says one digit, the fifth character of its name: a run of that label is not counted.
Words come from the speech model that ships. A false event is a maximal run of ticks other than none (runs less than 0.4 s apart
are one).
"""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import typer

from clcr_edge import open_session
from clcr_edge.runtime.pipeline import replay
from clcr_edge.runtime.speech import open_speech
from clcr_edge.train.metrics import TICK_S, false_events

_NONE = -1


def main(bundle: Path, clips: list[Path]) -> None:
    """Replay each clip and count."""
    total = ticks = 0
    for clip in clips:
        spoken = clip.stem[4] if clip.suffix == ".mpg" and len(clip.stem) == 6 and clip.stem[4].isdigit() else None
        with av.open(str(clip)) as container:
            camera = clip if container.streams.video else None
        with replay(open_session(bundle), camera=camera, mic=clip, speech=open_speech(live=False), fast=True) as pipeline:
            said = [p.label for p in pipeline]
        predicted = np.array([_NONE if label in ("none", spoken) else int(label) for label in said])
        count = false_events(predicted, _NONE)
        total, ticks = total + count, ticks + len(said)
        labels = ", ".join(sorted(set(said) - {"none"})) or "-"
        print(f"{clip.name:20} {len(said):5} ticks  {count} false events  said: {labels}", flush=True)
    minutes = ticks * TICK_S / 60
    print(f"{total} false events in {minutes:.2f} minutes: {total / minutes:.2f} a minute")


if __name__ == "__main__":
    typer.run(main)
