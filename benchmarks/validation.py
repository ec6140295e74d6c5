"""What a student may be set by: the validation part of the data that it was trained on, and never the test part."""

from __future__ import annotations

from pathlib import Path

from clcr_edge.data.bank import DigitBank, load_bank, split_bank
from clcr_edge.data.seen import FILE, Seen
from clcr_edge.data.synthetic import with_other_speech
from clcr_edge.errors import DataError
from clcr_edge.model.student import Student
from clcr_edge.train.checkpoint import load_student


def open_validation(model: Path, root: Path) -> tuple[Student, dict[str, object], DigitBank]:
    """The student of a checkpoint, its provenance, and its own validation bank from the folder `root`.

    Raises `DataError` if the student has seen images of that folder's test part: it was trained on something else, so the
    validation part here may be its training part.
    """
    student, provenance = load_student(model)
    bank = load_bank(root)
    speaker = str(provenance["left_out"]) or None
    seen = set(Seen.load(model / FILE).images.tolist())
    if seen.intersection(Seen.of(split_bank(bank, "test", speaker)).images.tolist()):
        raise DataError(f"{root}: {model} has seen images of its test part; give --root the folder that it was trained on")
    return student.eval(), provenance, with_other_speech(split_bank(bank, "val", speaker), "val")
