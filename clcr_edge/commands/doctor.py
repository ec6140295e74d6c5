"""`clcr-edge doctor`: what this machine has, what is missing for what, and the command that adds it."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer


def doctor(as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of text.")] = False) -> None:
    """Say what this machine has, and what is missing for each use, with the command that adds it."""
    from clcr_edge.runtime.doctor import examine
    from clcr_edge.runtime.quiet import c_stderr_silenced

    with c_stderr_silenced():
        found = examine()
    typer.echo(json.dumps(found, indent=2) if as_json else page(found))


def page(found: dict[str, Any]) -> str:
    """The findings as text."""
    lines = [f"clcr-edge {found['clcr_edge']}"]
    lines += [f"  {name:14} {value}" for name, value in found["machine"].items()]
    lines.append("parts")
    for name, part in found["parts"].items():
        said = {k: v for k, v in part.items() if k not in ("problem", "version", "gpus")}
        extra = "".join(f"; {k} {', '.join(map(str, v)) if isinstance(v, list) else v}" for k, v in said.items())
        lines.append(f"  {name:14} {part['problem'] or str(part.get('version', '')) + extra}")
        for gpu in part.get("gpus", []):
            kind = "integrated" if gpu["integrated"] else f"{gpu['total_bytes'] / 2**30:.1f} GiB"
            about = f"compute capability {gpu['compute_capability']}, {gpu['multiprocessors']} multiprocessors, {kind}"
            lines.append(f"  {'':14} {gpu['index']} {gpu['name']} ({about})")
    for title in ("cameras", "microphones", "models"):
        lines.append(title)
        lines += [f"  {item}" for item in found[title]["found"]]
        if found[title]["problem"]:
            lines.append(f"  {found[title]['problem']}")
        elif not found[title]["found"]:
            lines.append("  none found")
    lines.append("ready for")
    for target, state in found["targets"].items():
        lines.append(f"  {target:16} {'yes' if state['ready'] else 'no'}")
        lines += [f"  {'':16} {m['part']}: {m['problem']}\n  {'':16}   {m['remedy']}" for m in state["missing"]]
    lines += [f"note: {note}" for note in found["notes"]]
    return "\n".join(lines)
