"""Law 1 at length: the streamed predictions equal the offline model's, tick by tick, and the error does not grow.

    clcr-edge export --out out/digits-bundle
    python benchmarks/law_length.py out/digits-bundle [--ticks 100000] [--start-s 0]

100,000 ticks are 67 minutes of media: random frames, sound and words that come and go, with a few runs of sound of many
minutes among the short ones, pushed through a session. The reference is the textbook model in torch over pieces of 2,000
ticks, each with the receptive field before it and the words that its windows can still hold. Of each tick the largest
difference of any output is kept. Growth: a line fitted to the largest difference per 1,000 ticks. Writes JSON and
docs/law_length.md.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import time
from pathlib import Path
from typing import Annotated, Any

for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ[_name] = "1"

import numpy as np  # noqa: E402
import torch  # noqa: E402
import typer  # noqa: E402

from clcr_edge.bundle import read  # noqa: E402
from clcr_edge.config import TickConfig  # noqa: E402
from clcr_edge.export.native.ready import ready_step  # noqa: E402
from clcr_edge.export.step import OUTPUTS  # noqa: E402
from clcr_edge.features import fbank, word_age_ticks, word_ngrams  # noqa: E402
from clcr_edge.model.student import NEVER, Student, TickBatch  # noqa: E402
from clcr_edge.packets import AudioChunk, FloatArray, VideoFrame, Word  # noqa: E402
from clcr_edge.runtime.engine import Engine, State, StepInputs, StepOutputs  # noqa: E402
from clcr_edge.runtime.machine import cpu_name  # noqa: E402
from clcr_edge.runtime.native_engine import NativeEngine  # noqa: E402
from clcr_edge.runtime.onnx_engine import OnnxEngine  # noqa: E402
from clcr_edge.runtime.session import Session  # noqa: E402
from clcr_edge.train.checkpoint import WEIGHTS, load_student  # noqa: E402

_HERE = Path(__file__).resolve().parent
_SHIPPED = _HERE.parent / "clcr_edge" / "assets" / "digits-student"
_LIMIT = 1e-5
_PIECE, _BEFORE = 2_000, 128  # ticks; _BEFORE is no shorter than the receptive field (114), and a whole number of deep tokens
_WORDS_BEFORE = 24  # a window of 16 and what its convolutions see before it
_WORDS = ("zero", "one", "seven", "hello", "Kiosk", "a", "internationalisation")


class LongRecording:
    """Random media made as they are asked for: an hour of samples would be 256 MB."""

    def __init__(self, ticks: int, seed: int, config: TickConfig) -> None:
        rng = np.random.default_rng(seed)
        self.ticks, self.seed, self.config = ticks, seed, config
        self.images = rng.integers(0, 256, (7, config.image_size, config.image_size), dtype=np.uint8)
        self.shown = rng.integers(0, 7, ticks)
        self.vision = np.zeros(ticks, bool)
        for first, last in _runs(ticks, rng, (1, 2, 5, 30, 200)):
            self.vision[first:last] = True
        self.audio_runs = _runs(ticks, rng, (1, 2, 5, 30, 200, 12_000))
        self.words: list[tuple[int, Word]] = []
        for tick in np.flatnonzero(rng.random(ticks) < 0.06):
            for _ in range(int(rng.integers(1, 4))):
                end_s = (tick + 1) / config.rate_hz - float(rng.uniform(0.0, 1.5))
                self.words.append((int(tick), Word(str(rng.choice(_WORDS)), end_s - 0.3, end_s, float(rng.random()))))
        self._run = -1, np.empty(0, np.float32)
        self._fbank = -1, np.empty(0, np.float32)

    def samples(self, run: int) -> FloatArray:
        """All samples of one run of sound; the newest run is kept."""
        if self._run[0] != run:
            first, last = self.audio_runs[run]
            rng = np.random.default_rng((self.seed, run))
            size = self.config.samples
            loud = rng.uniform(0.001, 0.3, last - first).astype(np.float32).repeat(size)
            self._run = run, rng.standard_normal((last - first) * size, np.float32) * loud
        return self._run[1]

    def fbank_of(self, first: int, last: int) -> tuple[FloatArray, Any]:
        """fbank `[ticks, F, n_mels]` and presence of some ticks, each run's filter bank made from its own beginning."""
        c = self.config
        out = np.zeros((last - first, c.fbank_frames, c.n_mels), np.float32)
        there = np.zeros(last - first, bool)
        for run, (begin, end) in enumerate(self.audio_runs):
            if begin >= last or end <= first:
                continue
            if self._fbank[0] != run:
                self._fbank = run, fbank(self.samples(run), c).reshape(end - begin, c.fbank_frames, c.n_mels)
            a, b = max(begin, first), min(end, last)
            out[a - first : b - first] = self._fbank[1][a - begin : b - begin]
            there[a - first : b - first] = True
        return out, there

    def batch(self, first: int, last: int) -> TickBatch:
        """Ticks first..last for the offline model, and the words that they, or the windows they start with, can hold."""
        c = self.config
        at = [i for i, (tick, _) in enumerate(self.words) if first <= tick < last]
        begin = next((i for i, (tick, _) in enumerate(self.words) if tick >= first), len(self.words))
        chosen = self.words[max(0, begin - _WORDS_BEFORE) : (at[-1] + 1 if at else begin)] or [(NEVER, Word("", 0.0, 0.0))]
        sound, there = self.fbank_of(first, last)
        arrives = [tick - first if tick != NEVER else NEVER for tick, _ in chosen]
        ages = [word_age_ticks(w.end_s, (tick + 1) / c.rate_hz, c) if tick != NEVER else 0 for tick, w in chosen]
        arrays = (
            self.images[self.shown[first:last]], self.vision[first:last], sound, there,
            np.stack([word_ngrams(w.text, c) for _, w in chosen]).astype(np.int64),
            np.array([w.confidence for _, w in chosen], np.float32), np.array(arrives), np.array(ages),
        )  # fmt: skip
        return TickBatch(*(torch.from_numpy(np.ascontiguousarray(x)[None]) for x in arrays))


