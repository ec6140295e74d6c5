"""What the documents tell people to type exists: commands and options."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

from clcr_edge.cli import app

DOCS = sorted((Path(__file__).resolve().parents[1] / "docs").glob("*.md"))


def commands(text: str) -> list[list[str]]:
    """Every `clcr-edge ...` in a code block or in backticks, as words."""
    blocks = "\n".join(re.findall(r"```\w*\n(.*?)```", text, re.DOTALL))
    lines = [line.split(" #")[0].split(" > ")[0].split(" >> ")[0] for line in blocks.splitlines()]
    inline = re.findall(r"`(clcr-edge [^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    return [shlex.split(line) for line in (*lines, *inline) if line.startswith("clcr-edge ")]


@pytest.mark.parametrize("path", DOCS, ids=lambda p: p.name)
def test_documented_commands_and_options_exist(path: Path) -> None:
    group = get_command(app)
    known = {
        name: {o for p in command.params for o in p.opts}
        for name, command in group.commands.items()  # type: ignore[attr-defined]
    }
    found = commands(path.read_text("utf-8"))
    assert found, "a document without a command is not about using it"
    for words in found:
        assert words[1] in known, " ".join(words)
        for word in words[2:]:
            if word.startswith("--"):
                assert word in known[words[1]], f"{' '.join(words)}: no option {word}"


def test_a_wrong_option_would_be_found() -> None:
    assert commands("```\nclcr-edge run x --engines tensorrt\n```\n`clcr-edge doctor`") == [
        ["clcr-edge", "run", "x", "--engines", "tensorrt"],
        ["clcr-edge", "doctor"],
    ]
