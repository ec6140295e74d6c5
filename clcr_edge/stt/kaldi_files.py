"""Every file of a Vosk model directory, written in plain Python: no Kaldi needed.

Vosk aborts the whole process on some broken models (a wrong number of log probabilities, no silence phones for the
endpointer), so nothing here is left to chance: numbers come from `graph.Phones` alone.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from clcr_edge.stt.arrays import FloatArray
from clcr_edge.stt.graph import Penalties, Phones, lexicon_fst, word_boundary_int, word_loop_fst, words_txt
from clcr_edge.stt.mel import BANDS, MFCC_CONF
from clcr_edge.stt.units import states_of

MODEL_CONF = (
    "--min-active=200",
    "--max-active=3000",
    "--beam=13.0",
    "--lattice-beam=6.0",
    "--acoustic-scale=0.3",
    "--frame-subsampling-factor=3",  # vosk hard-codes 30 ms per frame in word times
    "--frames-per-chunk=12",
    "--phone-determinize=false",  # [unk] is a loop of phones: its lattices explode when phones are told apart
    # Noise that pulses a few times a second makes lattices of [unk]'s phones that hold Vosk up at Kaldi's own 50 MB.
    "--max-mem=1000000",
    "--determinize-max-delay=5",  # else partial words stay away for 2 s
    "--determinize-min-chunk-size=2",
    "--endpoint.silence-phones=1",  # without it vosk aborts the process
    "--endpoint.rule2.min-trailing-silence=0.5",
    "--endpoint.rule3.min-trailing-silence=0.75",
    "--endpoint.rule4.min-trailing-silence=1.0",
)


# How much later than the voice words seem to end: measured once, on voices drawn for training.
# Vosk does not read it; our runtime takes it off, and benchmarks/word_latency.py shows what is left on unheard voices.
LATE_ENDS_S = 0.02


class KaldiBinary:
    """Kaldi's binary serialisation: tokens end in a space, numbers carry their size in bytes, arrays their shape."""

    def __init__(self) -> None:
        self.data = bytearray(b"\0B")

    def token(self, *names: str) -> None:
        """Names such as `<Topology>`."""
        for name in names:
            self.data += name.encode() + b" "

    def integer(self, *values: int) -> None:
        """32-bit integers."""
        for value in values:
            self.data += struct.pack("<bi", 4, value)

    def real(self, *values: float) -> None:
        """32-bit floats."""
        for value in values:
            self.data += struct.pack("<bf", 4, value)

    def integers(self, values: Sequence[int]) -> None:
        """A vector of integers (its length has no size byte: Kaldi's way)."""
        self.data += struct.pack("<bi", 4, len(values)) + np.asarray(values, "<i4").tobytes()

    def vector(self, values: FloatArray) -> None:
        """A vector of floats."""
        self.token("FV")
        self.integer(len(values))
        self.data += np.asarray(values, "<f4").tobytes()

    def matrix(self, values: FloatArray) -> None:
        """A matrix row by row in Kaldi's compressed form: 16 bits a number, evenly spaced from the smallest to the largest.

        Kaldi reads it wherever it reads a matrix of floats; it takes half the space.
        """
        low, span = float(values.min()), float(np.ptp(values))
        self.token("CM2")
        self.data += struct.pack("<ffii", low, span, *values.shape)
        self.data += np.round((values - low) * (65_535 / max(span, 1e-30))).astype("<u2").tobytes()


def _transition_model(out: KaldiBinary, phones: Phones) -> None:
    """Topology, states and transition probabilities (one half each)."""
    sizes = sorted({states_of(unit) for unit, _ in phones.keys})
    out.token("<TransitionModel>", "<Topology>")
    out.integers([phones.number[key] for key in phones.keys])
    out.integers([-1, *(sizes.index(states_of(unit)) for unit, _ in phones.keys)])  # phone -> topology; there is no phone 0
    out.integer(len(sizes))
    for n_states in sizes:
        out.integer(n_states + 1)
        for state in range(n_states):
            out.integer(state, 2)  # its output class within the phone; two ways on: stay, leave
            for following in (state, state + 1):
                out.integer(following)
                out.real(0.5)
        out.integer(-1, 0)  # the end
    out.token("</Topology>", "<Triples>")
    out.integer(len(phones.triples))
    for triple in phones.triples:
        out.integer(*triple)
    out.token("</Triples>", "<LogProbs>")
    out.vector(np.array([0.0] + [-math.log(2.0)] * (2 * len(phones.triples))))
    out.token("</LogProbs>", "</TransitionModel>")


