"""Samples of a data set -> what a teacher reads: sequences with masks and times, spans, labels.

    clip.frames  --> frames   [B, T, 3, S, S]      all times are shares of the sample's own length,
    clip.audio   --> fbank    [B, T, 4, mels]      so that sound and picture meet where they belong
    clip.words, text --> n-grams or token numbers
    features     --> as they are
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from clcr_edge.config import TickConfig
from clcr_edge.data.sets import Batch, DataSet, Task
from clcr_edge.errors import ConfigError, DataError
from clcr_edge.features import fbank_of_ticks, word_ngrams
from clcr_edge.model.losses import IGNORED
from clcr_edge.model.teacher.config import ModalityConfig, TeacherConfig, teacher_from_table, teacher_to_table
from clcr_edge.model.teacher.inputs import Sequence, even_spans
from clcr_edge.packets import Modality

TICK = TickConfig()  # sound is cut into the student's ticks: 40 ms, four filter-bank frames
# Sequences of hundreds of steps: the exchange costs their square, so the first level already halves them twice.
_MANY = 128
_LONG = (4, 8, 16)
_SHORT = (1, 2, 4)


class Ready(NamedTuple):
    """One batch of one process. spans: None unless the task is segments. labels: by task, see `teacher_losses`. share: how much
    of the whole step's labels these are, times the number of processes (1 in one process). names: of the samples."""

    inputs: dict[str, Sequence]
    spans: Tensor | None
    labels: Tensor
    share: float
    names: tuple[str, ...]

    def to(self, device: torch.device) -> Ready:
        """The same on another device."""
        inputs = {k: s.to(device) for k, s in self.inputs.items()}
        spans = None if self.spans is None else self.spans.to(device)
        return self._replace(inputs=inputs, spans=spans, labels=self.labels.to(device))


def default_network(dataset: DataSet, modalities: tuple[str, ...] = ()) -> TeacherConfig:
    """The teacher that fits a data set: its modalities in the form that it has, its classes, its task.

    modalities: names of those to use, empty for all. Raises `ConfigError` for one that the data set does not have.
    """
    wanted = [m for m in Modality if m in dataset.modalities]
    for name in modalities:
        if name not in [m.key for m in wanted]:
            raise ConfigError(f"modalities = {name!r}: {dataset.name} has {', '.join(m.key for m in wanted)}")
    wanted = [m for m in wanted if not modalities or m.key in modalities]
    outputs = dataset.classes or ("value",)
    return TeacherConfig(tuple((m.key, _form(dataset, m)) for m in wanted), outputs, task=dataset.task.value)


def network_for(dataset: DataSet, modalities: tuple[str, ...], changes: Mapping[str, Any]) -> TeacherConfig:
    """The default network with the changes of a `[teacher]` table. Raises `ConfigError` naming the key."""
    return changed(default_network(dataset, modalities), changes)


def changed(network: TeacherConfig, changes: Mapping[str, Any]) -> TeacherConfig:
    """A network with the changes of a `[teacher]` table laid over it. Task and outputs are the data set's and stay."""
    table = teacher_to_table(network)
    for key in ("task", "outputs"):
        if key in changes and changes[key] != table[key]:
            raise ConfigError(f"teacher.{key} = {changes[key]!r}: the data set decides that ({table[key]!r}); take the key out")
    own = changes.get("modalities", {})
    if not isinstance(own, dict):
        raise ConfigError(f"teacher.modalities = {own!r}: give one table [teacher.modalities.NAME] for each that differs")
    for name, values in own.items():
        if name not in table["modalities"]:
            raise ConfigError(f"teacher.modalities.{name}: not among {', '.join(table['modalities'])}; take the table out")
        if not isinstance(values, dict):
            raise ConfigError(f"teacher.modalities.{name} = {values!r}: expected a table")
        base = table["modalities"][name]
        if values.get("form", base["form"]) != base["form"]:
            # Widths of another form mean nothing here; the number of channels follows from the form.
            base = {"channels": {"ngrams": TICK.ngram_buckets, "text": 0}.get(values["form"], base["channels"])}
        table["modalities"][name] = base | values
    return teacher_from_table(table | {k: v for k, v in changes.items() if k != "modalities"})


