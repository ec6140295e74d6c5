"""Hashes of all that decides where a training ends: a killed run goes on only from a resume file of its own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any

import numpy as np
from torch import nn

from clcr_edge.data.bank import DigitBank
from clcr_edge.data.sets import DataSet

Part = bytes | np.ndarray[Any, Any]


def of_settings(*values: Any) -> str:
    """Of numbers, names and tables of them: what JSON can say."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()


def of_weights(model: nn.Module) -> str:
    """Of every parameter and buffer by name: a teacher's."""
    whole: list[Part] = []
    for name, value in sorted(model.state_dict().items()):
        whole += [name.encode(), value.detach().cpu().numpy()]
    return _digest(whole)


def of_bank(*banks: DigitBank) -> str:
    """Of the pictures and recordings, and what they are of."""
    whole: list[Part] = []
    for bank in banks:
        whole += [bank.images, bank.image_labels, bank.recording_labels, " ".join(bank.speakers).encode(), *bank.recordings]
    return _digest(whole)


def of_set(dataset: DataSet) -> str:
    """Of names, groups and targets, and of the features where the set holds features. Media are known by their names only: to
    read them all would take as long as an epoch."""
    whole: list[Part] = [json.dumps([dataset.names, dataset.groups]).encode()]
    whole += [np.asarray(target) for target in dataset.targets]
    if len(dataset) and dataset[0].clip is None:
        for index in range(len(dataset)):
            sample = dataset[index]
            for modality in sorted(sample.features, key=lambda m: m.key):
                whole += [modality.key.encode(), sample.features[modality].values, sample.features[modality].mask]
            whole.append(json.dumps([sample.text, sample.texts]).encode())
    return _digest(whole)


def _digest(parts: Iterable[Part]) -> str:
    found = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else np.ascontiguousarray(part).tobytes()
        found.update(len(data).to_bytes(8, "little"))  # or two parts could pass for one
        found.update(data)
    return found.hexdigest()
