"""CMU-MOSEI (Zadeh et al., 2018): 22,856 utterances; text 768, audio 74 and vision 35 wide in MMSA's file (13 GB unaligned)."""

from __future__ import annotations

from pathlib import Path

from clcr_edge.data.sets.dataset import DataSet
from clcr_edge.data.sets.mmsa import Published, load_mmsa
from clcr_edge.data.sets.options import Options

PUBLISHED = Published("MOSEI", (768, 74, 35), 16_326)


def load_mosei(root: Path | str, options: Options) -> DataSet:
    """See `load_mmsa`."""
    return load_mmsa("mosei", PUBLISHED, root, options)