def _form(dataset: DataSet, modality: Modality) -> ModalityConfig:
    for index in range(len(dataset)):
        sample = dataset[index]
        if sample.clip is not None:
            break
        if modality in sample.features:
            width = sample.features[modality].values.shape[1]
            return ModalityConfig("features", width, strides=_LONG if _steps(dataset, modality) > _MANY else _SHORT)
    if modality is Modality.VISION:
        return ModalityConfig("frames", 3)
    if modality is Modality.AUDIO:
        return ModalityConfig("fbank", TICK.n_mels, strides=_LONG)
    return ModalityConfig("ngrams", TICK.ngram_buckets)


def _steps(dataset: DataSet, modality: Modality) -> int:
    """The longest of the first samples of a set of features; a few say enough."""
    found = [dataset[i].features.get(modality) for i in range(min(len(dataset), 64))]
    return max((len(f.mask) for f in found if f is not None), default=0)


class Reader:
    """Batches of one data set as one network reads them. Builds the tokeniser where language is `text`."""

    def __init__(self, config: TeacherConfig) -> None:
        self.config = config
        self.tokeniser: Any = None
        for _, modality in config.modalities:
            if modality.form == "text":
                from clcr_edge.model.teacher.language import Tokeniser

                self.tokeniser = Tokeniser(modality.pretrained)

    def __call__(self, batch: Batch, share: float = 1.0) -> Ready:
        """Raises `DataError` where the batch does not hold what the network reads."""
        seconds = _seconds(batch)
        made = {name: self._one(batch, Modality[name.upper()], modality, seconds) for name, modality in self.config.modalities}
        inputs = {name: sequence for name, sequence in made.items() if sequence is not None and bool(sequence.mask.any())}
        if not inputs:
            raise DataError(f"{batch.names[0]} and its batch: none of {', '.join(self.config.names)} is there; leave them out")
        mask = torch.from_numpy(batch.target_mask)
        if self.config.task == "segments":
            labels = torch.where(mask, torch.from_numpy(batch.targets), IGNORED)
            return Ready(inputs, even_spans(mask.sum(dim=1)), labels, share, batch.names)
        labels = torch.from_numpy(batch.targets)
        return Ready(inputs, None, labels.unsqueeze(1) if self.config.task == "regression" else labels, share, batch.names)

    def _one(self, batch: Batch, modality: Modality, config: ModalityConfig, seconds: Tensor) -> Sequence | None:
        if config.form == "features":
            return _features(batch, modality)
        if config.form == "frames":
            return _frames(batch, seconds)
        if config.form == "fbank":
            return _fbank(batch, seconds)
        if config.form == "text":
            if batch.step_texts and any(batch.step_texts):
                raise ConfigError(f"form = 'text': {batch.names[0]} has one transcript for each segment; use the features")
            sequence: Sequence = self.tokeniser([text or None for text in batch.texts])
            return sequence
        return _words(batch, seconds)


def _seconds(batch: Batch) -> Tensor:
    """The length of each sample: float `[B]`, of picture or sound, whichever is longer."""
    length = np.zeros(len(batch))
    if batch.frame_mask is not None and batch.frames_per_s:
        length = np.maximum(length, batch.frame_mask.sum(axis=1) / batch.frames_per_s)
    if batch.audio_mask is not None and batch.rate_hz:
        length = np.maximum(length, batch.audio_mask.sum(axis=1) / batch.rate_hz)
    if batch.target_mask.ndim == 2:
        length = np.maximum(length, batch.target_mask.sum(axis=1))  # AVE: a segment is a second, though films end early
    return torch.from_numpy(length).float().clamp_min(1e-3)


