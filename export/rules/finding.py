"""What a rule is, and what it finds: a name, a node in model words, what is wrong with it, and what to do about it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import onnx

from clcr_edge.export.rules.view import GraphView


@dataclass(frozen=True)
class Hit:
    """One place that breaks a rule. where: the node, or the name of a tensor; problem: what is wrong there."""

    where: onnx.NodeProto | str
    problem: str


@dataclass(frozen=True)
class Finding:
    """A hit, told to a person. unit: the place in model words (`vision.encoder.conv2`, `intercad`); where no weight is near,
    the node's own name. node: that name."""

    rule: str
    unit: str
    node: str
    problem: str
    remedy: str


@dataclass(frozen=True)
class Rule:
    """One thing that TensorRT refuses, or that is known to spoil an engine. find: all places that break it."""

    name: str
    remedy: str
    find: Callable[[GraphView], Iterable[Hit]]


def rule(name: str, remedy: str) -> Callable[[Callable[[GraphView], Iterable[Hit]]], Rule]:
    """Make a `Rule` of a function."""
    return lambda find: Rule(name, remedy, find)
