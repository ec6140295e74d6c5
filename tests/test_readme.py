"""What the README shows runs, and the student that ships understands the demo clip."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def test_the_python_of_the_readme_runs(tiny_bundle: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    assert blocks
    for block in blocks:
        exec(block.replace("out/digits-bundle", str(tiny_bundle)), {})


@pytest.mark.slow
def test_the_shipped_student_understands_the_demo_clip() -> None:
    pytest.importorskip("vosk", reason="vosk is not installed: pip install 'clcr-edge[audio]'")
    pytest.importorskip("torch", reason="torch is not installed: pip install 'clcr-edge[train]'")
    from clcr_edge.runtime.assets import shipped
    from clcr_edge.runtime.pipeline import replay
    from clcr_edge.runtime.session import Session
    from clcr_edge.runtime.speech import open_speech
    from clcr_edge.train.subject import open_subject

    checkpoint = shipped("digits-student")
    assert checkpoint is not None
    subject, seen = open_subject(checkpoint)
    assert seen is not None, "without the list of what training saw, eval could score it on its own training data"
    clip = ROOT / "examples" / "demo.mp4"
    truth = json.loads(clip.with_suffix(".json").read_text("utf-8"))["events"]
    with replay(Session(subject.open()), camera=clip, mic=clip, speech=open_speech(live=False), fast=True) as pipeline:
        said = [(p.t_s, p.label) for p in pipeline]
    right = 0
    for event in truth:
        heard = Counter(label for t, label in said if event["onset_s"] < t <= event["end_s"] and label != "none")
        right += bool(heard) and heard.most_common(1)[0][0] == event["label"]
    assert right >= len(truth) - 1, f"{right} of {len(truth)} events"
