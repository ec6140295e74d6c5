"""An ONNX graph, indexed once for all rules: who makes and who reads a tensor, its type and shape, and which are constants."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, numpy_helper

# They move numbers without computing any; the inputs beyond these are indices, shapes and conditions.
MOVEMENT: dict[str, tuple[int, ...] | None] = {  # None: every input is data
    "Identity": (0,),
    "Reshape": (0,),
    "Flatten": (0,),
    "Transpose": (0,),
    "Squeeze": (0,),
    "Unsqueeze": (0,),
    "Slice": (0,),
    "Split": (0,),
    "Concat": None,
    "Gather": (0,),
    "GatherElements": (0,),
    "GatherND": (0,),
    "Expand": (0,),
    "Tile": (0,),
    "Pad": (0,),
    "DepthToSpace": (0,),
    "SpaceToDepth": (0,),
    "Cast": (0,),
    "Where": (1, 2),
}
_TERM = r"[A-Za-z]*(?:\.\.\.)?[A-Za-z]*"
_EQUATION = re.compile(rf"^{_TERM}(?:,{_TERM})*(?:->{_TERM})?$")
QDQ = ("QuantizeLinear", "DequantizeLinear")


def moved(node: onnx.NodeProto) -> list[str]:
    """The tensors whose numbers a movement node passes on."""
    wanted = MOVEMENT[node.op_type]
    return [name for i, name in enumerate(node.input) if name and (wanted is None or i in wanted)]


def unseen(names: Iterable[str], seen: set[str]) -> list[str]:
    """The names that are not in `seen` yet; they are put there."""
    new = [name for name in dict.fromkeys(names) if name not in seen]
    seen.update(new)
    return new


def type_name(kind: int) -> str:
    """FLOAT16, INT64, ..."""
    return str(TensorProto.DataType.Name(kind)) if kind in TensorProto.DataType.values() else f"type {kind}"


class GraphView:
    """The top-level graph of a model. Bodies of If and Loop are not entered: those nodes are refused as a whole."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.opset = max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=0)
        # A node that its operator cannot be: told once, and kept from the other rules.
        self.malformed = [n for n in model.graph.node if self._is_malformed(n)]
        bad = {id(n) for n in self.malformed}
        self.nodes = [n for n in model.graph.node if id(n) not in bad]
        self.constants = {i.name: i for i in model.graph.initializer}
        for node in self.of_type("Constant"):
            for given in node.attribute:
                if (tensor := _value(given)) is not None:
                    self.constants[node.output[0]] = tensor
        self.inputs = [i for i in model.graph.input if i.name not in self.constants]
        self.outputs = list(model.graph.output)
        self.producer = {name: node for node in self.nodes for name in node.output if name}
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        for node in self.nodes:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        self.values = {v.name: v for v in (*self._inferred(), *self.inputs, *self.outputs)}
        self.types = {name: v.type.tensor_type.elem_type for name, v in self.values.items()}
        self.types |= {name: t.data_type for name, t in self.constants.items()}

    def _is_malformed(self, node: onnx.NodeProto) -> bool:
        try:
            least = onnx.defs.get_schema(node.op_type, max(self.opset, 1), node.domain).min_input
        except onnx.defs.SchemaError:
            return False  # a foreign operator
        if node.op_type == "Einsum" and not _EQUATION.match(equation(node)):
            return True
        return len(node.input) < least or not node.output

    def _inferred(self) -> list[onnx.ValueInfoProto]:
        if self.malformed:  # onnx's inference can loop for ever on one (seen: a damaged Einsum equation)
            return list(self.model.graph.value_info)
        try:
            return list(onnx.shape_inference.infer_shapes(self.model).graph.value_info)
        except onnx.shape_inference.InferenceError:  # the graph is told to be invalid elsewhere
            return list(self.model.graph.value_info)

    def shape(self, name: str) -> list[int | str] | None:
        """Dimensions of a tensor, a name where one is dynamic; None if even the rank is not known."""
        if name in self.constants:
            return [int(d) for d in self.constants[name].dims]
        value = self.values.get(name)
        if value is None or not value.type.tensor_type.HasField("shape"):
            return None
        dims = value.type.tensor_type.shape.dim
        return [d.dim_value if d.HasField("dim_value") else d.dim_param or "?" for d in dims]

    def constant(self, name: str) -> npt.NDArray[np.generic] | None:
        """The value of a constant tensor; None if it is not one, or cannot be read."""
        if name not in self.constants or self.constants[name].data_location == TensorProto.EXTERNAL:
            return None
        try:
            return numpy_helper.to_array(self.constants[name])
        except (ValueError, TypeError, KeyError):
            return None  # its bytes do not make its shape: ONNX's checker says so

    def root(self, name: str) -> str | None:
        """The constant that a tensor comes from through movement and Q/DQ nodes alone; None if it is computed."""
        seen = set()
        while name not in self.constants:
            node = self.producer.get(name)
            if name in seen or node is None or node.op_type not in (*QDQ, *MOVEMENT):
                return None
            seen.add(name)
            name = node.input[0] if node.op_type in QDQ else moved(node)[0]
        return name

    def of_type(self, *kinds: str) -> Iterator[onnx.NodeProto]:
        """Nodes of some operator types."""
        return (n for n in self.nodes if n.op_type in kinds)

    def zero_point_type(self, node: onnx.NodeProto) -> int | None:
        """The quantised type of a Q or DQ node; None if a Q node names none."""
        if node.op_type == "DequantizeLinear":
            return self.types.get(node.input[0])
        if len(node.input) > 2 and node.input[2]:
            return self.types.get(node.input[2])
        return int(attribute(node, "output_dtype", 0)) or None


def _value(given: onnx.AttributeProto) -> onnx.TensorProto | None:
    """What a Constant node's attribute holds: a tensor, or one of the short forms for numbers. None for texts."""
    if given.name == "value":
        return given.t
    short = {
        "value_int": (np.int64, given.i),
        "value_ints": (np.int64, list(given.ints)),
        "value_float": (np.float32, given.f),
        "value_floats": (np.float32, list(given.floats)),
    }.get(given.name)
    return None if short is None else numpy_helper.from_array(np.array(short[1], short[0]))


def equation(node: onnx.NodeProto) -> str:
    """An Einsum's equation, without spaces."""
    found = next((a.s.decode(errors="replace") for a in node.attribute if a.name == "equation"), "")
    return found.replace(" ", "")


def attribute(node: onnx.NodeProto, name: str, default: int) -> int:
    """An integer attribute of a node."""
    for a in node.attribute:
        if a.name == name and a.type == onnx.AttributeProto.INT:
            return int(a.i)
    return default
