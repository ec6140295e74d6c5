"""ONNX nodes and initializers in model words: `vision.encoder.conv2`, not `node_conv2d_1`.

The exporter keeps the names of the weights; a node that has none is named by the nearest one that has.
"""

from __future__ import annotations

import re

import onnx

from clcr_edge.export.rules.view import QDQ, GraphView

# A name that is already in model words: kept up to the unit.
_WORDS = re.compile(r"^((?:vision|audio|language|media)\.(?:encoder|level\d+|tokens|tcn)(?:\.[A-Za-z]\w*)?)(?:[./]|$)")
_WHOLE = re.compile(r"^(intraced|intercad|head)(?:[./]|$)")
_CONV = re.compile(r"^(frame|sound)_(?:body|project)(?:\.\d+)?\.")
_UNITS = (
    (re.compile(r"^frame_project\."), "vision.encoder.project"),
    (re.compile(r"^frame_body\."), "vision.encoder"),
    (re.compile(r"^sound_(?:body|project)\."), "audio.encoder"),
    (re.compile(r"^(?:embedding\.|word_(?:project|weight|bias))"), "language.encoder"),
    (re.compile(r"^convs_(?:past_weight|bias)"), "media.tcn"),
    (re.compile(r"^(?:level|split)(?:_bias)?_media"), "media.tokens"),
    (re.compile(r"^(?:level|split)(?:_bias)?_words"), "language.tokens"),
    (re.compile(r"^(?:gain|theta|rho|slope|lag|other|expiry|slot_age)(?:\.|$)"), "intraced"),
    (re.compile(r"^(?:inter_cad\.head|operating_bias)\."), "head"),
    (re.compile(r"^inter_cad\."), "intercad"),
)
_TCN = re.compile(r"^(conv\d+)_(?:weight|bias)")
_FAR = 6  # nodes; beyond that the nearest weight says little


class Units:
    """Names the places of one graph."""

    def __init__(self, view: GraphView) -> None:
        self._view = view
        self._convs: dict[str, str] = {}
        counts = {"frame": 0, "sound": 0}
        for node in view.of_type("Conv"):
            root = view.root(node.input[1]) if len(node.input) > 1 else None
            if root and (match := _CONV.match(root)):
                counts[match[1]] += 1  # numbered as calibration numbers them
                modality = "vision" if match[1] == "frame" else "audio"
                self._convs[match[0]] = f"{modality}.encoder.conv{counts[match[1]]}"

    def of_name(self, name: str) -> str | None:
        """The unit that a weight's or node's name tells; None if it tells nothing."""
        for pattern in (_WORDS, _WHOLE):
            if match := pattern.match(name):
                return match[1]
        if (match := _CONV.match(name)) and match[0] in self._convs:
            return self._convs[match[0]]
        if match := _TCN.match(name):
            return f"media.tcn.{match[1]}"
        return next((unit for pattern, unit in _UNITS if pattern.match(name)), None)

    def of(self, where: onnx.NodeProto | str) -> str:
        """The unit of a node or tensor; its own name where no weight is near."""
        if isinstance(where, str):
            if unit := self.of_name(where):
                return unit
            node = self._view.producer.get(where)
            return where if node is None else self._near(node) or where
        return self._near(where) or node_name(where)

    def _near(self, node: onnx.NodeProto) -> str | None:
        if own := self._own(node):
            return own
        # A Q/DQ pair belongs to what reads it, everything else to what made its input.
        ways = (self._after, self._before) if node.op_type in QDQ else (self._before, self._after)
        for way in ways:
            ring = [node]
            for _ in range(_FAR):
                ring = list({id(n): n for at in ring for n in way(at)}.values())
                found = next((unit for n in ring if (unit := self._own(n))), None)
                if found:
                    return found
        return None

    def _own(self, node: onnx.NodeProto) -> str | None:
        return next((unit for name in (node.name, *node.input) if (unit := self.of_name(name))), None)

    def _before(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        return [self._view.producer[name] for name in node.input if name in self._view.producer]

    def _after(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        return [n for name in node.output for n in self._view.readers.get(name, [])]


def node_name(node: onnx.NodeProto) -> str:
    """A node's name, or for a nameless one what it makes."""
    return node.name or f"{node.op_type} -> {node.output[0] if node.output else 'nothing'}"
