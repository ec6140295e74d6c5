"""Run in a process of its own, over a real module that cannot do anything here: resolves uses (JSON on stdin) against it.

Prints one line for every name that is not there, every call that no signature takes, every result that is annotated wrongly,
and every method that a base class wants and ours lacks. pybind11 writes the signatures into the docstrings.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
from typing import Any

_BUILTIN = {"str", "int", "bool", "bytes"}


def split(text: str) -> list[str]:
    """Split at commas outside of brackets."""
    parts, depth, begun = [], 0, 0
    for index, letter in enumerate(text):
        depth += (letter in "([{<") - (letter in ")]}>")
        if letter == "," and depth == 0:
            parts.append(text[begun:index])
            begun = index + 1
    return [p.strip() for p in (*parts, text[begun:]) if p.strip()]


def signatures(member: Any, name: str) -> list[tuple[list[str], list[bool], str]]:
    """Of a pybind11 function: (argument names, whether each has a default, what it returns) per overload."""
    found = []
    # "->" inside the arguments would be a callable's type: none of these functions takes one.
    for match in re.finditer(rf"(?:^|\d\. ){re.escape(name)}\((.*)\) -> (.+)$", member.__doc__ or "", re.MULTILINE):
        arguments = split(match[1])
        if arguments[:1] == ["*args"]:
            continue
        found.append(([a.split(":")[0].strip() for a in arguments], ["=" in a for a in arguments], match[2].strip()))
    return found


def check(module: Any, use: dict[str, Any]) -> str | None:
    """What is wrong with a use, or None."""
    where, names = f"{use['file']}:{use['line']}: {use['path']}", use["path"].split(".")
    owner: Any = None
    member = module
    for name in names:
        owner, member = member, getattr(member, name, None)
        if member is None:
            return f"{where}: there is no {name}"
    if use["overrides"] is not None:
        wanted = [n for n in dir(member) if not n.startswith("_") and type(getattr(member, n)).__name__ == "instancemethod"]
        missing = set(wanted) - set(use["overrides"])
        return f"{where}: {sorted(missing)} not overridden" if missing else None
    if use["arguments"] is None:
        return None
    made = isinstance(member, type)
    overloads = signatures(member.__init__, "__init__") if made else signatures(member, names[-1])
    if not overloads:
        return None  # nptype and the like are Python's own
    # self: given when a class is called, and when a method is called on an object.
    own = int(made or isinstance(owner, type))
    if names[-1] == "__init__":
        own = 0
    fits = []
    for arguments, defaults, returns in overloads:
        given = use["arguments"] + own
        rest = arguments[given:]
        open_ones = [a for a, has in zip(rest, defaults[given:], strict=True) if not has and a not in use["keywords"]]
        if given <= len(arguments) and not open_ones and set(use["keywords"]) <= set(rest):
            fits.append(returns)
    if not fits:
        takes = "; ".join(", ".join(a) for a, _, _ in overloads)
        return f"{where}: {use['arguments']} arguments {use['keywords'] or ''}, but it takes ({takes})"
    wanted = use["returns"]
    if wanted is not None and not made and (wanted in _BUILTIN or wanted[:1].isupper()):
        last = wanted.split(".")[-1]
        if not any(r.split(".")[-1].split("::")[-1].lstrip("I") == last.lstrip("I") for r in fits):
            return f"{where}: annotated {wanted}, but it returns {fits[0]}"
    return None


def main() -> None:
    """stdin: {"module": name, "uses": [...]}; stdout: {"version": ..., "problems": [...]}."""
    asked = json.load(sys.stdin)
    module = importlib.import_module(asked["module"])
    problems = [p for p in (check(module, use) for use in asked["uses"]) if p is not None]
    print(json.dumps({"version": module.__version__, "problems": problems}))


if __name__ == "__main__":
    main()