def _append(source: str, taps: Sequence[int]) -> str:
    return "Append(" + ", ".join(source if tap == 0 else f"Offset({source}, {tap})" for tap in taps) + ")"


def _network(
    out: KaldiBinary,
    layers: Sequence[tuple[FloatArray, FloatArray]],
    taps: Sequence[Sequence[int]],
    priors: FloatArray,
) -> None:
    config = [f"input-node name=input dim={BANDS}"]
    names = [f"tdnn{i + 1}" for i in range(len(taps))] + ["output"]
    sources = ["input", *(f"{name}.relu" for name in names[:-1])]
    for i, name in enumerate(names):
        spliced = _append(sources[i], taps[i]) if i < len(taps) else sources[i]
        kind = "log-softmax" if name == "output" else "relu"
        config.append(f"component-node name={name}.affine component={name}.affine input={spliced}")
        config.append(f"component-node name={name}.{kind} component={name}.{kind} input={name}.affine")
    config.append("output-node name=output input=output.log-softmax objective=linear")
    out.token("<Nnet3>")
    out.data += b"\n" + "\n".join(config).encode() + b"\n\n"  # text even here; an empty line ends it
    out.token("<NumComponents>")
    out.integer(2 * len(layers))
    for name, (weight, bias) in zip(names, layers, strict=True):
        out.token("<ComponentName>", f"{name}.affine", "<AffineComponent>", "<LearningRate>")
        out.real(0.001)
        out.token("<LinearParams>")
        out.matrix(weight)
        out.token("<BiasParams>")
        out.vector(bias)
        out.token("</AffineComponent>", "<ComponentName>")
        last = name == "output"
        kind = "LogSoftmaxComponent" if last else "RectifiedLinearComponent"
        out.token(f"{name}.log-softmax" if last else f"{name}.relu", f"<{kind}>", "<Dim>")
        out.integer(len(bias))
        for statistics in ("<ValueAvg>", "<DerivAvg>"):  # of training; none here
            out.token(statistics)
            out.vector(np.zeros(0))
        out.token("<Count>")
        out.real(0.0)
        out.token(f"</{kind}>")
    out.token("</Nnet3>", "<LeftContext>")
    out.integer(-sum(offsets[0] for offsets in taps))
    out.token("<RightContext>")
    out.integer(sum(offsets[-1] for offsets in taps))
    out.token("<Priors>")
    out.vector(priors)


def write_model(
    directory: Path,
    phones: Phones,
    layers: Sequence[tuple[FloatArray, FloatArray]],
    taps: Sequence[Sequence[int]],
    priors: FloatArray,
    penalties: Penalties,
) -> None:
    """Write a whole Vosk model directory (the layout with run-time grammars); the same for the same arguments.

    `layers`: (weight `[out, taps * in]`, bias `[out]`), the last one the output layer. `taps[i]`: offsets (10 ms frames) at
    which layer i sees the layer below. `priors` float `[n_pdfs]`: what the decoder divides posteriors by.
    """
    assert len(layers) == len(taps) + 1
    assert len(layers[-1][1]) == len(priors) == phones.units.n_pdfs
    assert all(np.isfinite(weight).all() and np.isfinite(bias).all() for weight, bias in layers)
    model = KaldiBinary()
    _transition_model(model, phones)
    _network(model, layers, taps, priors)
    files: dict[str, str | bytes] = {
        "am/final.mdl": bytes(model.data),
        "conf/mfcc.conf": "\n".join(MFCC_CONF) + "\n",
        "conf/model.conf": "\n".join(MODEL_CONF) + "\n",
        "conf/late_ends.conf": f"--late-ends={LATE_ENDS_S}\n",
        "graph/words.txt": words_txt(phones),
        "graph/phones/word_boundary.int": word_boundary_int(phones),
        "graph/HCLr.fst": lexicon_fst(phones, penalties).to_bytes(),
        "graph/Gr.fst": word_loop_fst(phones).to_bytes(),
        "graph/disambig_tid.int": "1000000\n",
    }
    for name, contents in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(contents if isinstance(contents, bytes) else contents.encode())
