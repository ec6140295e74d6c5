"""A network's predictions on samples of a data set, and their scores as the field reports them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from clcr_edge.data.sets import DataSet, Task, collate
from clcr_edge.data.sets.dataset import folds, split_by_group
from clcr_edge.data.sets.sample import IntArray
from clcr_edge.errors import ClcrEdgeError, DataError
from clcr_edge.model.teacher.inputs import absent
from clcr_edge.model.teacher.network import Teacher
from clcr_edge.train.field_metrics import Scores, classification_scores, segment_scores, sentiment_scores
from clcr_edge.train.metrics import macro_f1
from clcr_edge.train.parallel import ALONE, Group
from clcr_edge.train.samples import Reader, labels_of
from clcr_edge.train.settings import DataChoice

SENTIMENT = ("mosi", "mosei")
LEAKS = {
    "mosi-utterance": "the public features of mosi-utterance leak the labels (logistic regression on text alone gets 98 % of "
    "held-out videos: the features' extractors were trained on them); these figures rank nothing and are no accuracy to quote"
}


def splits_of(dataset: DataSet, choice: DataChoice) -> dict[str, IntArray]:
    """The data set's own splits, or those of a fold: "test" is the fold, "val" a tenth of the other speakers or videos."""
    if not choice.folds:
        return dict(dataset.splits)
    rest, test = folds(dataset, choice.folds)[choice.fold]
    parts = split_by_group([dataset.groups[i] for i in rest.tolist()], {"train": 0.9, "val": 0.1})
    return {"train": rest[parts["train"]], "val": rest[parts["val"]], "test": test}


@torch.no_grad()
def predict_rows(
    network: Teacher, dataset: DataSet, rows: IntArray, reader: Reader, size: int, group: Group = ALONE,
    without: frozenset[str] = frozenset(),
) -> list[npt.NDArray[np.float64]]:
    """One array per row, float64 `[S]`: classes (as numbers) of its segments, or one class or value.

    without: modalities to take away: they are absent in every sample, and a sample that has no other is predicted from nothing.
    Rows are shared out over the group, and every process gets all of them. Leaves the network in eval mode. Raises
    `ClcrEdgeError` in all of them where a prediction is no finite number: the largest of NaNs would pass for class 0.
    """
    network.eval()
    counts = [labels_of(dataset, i) for i in rows.tolist()]
    found = torch.zeros(len(rows), max(counts, default=1), dtype=torch.float64, device=group.device)
    mine = np.arange(len(rows))[group.rank :: group.world]
    for start in range(0, len(mine), size):
        places = mine[start : start + size]
        batch = reader(collate([dataset[i] for i in rows[places].tolist()])).to(group.device)
        inputs = {name: absent(sequence) if name in without else sequence for name, sequence in batch.inputs.items()}
        logits = network(inputs, batch.spans).aggregated.logits.float()
        said = (logits[:, 0] if dataset.task is Task.REGRESSION else logits.argmax(dim=-1)).double()
        said = torch.where(torch.isfinite(logits).all(dim=-1), said, torch.nan).view(len(places), -1)
        found[torch.from_numpy(places).to(group.device), : said.shape[1]] = said
    every = group.sum(found).cpu().numpy()
    predicted = [every[row, :count] for row, count in enumerate(counts)]
    for row, numbers in zip(rows.tolist(), predicted, strict=True):
        if not np.isfinite(numbers).all():
            raise ClcrEdgeError(
                f"{dataset.name}: the network's prediction for {dataset.names[row]} is no finite number; "
                "lower the learning rate, or take an earlier checkpoint"
            )
    return predicted


def score_rows(dataset: DataSet, rows: IntArray, predicted: Sequence[npt.NDArray[np.float64]]) -> Scores:
    """Scores with `accuracy`, `macro_f1`, `n` and the field's own.

    mosi, mosei: accuracy and macro_f1 are those of negative against nonnegative, over all samples. Other regressions have no
    classes: accuracy and macro_f1 are NaN. Segments: over segments, which n counts.
    """
    if not len(rows):
        raise DataError(f"{dataset.name}: no sample to score; choose another split")
    if dataset.task is Task.SEGMENTS:
        truth = [np.asarray(dataset.targets[i]) for i in rows.tolist()]
        background = dataset.classes.index("background") if "background" in dataset.classes else None
        return segment_scores(truth, [p.astype(np.int64) for p in predicted], background)
    said = np.concatenate(predicted)
    true = np.asarray([dataset.targets[i] for i in rows.tolist()])
    if dataset.task is Task.CLASSIFICATION:
        return classification_scores(true, said.astype(np.int64))
    scores = sentiment_scores(true, said)
    if dataset.name not in SENTIMENT:
        kept = {k: scores[k] for k in ("mae", "pearson", "n")}
        return {"accuracy": float("nan"), "macro_f1": float("nan")} | kept
    binary = macro_f1((true >= 0).astype(np.int64), (said >= 0).astype(np.int64))
    return {"accuracy": scores["acc2_negative_vs_nonnegative"], "macro_f1": binary} | scores


def merit(dataset: DataSet, scores: Scores) -> float:
    """By what the best epoch is chosen: the accuracy, or of a regression the mean absolute error, negative."""
    return -float(scores["mae"]) if dataset.task is Task.REGRESSION else float(scores["accuracy"])
