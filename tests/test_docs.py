"""What the documents tell people to type exists: commands and options."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

from clcr_edge.cli import app

_ROOT = Path(__file__).resolve().parents[1]
DOCS = [_ROOT / "README.md", *sorted((_ROOT / "docs").glob("*.md"))]
CARDS = sorted((_ROOT / "clcr_edge" / "assets").rglob("*.md"))


def commands(text: str) -> list[list[str]]:
    """Every `clcr-edge ...` in a code block or in backticks, as words."""
    blocks = "\n".join(re.findall(r"```\w*\n(.*?)```", text, re.DOTALL))
    lines = [line.split(" #")[0].split(" > ")[0].split(" >> ")[0] for line in blocks.splitlines()]
    inline = re.findall(r"`(clcr-edge [^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    return [shlex.split(line) for line in (*lines, *inline) if line.startswith("clcr-edge ")]


@pytest.mark.parametrize("path", [*DOCS, *CARDS], ids=lambda p: str(p.relative_to(_ROOT)))
def test_documented_commands_and_options_exist(path: Path) -> None:
    group = get_command(app)
    known = {
        name: {o for p in command.params for o in p.opts}
        for name, command in group.commands.items()  # type: ignore[attr-defined]
    }
    found = commands(path.read_text("utf-8"))
    telling = found or path in CARDS or "python benchmarks/" in path.read_text("utf-8")
    assert telling, "a document without a command is not about using it"
    for words in found:
        assert words[1] in known, " ".join(words)
        for word in words[2:]:
            if word.startswith("--"):
                assert word in known[words[1]], f"{' '.join(words)}: no option {word}"


PAGES = [*DOCS, *CARDS, _ROOT / "CHANGELOG.md"]


def links(text: str) -> list[tuple[str, str]]:
    """(target, anchor) of every link that leads to a file of ours or to a heading of the same page; code is left out."""
    text = re.sub(r"```.*?```|`[^`]*`", "", text, flags=re.DOTALL)
    found = re.findall(r"\]\(([^)\s]+)\)", text)
    return [(a, b) for a, _, b in (target.partition("#") for target in found) if "://" not in a and not a.startswith("mailto:")]


def anchors(text: str) -> set[str]:
    """The names of a page's headings, as GitHub makes them."""
    heads = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("path", PAGES, ids=lambda p: str(p.relative_to(_ROOT)))
def test_relative_links_lead_somewhere(path: Path) -> None:
    for target, anchor in links(path.read_text("utf-8")):
        there = (path.parent / target).resolve() if target else path
        assert there.exists(), f"{path.name} links {target}, which is not there"
        assert not anchor or anchor in anchors(there.read_text("utf-8")), f"{path.name}: {target} has no heading #{anchor}"


def test_every_page_is_reachable_from_the_readme() -> None:
    reached, waiting = set[Path](), [_ROOT / "README.md"]
    while waiting:
        path = waiting.pop()
        reached.add(path)
        near = [(path.parent / target).resolve() for target, _ in links(path.read_text("utf-8")) if target.endswith(".md")]
        waiting += [p for p in near if p not in reached]
    assert set(DOCS) <= reached, f"no link leads to {', '.join(sorted(p.name for p in set(DOCS) - reached))}"


def test_documents_name_no_folder_of_somebody_else_s_machine() -> None:
    for path in PAGES:
        found = re.findall(r"(?<![\w.])/(?:tmp|work|home|root|mnt)/[\w/.-]+", path.read_text("utf-8"))
        assert not found, f"{path.name} names {found}"


def test_extras_and_make_targets_that_documents_name_exist() -> None:
    project, makefile = ((_ROOT / name).read_text("utf-8") for name in ("pyproject.toml", "Makefile"))
    table = re.split(r"^\[", project.split("[project.optional-dependencies]\n")[1], maxsplit=1, flags=re.MULTILINE)[0]
    extras = set(re.findall(r"^(\w+) = ", table, re.MULTILINE))
    targets = set(re.findall(r"^(\w+):", makefile, re.MULTILINE))
    for path in PAGES:
        text = path.read_text("utf-8")
        for names in re.findall(r"pip install [^`\n]*\[([\w,]+)\]", text):
            assert set(names.split(",")) <= extras, f"{path.name}: no extra [{names}]"
        code = "\n".join(re.findall(r"```\w*\n(.*?)```", text, re.DOTALL) + re.findall(r"`([^`\n]+)`", text))
        for name in re.findall(r"^make (\w+)", code, re.MULTILINE):
            assert name in targets, f"{path.name}: no target make {name}"


def test_links_and_anchors_are_found() -> None:
    text = "# One thing, and `two`\n[a](x.md#one-thing-and-two) [b](https://x.y/z) `[c](no.md)`\n[d](#one-thing-and-two)"
    assert links(text) == [("x.md", "one-thing-and-two"), ("", "one-thing-and-two")]
    assert anchors(text) == {"one-thing-and-two"}


def test_a_wrong_option_would_be_found() -> None:
    assert commands("```\nclcr-edge run x --engines tensorrt\n```\n`clcr-edge doctor`") == [
        ["clcr-edge", "run", "x", "--engines", "tensorrt"],
        ["clcr-edge", "doctor"],
    ]
