"""The rule on states: what a stream remembers is never rounded to 8 bit, or the error is fed back at every tick.

Measured on what another quantiser made of a step graph: a state error of 1.5e-2 after one single step.
"""

from __future__ import annotations

from collections.abc import Iterator

from clcr_edge.export.rules.finding import Hit, rule
from clcr_edge.export.rules.view import MOVEMENT, QDQ, GraphView, moved, unseen

PREFIX = "next_"
# Cheap arithmetic that a Q/DQ pair's rounding passes through unchanged. Behind a Conv or MatMul it is another tensor's.
_THROUGH = {"Relu", "LeakyRelu", "Clip", "Add", "Sub", "Mul", "Div", "Max", "Min", "Abs", "Neg"}


@rule("state-quantised", "branch the state output off before QuantizeLinear")
def state_quantised(view: GraphView) -> Iterator[Hit]:
    """Q or DQ between a node and a `next_*` output."""
    told = set()
    for output in view.outputs:
        if not output.name.startswith(PREFIX):
            continue
        waiting, seen = [output.name], {output.name}
        while waiting:
            node = view.producer.get(waiting.pop())
            if node is None:
                continue
            if node.op_type in QDQ:
                if view.root(node.input[0]) is None and id(node) not in told:
                    told.add(id(node))
                    yield Hit(node, f"{node.op_type} lies in front of the state output {output.name}: its error is fed back")
                continue
            names = moved(node) if node.op_type in MOVEMENT else list(node.input) if node.op_type in _THROUGH else []
            waiting += unseen(names, seen)


RULES = (state_quantised,)