def _runs(ticks: int, rng: np.random.Generator, lengths: tuple[int, ...]) -> list[tuple[int, int]]:
    """Unbroken runs `[first, last)`; the long lengths are drawn seldom."""
    share = np.array([1.0 if n < 1_000 else 0.02 for n in lengths])
    at, runs = 0, []
    while at < ticks:
        length = int(rng.choice(lengths, p=share / share.sum()))
        runs.append((at, min(at + length, ticks)))
        at += length + int(rng.choice([1, 2, 3, 7, 40, 160]))
    return runs


@torch.no_grad()
def offline(student: Student, recording: LongRecording, first: int, last: int) -> list[FloatArray]:
    """The textbook model at ticks first..last: `OUTPUTS`, each `[ticks, ...]`."""
    begin = max(0, first - _BEFORE)
    batch = recording.batch(begin, last)
    features = student.encode(batch)
    rows: list[list[torch.Tensor]] = [[] for _ in OUTPUTS]
    for ticks in torch.arange(first - begin, last - begin).split(250):
        out = student.fuse(student.windows(batch, features, ticks.unsqueeze(0)))
        found = (torch.softmax(out.aggregated.logits, -1), *out.aggregated[1:4], out.exchanged.participation)
        for row, value in zip(rows, (*found, out.exchanged.there.float()), strict=True):
            row.append(value)
    return [torch.cat(row).numpy() for row in rows]