def _clocked(values: Tensor, mask: Tensor, step_s: float, seconds: Tensor) -> Sequence:
    """Positions of `step_s` each, from the sample's beginning."""
    edges = torch.arange(values.shape[1] + 1) * step_s / seconds.unsqueeze(1)
    return Sequence.of(values, mask=mask, times=torch.stack([edges[:, :-1], edges[:, 1:]], dim=-1).clamp_max(1.0))


def _features(batch: Batch, modality: Modality) -> Sequence | None:
    if modality not in batch.features:
        return None
    values, mask = (torch.from_numpy(x) for x in batch.features[modality])
    # Up to the last step that is there: the padding of a batch must not stretch a sample's time.
    place = torch.arange(1, mask.shape[1] + 1)
    return Sequence.of(values, (mask * place).amax(dim=1), mask)


def _frames(batch: Batch, seconds: Tensor) -> Sequence | None:
    if batch.frames is None or batch.frame_mask is None or not batch.frames_per_s:
        raise DataError(f"{batch.names[0]}: no pictures, and the network reads frames; choose another form")
    if not batch.frame_mask.any():
        return None
    values = torch.from_numpy(np.ascontiguousarray(batch.frames.transpose(0, 1, 4, 2, 3)))
    return _clocked(values, torch.from_numpy(batch.frame_mask), 1.0 / batch.frames_per_s, seconds)


def _fbank(batch: Batch, seconds: Tensor) -> Sequence | None:
    if batch.audio is None or batch.audio_mask is None or batch.rate_hz is None:
        raise DataError(f"{batch.names[0]}: no sound, and the network reads its filter bank; choose another form")
    if batch.rate_hz != TICK.sample_rate_hz:
        raise ConfigError(f"media.sample_rate_hz = {batch.rate_hz}: the filter bank needs {TICK.sample_rate_hz}")
    ticks = -(-batch.audio_mask.sum(axis=1) // TICK.samples)
    if not ticks.any():
        return None
    made = np.zeros((len(batch), int(ticks.max()), TICK.fbank_frames, TICK.n_mels), np.float32)
    for row, count in enumerate(ticks.tolist()):
        sound = np.zeros(count * TICK.samples, np.float32)
        heard = min(len(sound), batch.audio.shape[1])
        sound[:heard] = batch.audio[row, :heard]
        made[row, :count] = fbank_of_ticks(sound, np.ones(count, bool), TICK)
    mask = torch.arange(made.shape[1]) < torch.from_numpy(ticks).unsqueeze(1)
    return _clocked(torch.from_numpy(made), mask, TICK.seconds, seconds)


def _words(batch: Batch, seconds: Tensor) -> Sequence | None:
    """Words with their times where these are known, the transcript's words evenly spread where not."""
    said = [
        [(w.text, w.start_s, w.end_s) for w in batch.words[row]]
        if batch.words and batch.words[row]
        else _spread(batch.texts[row], float(seconds[row]))
        for row in range(len(batch))
    ]
    longest = max(len(words) for words in said)
    if not longest:
        return None
    ngrams = np.zeros((len(batch), longest, TICK.ngrams_per_word), np.int64)
    times = np.zeros((len(batch), longest, 2), np.float32)
    for row, words in enumerate(said):
        for slot, (text, start_s, end_s) in enumerate(words):
            ngrams[row, slot] = word_ngrams(text, TICK)
            times[row, slot] = start_s, end_s
    share = (torch.from_numpy(times) / seconds[:, None, None]).clamp(0.0, 1.0)
    return Sequence.of(torch.from_numpy(ngrams), torch.tensor([len(words) for words in said]), times=share)


def _spread(text: str, seconds: float) -> list[tuple[str, float, float]]:
    words = text.split()
    step = seconds / max(len(words), 1)
    return [(word, i * step, (i + 1) * step) for i, word in enumerate(words)]


def labels_of(dataset: DataSet, row: int) -> int:
    """How many labels a sample has: its segments, or one."""
    return len(dataset.targets[row]) if dataset.task is Task.SEGMENTS else 1
