"""The digits task: banks of written and spoken digits, and the generator that composes labelled streams from them.

numpy only; importing this loads no torch.
"""

from clcr_edge.data.bank import DigitBank, load_bank, merge_banks, split_bank
from clcr_edge.data.conditions import BY_NAME, CLEAN, HEAVY, MODERATE, Conditions, ModalityDropout
from clcr_edge.data.streams import (
    CLASSES,
    Event,
    Stream,
    evaluation_streams,
    make_stream,
    negative_stream,
    training_streams,
)

__all__ = [
    "BY_NAME",
    "CLASSES",
    "CLEAN",
    "HEAVY",
    "MODERATE",
    "Conditions",
    "DigitBank",
    "Event",
    "ModalityDropout",
    "Stream",
    "evaluation_streams",
    "load_bank",
    "make_stream",
    "merge_banks",
    "negative_stream",
    "split_bank",
    "training_streams",
]
