"""Every file of a Vosk model directory, written in plain Python: Kaldi text formats, no Kaldi needed.

Vosk aborts the whole process on some broken models (a wrong number of log probabilities, no silence phones for the
endpointer), so nothing here is left to chance: numbers come from `graph.Phones` alone.
"""

from __future__ import annotations

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
    "--determinize-max-delay=10",  # else partial words stay away for 2 s
    "--determinize-min-chunk-size=5",
    "--endpoint.silence-phones=1",  # without it vosk aborts the process
    "--endpoint.rule2.min-trailing-silence=0.5",
    "--endpoint.rule3.min-trailing-silence=0.75",
    "--endpoint.rule4.min-trailing-silence=1.0",
)


def _row(values: FloatArray) -> str:
    return " ".join(f"{value:.4g}" for value in values)


def transition_model(phones: Phones) -> str:
    """Topology, states and transition probabilities (one half each)."""
    lines = ["<TransitionModel> ", "<Topology> "]
    for n_states in sorted({states_of(unit) for unit, _ in phones.keys}):
        members = [phones.number[key] for key in phones.keys if states_of(key[0]) == n_states]
        lines += ["<TopologyEntry> ", "<ForPhones> ", " ".join(map(str, members)) + " ", "</ForPhones> "]
        lines += [
            f"<State> {s} <PdfClass> {s} <Transition> {s} 0.5 <Transition> {s + 1} 0.5 </State> " for s in range(n_states)
        ]
        lines += [f"<State> {n_states} </State> ", "</TopologyEntry> "]
    lines += ["</Topology> ", f"<Triples> {len(phones.triples)} "]
    lines += [f"{phone} {state} {pdf} " for phone, state, pdf in phones.triples]
    lines += ["</Triples> ", "<LogProbs> ", " [ 0" + " -0.693147" * (2 * len(phones.triples)) + " ]"]
    lines += ["</LogProbs> ", "</TransitionModel> "]
    return "\n".join(lines) + "\n"


def _append(source: str, taps: Sequence[int]) -> str:
    return "Append(" + ", ".join(source if tap == 0 else f"Offset({source}, {tap})" for tap in taps) + ")"


def network(layers: Sequence[tuple[FloatArray, FloatArray]], taps: Sequence[Sequence[int]], priors: FloatArray) -> str:
    """The nnet3 network as text. `layers`: (weight `[out, taps * in]`, bias `[out]`), the last one the output layer.

    `taps[i]` are the offsets (10 ms frames) that layer i sees of the layer below. `priors` are what the decoder divides by.
    """
    config = [f"input-node name=input dim={BANDS}"]
    components: list[str] = []
    source = "input"
    for i, (weight, bias) in enumerate(layers):
        last = i == len(layers) - 1
        name = "output" if last else f"tdnn{i + 1}"
        spliced = source if last else _append(source, taps[i])
        config.append(f"component-node name={name}.affine component={name}.affine input={spliced}")
        components.append(
            f"<ComponentName> {name}.affine <AffineComponent> <LearningRate> 0.001 <LinearParams>  [\n  "
            + "\n  ".join(map(_row, weight))
            + f" ]\n<BiasParams>  [ {_row(bias)} ]\n</AffineComponent> "
        )
        suffix, kind = ("log-softmax", "LogSoftmaxComponent") if last else ("relu", "RectifiedLinearComponent")
        source = f"{name}.{suffix}"
        config.append(f"component-node name={source} component={source} input={name}.affine")
        components.append(
            f"<ComponentName> {source} <{kind}> <Dim> {len(bias)} <ValueAvg> [ ]\n<DerivAvg> [ ]\n<Count> 0 </{kind}> "
        )
    config.append(f"output-node name=output input={source} objective=linear")
    left = -sum(offsets[0] for offsets in taps)
    right = sum(offsets[-1] for offsets in taps)
    lines = ["<Nnet3> ", *config, "", f"<NumComponents> {len(components)} ", *components]
    lines.append(f"</Nnet3> <LeftContext> {left} <RightContext> {right} <Priors>  [ {_row(priors)} ]")
    return "\n".join(lines) + "\n"


def write_model(
    directory: Path,
    phones: Phones,
    layers: Sequence[tuple[FloatArray, FloatArray]],
    taps: Sequence[Sequence[int]],
    priors: FloatArray,
    penalties: Penalties,
) -> None:
    """Write a whole Vosk model directory (the layout with run-time grammars). `priors`: float64 `[n_pdfs]`."""
    assert len(layers) == len(taps) + 1
    assert len(layers[-1][1]) == len(priors) == phones.units.n_pdfs
    assert all(np.isfinite(weight).all() and np.isfinite(bias).all() for weight, bias in layers)
    files: dict[str, str | bytes] = {
        "am/final.mdl": transition_model(phones) + network(layers, taps, priors),
        "conf/mfcc.conf": "\n".join(MFCC_CONF) + "\n",
        "conf/model.conf": "\n".join(MODEL_CONF) + "\n",
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
