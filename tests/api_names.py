"""Which names of a foreign module a source file uses: read from its syntax tree, typed by its annotations.

In a file under test the module is called `api` (also as an attribute, `device.api`), and its objects are annotated with their
classes (`builder: trt.Builder = api.Builder(log)`). From that follows what each attribute belongs to:

    api.MemoryPoolType.WORKSPACE         -> MemoryPoolType.WORKSPACE
    builder.create_network(flags)        -> Builder.create_network, called with one argument
    class Log(api.ILogger)               -> ILogger, whose methods must be among those of Log
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Use:
    """One use. path: dotted name in the module. arguments, keywords: of a call, else None. returns: the class that the
    annotation gives the result. overrides: methods of a class that inherits from `path`, else None."""

    file: str
    line: int
    path: str
    arguments: int | None = None
    keywords: tuple[str, ...] = ()
    returns: str | None = None
    overrides: tuple[str, ...] | None = None


class Reader(ast.NodeVisitor):
    """Collects the uses of one file. alias: the name that annotations use for the module."""

    def __init__(self, file: str, alias: str) -> None:
        self.file, self.alias = file, alias
        self.uses: list[Use] = []
        self.problems: list[str] = []
        self._types: dict[str, str] = {}  # variable or attribute -> dotted class

    def read(self, source: str) -> Reader:
        tree = ast.parse(source)
        # Annotations first: an attribute may be used above the line that annotates it.
        for node in ast.walk(tree):
            if isinstance(node, ast.AnnAssign):
                self._learn(node.target, self._annotated(node.annotation))
            elif isinstance(node, ast.arg) and node.annotation is not None:
                name = self._annotated(node.annotation)
                if name is not None:
                    self._types[node.arg] = name
        self.visit(tree)
        return self

    def _learn(self, target: ast.expr, name: str | None) -> None:
        key = target.id if isinstance(target, ast.Name) else target.attr if isinstance(target, ast.Attribute) else None
        if key is not None and name is not None:
            self._types[key] = name

    def _annotated(self, annotation: ast.expr | None) -> str | None:
        """The dotted class in an annotation of the module's: `trt.X | None` -> X."""
        for node in ast.walk(annotation) if annotation is not None else ():
            if isinstance(node, ast.Attribute):
                chain = self._chain(node)
                if chain is not None and chain[0] == self.alias:
                    return ".".join(chain[1:])
        return None

    def _chain(self, node: ast.expr) -> list[str] | None:
        names: list[str] = []
        while isinstance(node, ast.Attribute):
            names.append(node.attr)
            node = node.value
        return [node.id, *reversed(names)] if isinstance(node, ast.Name) else None

    def _path(self, node: ast.expr) -> str | None:
        """The dotted name in the module that an expression means; None if it is none of the module's."""
        chain = self._chain(node)
        if chain is None:
            return None
        if chain[0] == self.alias or "api" in chain[:-1]:
            start = 1 if chain[0] == self.alias else chain.index("api") + 1
            return ".".join(chain[start:])
        for index in range(len(chain) - 1):
            owner = self._types.get(chain[index]) if index == 0 or chain[0] == "self" else None
            if owner is not None:
                return ".".join([owner, *chain[index + 1 :]])
        return None

    def visit_Attribute(self, node: ast.Attribute) -> None:
        path = self._path(node)
        if path is not None:
            self.uses.append(Use(self.file, node.lineno, path))
            return  # the rest of the chain is in the path
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        self._call(node, None)
        for argument in (*node.args, *(k.value for k in node.keywords)):
            self.visit(argument)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self.visit(node.annotation)
        if isinstance(node.value, ast.Call):
            self._call(node.value, self._annotated(node.annotation) or self._plain(node.annotation))
            for argument in (*node.value.args, *(k.value for k in node.value.keywords)):
                self.visit(argument)
        elif node.value is not None:
            self.visit(node.value)

    def _plain(self, annotation: ast.expr) -> str | None:
        return annotation.id if isinstance(annotation, ast.Name) else None

    def _call(self, node: ast.Call, returns: str | None) -> None:
        path = self._path(node.func)
        if path is None:
            self.visit(node.func)
            return
        keywords = tuple(k.arg for k in node.keywords if k.arg is not None)
        self.uses.append(Use(self.file, node.lineno, path, len(node.args), keywords, returns))

    def visit_Assign(self, node: ast.Assign) -> None:
        # An object of the module's without an annotation would escape this test from here on.
        if isinstance(node.value, ast.Call) and isinstance(node.targets[0], ast.Name | ast.Attribute):
            path, key = self._path(node.value.func), node.targets[0]
            name = key.id if isinstance(key, ast.Name) else key.attr
            if path is not None and path.split(".")[-1][:1].isupper() and name not in self._types:
                self.problems.append(f"{self.file}:{node.lineno}: annotate {name}, it is made by {path}")
        self.generic_visit(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        methods = tuple(n.name for n in node.body if isinstance(n, ast.FunctionDef) and not n.name.startswith("_"))
        for base in node.bases:
            path = self._path(base)
            if path is not None:
                self.uses.append(Use(self.file, node.lineno, path, overrides=methods))
        for child in node.body:
            self.visit(child)


def uses_of(path: Path, alias: str) -> list[Use]:
    """The uses in a file. Raises AssertionError for objects that lack an annotation."""
    reader = Reader(path.name, alias).read(path.read_text("utf-8"))
    assert not reader.problems, reader.problems
    return reader.uses


def defined_in(path: Path) -> list[Use]:
    """The public names that a double defines: classes, their methods, nested classes and enum members, functions."""
    found: list[Use] = []

    def walk(nodes: list[ast.stmt], prefix: str) -> None:
        for node in nodes:
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
                found.append(Use(path.name, node.lineno, prefix + node.name))
                if isinstance(node, ast.ClassDef):
                    walk(node.body, f"{prefix}{node.name}.")
            elif isinstance(node, ast.Assign) and prefix:
                names = [t.id for t in node.targets if isinstance(t, ast.Name) and not t.id.startswith("_")]
                found.extend(Use(path.name, node.lineno, prefix + n) for n in names)

    walk(ast.parse(path.read_text("utf-8")).body, "")
    return found
