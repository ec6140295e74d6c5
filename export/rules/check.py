"""Holds an ONNX graph to TensorRT's rules, without TensorRT. General checkers pass most of what it refuses."""

from __future__ import annotations

import onnx

from clcr_edge.export.rules import operators, quantisation, shapes, state, types
from clcr_edge.export.rules.finding import Finding, Hit, Rule
from clcr_edge.export.rules.names import Units, node_name
from clcr_edge.export.rules.view import GraphView

RULES: tuple[Rule, ...] = (*types.RULES, *shapes.RULES, *operators.RULES, *quantisation.RULES, *state.RULES)


def findings(model: onnx.ModelProto) -> list[Finding]:
    """All findings in a model, rule by rule; empty: TensorRT's documented rules hold. The model is not changed.

    A graph that breaks no rule of ours must also pass ONNX's own full check, whose first complaint is told as `invalid-onnx`.
    """
    view = GraphView(model)
    units = Units(view)
    found = [_finding(rule.name, hit, rule.remedy, units) for rule in RULES for hit in rule.find(view)]
    if not found and (complaint := _complaint(model)):
        found.append(_finding("invalid-onnx", Hit("graph", complaint), "export the graph again", units))
    return found


def _finding(name: str, hit: Hit, remedy: str, units: Units) -> Finding:
    where = hit.where if isinstance(hit.where, str) else node_name(hit.where)
    return Finding(name, units.of(hit.where), where, hit.problem, remedy)


def _complaint(model: onnx.ModelProto) -> str | None:
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as e:
        return next((line.strip() for line in str(e).splitlines() if line.strip()), "not valid ONNX")[:200]
    return None
