"""`clcr-edge check`: holds a bundle's TensorRT graphs, or any ONNX file, to TensorRT's rules."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from clcr_edge import bundle as bundles
from clcr_edge.errors import BundleError, MissingPartError

_NOT_MEANT = "cpu graph: not meant for TensorRT"


def check(
    target: Annotated[Path, typer.Argument(metavar="BUNDLE_OR_ONNX", help="A bundle, or one ONNX file.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Check graphs against what TensorRT takes, without TensorRT. Exit code 0: no finding; 1: findings."""
    try:
        import onnx  # noqa: F401 - said here in one line, not from inside the rules
    except ModuleNotFoundError as e:
        raise MissingPartError(f"{e.name} is not installed; `check` needs: pip install onnx") from None
    if not target.exists():
        raise BundleError(f"{target}: no such bundle or ONNX file")
    graphs = _graphs(target)
    if as_json:
        typer.echo(json.dumps({"target": str(target), "graphs": graphs}))
    else:
        for graph in graphs:
            typer.echo("\n".join(_lines(graph)))
    if any(graph["findings"] for graph in graphs):
        raise typer.Exit(1)


def _graphs(target: Path) -> list[dict[str, Any]]:
    if target.is_file():
        return [_checked(target, None)]
    bundle = bundles.read(target)
    meant = bundle.graphs_for("tensorrt")
    return [
        _checked(bundle.graph(p), p)
        if p in meant
        else {"file": bundle.graph(p).name, "precision": p, "status": _NOT_MEANT, "findings": []}
        for p in bundle.manifest["graphs"]
    ]


def _checked(path: Path, precision: str | None) -> dict[str, Any]:
    from clcr_edge.export.rules.check import findings
    from clcr_edge.export.rules.load import load

    found = [asdict(f) for f in findings(load(path))]
    status = "no finding" if not found else "1 finding" if len(found) == 1 else f"{len(found)} findings"
    return {"file": path.name, "precision": precision, "status": status, "findings": found}


def _lines(graph: dict[str, Any]) -> list[str]:
    lines = [f"{graph['file']}: {graph['status']}"]
    for found in graph["findings"]:
        place = found["unit"] if found["unit"] == found["node"] else f"{found['unit']} (node {found['node']})"
        lines += [f"  {found['rule']}: {place}", f"    {found['problem']}", f"    remedy: {found['remedy']}"]
    return lines
