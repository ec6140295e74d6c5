"""False events on real clips that hold no digit to be seen or said, or (GRID) one said digit: what a bundle says for nothing.

    python benchmarks/real_clips.py BUNDLE CLIP [CLIP ...]

The committed numbers (`benchmarks/results/real_clips.json` names the clips) are of NASA's film, JFK's speech and five of GRID.
A clip `name.mpg` of the GRID corpus says one digit, the fifth character of its name: a run of that label is not counted.
Words come from the speech model that ships. A false event is a maximal run of ticks other than none (runs less than 0.4 s apart
are one). Writes JSON.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import av
import numpy as np
import typer

from clcr_edge import open_session
from clcr_edge.runtime.pipeline import replay
from clcr_edge.runtime.speech import open_speech
from clcr_edge.train.metrics import TICK_S, false_events

_NONE = -1
_OUT = Path(__file__).resolve().parent / "results" / "real_clips.json"


def main(bundle: Path, clips: list[Path], out: Path = _OUT) -> None:
    """Replay each clip and count."""
    total = ticks = 0
    rows: list[dict[str, Any]] = []
    for clip in clips:
        spoken = clip.stem[4] if clip.suffix == ".mpg" and len(clip.stem) == 6 and clip.stem[4].isdigit() else None
        with av.open(str(clip)) as container:
            camera = clip if container.streams.video else None
        with replay(open_session(bundle), camera=camera, mic=clip, speech=open_speech(live=False), fast=True) as pipeline:
            said = [p.label for p in pipeline]
        predicted = np.array([_NONE if label in ("none", spoken) else int(label) for label in said])
        count = false_events(predicted, _NONE)
        total, ticks = total + count, ticks + len(said)
        labels = sorted(set(said) - {"none"})
        rows.append({"clip": clip.name, "ticks": len(said), "false_events": count, "said": labels})
        print(f"{clip.name:20} {len(said):5} ticks  {count} false events  said: {', '.join(labels) or '-'}", flush=True)
    minutes = ticks * TICK_S / 60
    print(f"{total} false events in {minutes:.2f} minutes: {total / minutes:.2f} a minute")
    result = {"bundle": bundle.name, "false_events": total, "minutes": round(minutes, 3), "clips": rows}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    typer.run(main)
