"""A path from the command line -> what can be evaluated: a bundle as it is, or a checkpoint exported in memory."""

from __future__ import annotations

from pathlib import Path

from clcr_edge import bundle as bundles
from clcr_edge.data.seen import FILE, Seen
from clcr_edge.errors import DataError, MissingPartError, UsageError
from clcr_edge.train.evaluate import Subject


def open_subject(path: Path, precision: str | None = None) -> tuple[Subject, Seen | None]:
    """The step graph of a bundle or a checkpoint, and what its training saw (None where it does not say)."""
    if precision is not None:
        bundles.check_precision(precision)
    seen = Seen.load(path / FILE) if (path / FILE).is_file() else None
    if (path / bundles.MANIFEST).is_file():
        bundle = bundles.read(path)
        chosen = precision or bundle.precisions[0]
        return Subject(bundle.graph(chosen).read_bytes(), bundle.config, chosen), seen
    if not path.is_dir():
        raise DataError(f"{path}: no such folder; give a checkpoint (clcr-edge train) or a bundle (clcr-edge export)")
    if precision not in (None, "fp32"):
        raise UsageError(f"--precision {precision}: {path} is a checkpoint, which has fp32 only; export it with --int8 first")
    try:
        from clcr_edge.export.graph import export_step
        from clcr_edge.train.checkpoint import load_student
    except ModuleNotFoundError as e:
        raise MissingPartError(f"{e.name} is not installed; a checkpoint needs: pip install 'clcr-edge[train]'") from None
    student, _ = load_student(path)
    return Subject(export_step(student).SerializeToString(), student.config, "fp32"), seen
