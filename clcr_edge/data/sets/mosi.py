"""CMU-MOSI (Zadeh et al., 2016): 2,199 utterances of 93 videos; text 768, audio 5 and vision 20 wide in MMSA's file."""

from __future__ import annotations

from pathlib import Path

from clcr_edge.data.sets.dataset import DataSet
from clcr_edge.data.sets.mmsa import Published, load_mmsa
from clcr_edge.data.sets.options import Options

PUBLISHED = Published("MOSI", (768, 5, 20), 1_284)


def load_mosi(root: Path | str, options: Options) -> DataSet:
    """See `load_mmsa`."""
    return load_mmsa("mosi", PUBLISHED, root, options)
