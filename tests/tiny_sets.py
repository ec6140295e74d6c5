"""Small data sets in the real formats that a small network can learn, and small networks for them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

NETWORK = """
[teacher]
width = 12
rank_shared = 5
rank_private = 5
hidden = 8
[teacher.modalities.language]
width = 8
[teacher.modalities.vision]
width = 8
[teacher.modalities.audio]
width = 8
"""


def write_utterances(root: Path, videos: int = 20, seed: int = 0, prefix: str = "v") -> Path:
    """`mosi-utterance`; every other video is positive, and the first number of its utterances' text says so."""
    rng = np.random.default_rng(seed)
    root.mkdir(parents=True, exist_ok=True)
    ids = [f"{prefix}{v:02d}_{u}" for v in range(videos) for u in range(int(rng.integers(2, 5)))]
    labels = np.asarray([int(ident[len(prefix) :].split("_")[0]) % 2 for ident in ids])
    for kind, width in (("text", 4), ("audio", 3), ("video", 2)):
        values = rng.normal(size=(len(ids), width))
        if kind == "text":
            values[:, 0] = (2.0 * labels - 1.0) * 2.0 + 0.3 * values[:, 0]
        lines = [",".join([*(f"{x:.5f}" for x in row), str(label)]) for row, label in zip(values, labels, strict=True)]
        (root / f"{kind}_x.csv").write_text("\n".join(lines) + "\n")
    rows = [f"{ident},well then,{label}" for ident, label in zip(ids, labels, strict=True)]
    (root / "transcripts_x.csv").write_text("\n".join(["id,text,label", *rows]) + "\n")
    return root


def write_config(path: Path, train: str = "", more: str = "") -> Path:
    """A configuration of a small network: AdamW, batches of 8, and what `train` adds."""
    path.write_text(f'[train]\noptimiser = "adamw"\nlr = 0.02\nbatch = 8\n{train}\n{NETWORK}\n{more}\n')
    return path
