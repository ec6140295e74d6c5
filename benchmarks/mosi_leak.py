"""Why `mosi-utterance` can rank nothing: what logistic regression on its text features alone gets right of unseen videos.

    python benchmarks/mosi_leak.py --root DIR [--folds 5]

DIR holds bc-LSTM's files, as for `clcr-edge train mosi-utterance`. Folds by video: no video is on both sides. Features are
standardised on the training side; weights decay a little; Newton's method. The other two modalities beside it. Writes JSON.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import typer

from clcr_edge.data.sets.dataset import folds
from clcr_edge.data.sets.mosi_utterance import load_mosi_utterance
from clcr_edge.data.sets.options import Options
from clcr_edge.packets import Modality

_OUT = Path(__file__).resolve().parent / "results" / "mosi_leak.json"
_DECAY, _STEPS = 1.0, 30

Array = npt.NDArray[np.float64]


def logistic(x: Array, y: Array) -> Array:
    """Weights `[D]` of logistic regression of `y` (0 or 1) `[N]` on `x` `[N, D]`."""
    weights = np.zeros(x.shape[1])
    for _ in range(_STEPS):
        p = 1.0 / (1.0 + np.exp(-np.clip(x @ weights, -30.0, 30.0)))
        slope = x.T @ (p - y) + _DECAY * weights
        bend = (x * (p * (1.0 - p))[:, None]).T @ x + _DECAY * np.eye(len(weights))
        step = np.linalg.solve(bend, slope)
        weights -= step
        if np.abs(step).max() < 1e-8:
            break
    return weights


def main(
    root: Annotated[Path, typer.Option()],
    count: Annotated[int, typer.Option("--folds", min=2)] = 5,
    out: Path = _OUT,
) -> None:
    """Every fold, each kind of features by itself."""
    dataset = load_mosi_utterance(root, Options())
    samples = list(dataset)
    result: dict[str, object] = {"videos": len(samples), "folds": count}
    for modality in (Modality.LANGUAGE, Modality.AUDIO, Modality.VISION):
        right = total = 0
        for rest, test in folds(dataset, count):
            sides = []
            for chosen in (rest.tolist(), test.tolist()):
                x = np.concatenate([samples[i].features[modality].values for i in chosen]).astype(float)
                y = np.concatenate([np.asarray(samples[i].target) for i in chosen]).astype(float)
                sides.append((x, y))
            (x, y), (unseen, truth) = sides
            mean, spread = x.mean(axis=0), x.std(axis=0) + 1e-9
            weights = logistic(np.c_[(x - mean) / spread, np.ones(len(x))], y)
            said = np.c_[(unseen - mean) / spread, np.ones(len(unseen))] @ weights > 0.0
            right, total = right + int((said == (truth > 0.5)).sum()), total + len(truth)
        result["utterances"] = total
        result[f"accuracy_{modality.name.lower()}"] = round(right / total, 4)
        print(f"{modality.name.lower():9} {right / total:.1%} of {total} utterances of unseen videos", flush=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    typer.run(main)