class Tap:
    """An engine that keeps the newest outputs, unrounded."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.config, self.precision = engine, engine.config, engine.precision

    def initial_state(self) -> State:
        return self.engine.initial_state()

    def step(self, inputs: StepInputs, state: State) -> tuple[StepOutputs, State]:
        self.outputs, new = self.engine.step(inputs, state)
        return self.outputs, new


class Streamed:
    """The recording through a session, tick by tick."""

    def __init__(self, engine: Engine, recording: LongRecording, start_s: float) -> None:
        self.tap, self.recording, self.start_s = Tap(engine), recording, start_s
        self.session = Session(self.tap)
        self.session.start(start_s)
        self._run = self._word = 0

    def tick(self, tick: int) -> list[FloatArray]:
        r, c = self.recording, self.recording.config
        now_s = self.start_s + tick / c.rate_hz
        if r.vision[tick]:
            self.session.push_frame(VideoFrame(np.repeat(r.images[r.shown[tick]][..., None], 3, axis=2), now_s, tick))
        while self._run < len(r.audio_runs) and r.audio_runs[self._run][1] <= tick:
            self._run += 1
        if self._run < len(r.audio_runs) and r.audio_runs[self._run][0] <= tick:
            at = (tick - r.audio_runs[self._run][0]) * c.samples
            self.session.push_audio(AudioChunk(r.samples(self._run)[at : at + c.samples], c.sample_rate_hz, now_s))
        while self._word < len(r.words) and r.words[self._word][0] == tick:
            w = r.words[self._word][1]
            self.session.push_word(Word(w.text, self.start_s + w.start_s, self.start_s + w.end_s, w.confidence))
            self._word += 1
        self.session.step()
        return [getattr(self.tap.outputs, name) for name in OUTPUTS]


def growth(error: FloatArray) -> dict[str, float]:
    """A line through the largest difference per 1,000 ticks: its slope per 100,000 ticks, and the slope's standard error."""
    peaks = error[: len(error) // 1_000 * 1_000].reshape(-1, 1_000).max(axis=1).astype(float)
    at = np.arange(len(peaks)) / 100.0
    slope, base = np.polyfit(at, peaks, 1)
    left = peaks - (base + slope * at)
    spread = float(np.sqrt((left**2).sum() / max(len(peaks) - 2, 1) / ((at - at.mean()) ** 2).sum()))
    return {"per_100_000_ticks": float(slope), "standard_error": spread, "mean_of_peaks": float(peaks.mean())}


def main(
    bundle: Path,
    checkpoint: Path = _SHIPPED,
    ticks: Annotated[int, typer.Option(min=4_000)] = 100_000,
    start_s: float = 0.0,
    seed: int = 0,
    out: Path = _HERE / "results" / "law_length.json",
    docs: Path = _HERE.parent / "docs" / "law_length.md",
) -> None:
    """Run, print, write. Fails if any tick is off by more than 1e-5, or if the error grows."""
    torch.set_num_threads(1)
    student = load_student(checkpoint)[0].eval()
    config = student.config
    recording = LongRecording(ticks, seed, config.tick)
    # A frame stands in for half a second of those that did not come; the offline model knows only what is there.
    plain = dataclasses.replace(config, tick=dataclasses.replace(config.tick, hold_frame_s=config.tick.seconds))
    opened = read(bundle)
    engines: dict[str, Engine] = {
        "ONNX Runtime": OnnxEngine(opened.graph("fp32"), plain, "fp32"),
        "native": NativeEngine(ready_step(opened, "fp32", print)[0], plain),
    }
    streams = {name: Streamed(engine, recording, start_s) for name, engine in engines.items()}
    errors = {name: np.zeros(ticks, np.float32) for name in engines}
    spread = dict.fromkeys(OUTPUTS, 0.0)
    begun = time.monotonic()
    for first in range(0, ticks, _PIECE):
        last = min(first + _PIECE, ticks)
        reference = offline(student, recording, first, last)
        for which, streamed in streams.items():
            got, error = [streamed.tick(tick) for tick in range(first, last)], errors[which]
            for k, wanted in enumerate(reference):
                mine = np.stack([g[k] for g in got])
                off = np.abs(wanted - mine).reshape(last - first, -1).max(axis=1)
                np.maximum(error[first:last], off, out=error[first:last])
        for name, wanted in zip(OUTPUTS, reference, strict=True):
            spread[name] = max(spread[name], float(wanted.std(axis=0).max()))
        said = ", ".join(f"{name} {error.max():.2e}" for name, error in errors.items())
        print(f"{last} ticks, {time.monotonic() - begun:.0f} s, largest difference so far: {said}", flush=True)
    tenth = ticks // 10
    result = {
        "weights_sha256": hashlib.sha256((checkpoint / WEIGHTS).read_bytes()).hexdigest(),
        "machine": cpu_name(), "ticks": ticks, "media_minutes": round(ticks / config.tick.rate_hz / 60, 1), "start_s": start_s,
        "words": len(recording.words), "longest_run_of_sound_ticks": max(b - a for a, b in recording.audio_runs),
        "largest_spread_of_outputs": spread,
        "engines": {
            name: {
                "largest": float(error.max()), "p50": float(np.median(error)), "p99": float(np.percentile(error, 99)),
                "largest_per_tenth": [float(error[i * tenth : (i + 1) * tenth].max()) for i in range(10)],
                "p99_per_tenth": [float(np.percentile(error[i * tenth : (i + 1) * tenth], 99)) for i in range(10)],
                "growth_of_peaks": growth(error),
            }
            for name, error in errors.items()
        },
    }  # fmt: skip
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    docs.write_text(page(result), "utf-8")
    print(page(result))
    lines = [growth(error) for error in errors.values()]
    grows = any(x["per_100_000_ticks"] > max(3 * x["standard_error"], 0.2 * x["mean_of_peaks"]) for x in lines)
    raise typer.Exit(1 if max(e.max() for e in errors.values()) > _LIMIT or grows else 0)


def page(r: dict[str, Any]) -> str:
    """docs/law_length.md."""
    engines: dict[str, dict[str, Any]] = r["engines"]
    head = "".join(f" {name}: largest | p99 |" for name in engines)
    rows, said = "", ""
    for i in range(10):
        cells = [f"{x[key][i]:.2e}" for x in engines.values() for key in ("largest_per_tenth", "p99_per_tenth")]
        rows += f"| {i + 1} | {' | '.join(cells)} |\n"
    for name, x in engines.items():
        line = x["growth_of_peaks"]
        said += (
            f"- {name}: the largest difference of any output at any tick is **{x['largest']:.2e}**, median {x['p50']:.1e}, "
            f"p99 {x['p99']:.1e}; a line through the largest difference per 1,000 ticks has a slope of "
            f"{line['per_100_000_ticks']:.1e} +- {line['standard_error']:.1e} (standard error) per 100,000 ticks, on a mean of "
            f"{line['mean_of_peaks']:.1e}.\n"
        )
    return f"""# Law 1 at length

Streamed predictions (a session on ONNX Runtime and one on the native engine, fp32) against the offline model (torch) at every
tick of {r["ticks"]:,} ticks = {r["media_minutes"]} minutes of media, stamps from {r["start_s"]:g} s on, {r["words"]:,} words,
runs of sound of up to {r["longest_run_of_sound_ticks"]:,} ticks; the student that ships (weights {r["weights_sha256"][:12]}):

```sh
clcr-edge export --out out/digits-bundle
python benchmarks/law_length.py out/digits-bundle
```

{said}
The law allows 1e-05. {r["machine"]}.

| tenth of the run |{head}
|---|{"---|" * (2 * len(engines))}
{rows}"""


if __name__ == "__main__":
    typer.run(main)
