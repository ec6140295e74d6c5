"""Words as hashed character n-grams (fastText style): no vocabulary file, and any recogniser's output works."""

from __future__ import annotations

import math
import zlib
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from clcr_edge.config import TickConfig


@lru_cache(maxsize=8_192)
def _buckets(text: str, buckets: int, limit: int) -> tuple[int, ...]:
    marked = f"<{text.strip().casefold()}>"
    grams = [marked] + [marked[i : i + n] for n in (3, 4) for i in range(len(marked) - n + 1)]
    unique = list(dict.fromkeys(grams))[:limit]
    # crc32, not hash(): Python salts hash() per process. Bucket 0 is the padding.
    return tuple(1 + zlib.crc32(g.encode()) % (buckets - 1) for g in unique)


def word_ngrams(text: str, config: TickConfig) -> npt.NDArray[np.int32]:
    """Bucket numbers of one word: int32 `[ngrams_per_word]`, 1..ngram_buckets-1, padded with 0.

    The whole word comes first, then its 3-grams, then its 4-grams, `<` and `>` marking its ends; what exceeds
    `ngrams_per_word` is left off. Upper and lower case are the same word.
    """
    found = _buckets(text, config.ngram_buckets, config.ngrams_per_word)
    row = np.zeros(config.ngrams_per_word, np.int32)
    row[: len(found)] = found
    return row


def word_age_ticks(word_end_s: float, tick_end_s: float, config: TickConfig) -> int:
    """Whole ticks between a word's end and a tick's, at least 0: a fraction would pick up rounding as it is counted up.

    A word that ended exactly n ticks ago is n old on a clock that starts at 0 and on one that shows 1e9 s, whose steps of
    1e-7 s are 3e-6 of a tick; hence the allowance.
    """
    return max(0, math.floor((tick_end_s - word_end_s) * config.rate_hz + 1e-4))
