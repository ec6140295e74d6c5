"""The parts of a step graph that may be quantised, in model words: `vision.encoder.conv3`, not `node_Conv_757`."""

from __future__ import annotations

import re
from dataclasses import dataclass

import onnx

from clcr_edge.packets import Modality

_WEIGHT = re.compile(r"^(frame|sound)_(body|project)(?:\.(\d+))?\.weight$")


@dataclass(frozen=True)
class ConvSite:
    """One convolution. unit: its name in model words. modality: whose media flows through it. node: name of the ONNX node.
    source: the tensor it reads; result: the tensor after its ReLU (or its own output where none follows directly)."""

    unit: str
    modality: Modality
    node: str
    source: str
    result: str


def conv_sites(model: onnx.ModelProto) -> list[ConvSite]:
    """All quantisable convolutions, in the order of the graph."""
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    sites = []
    counts = {"frame": 0, "sound": 0}
    for node in model.graph.node:
        match = _WEIGHT.match(node.input[1]) if node.op_type == "Conv" and len(node.input) > 1 else None
        if not match:
            continue
        kind = match[1]
        counts[kind] += 1
        modality = Modality.VISION if kind == "frame" else Modality.AUDIO
        after = readers.get(node.output[0], [])
        relu = len(after) == 1 and after[0].op_type == "Relu"
        result = after[0].output[0] if relu else node.output[0]
        unit = f"{modality.key}.encoder.conv{counts[kind]}"
        sites.append(ConvSite(unit, modality, node.name, node.input[0], result))
    return sites
