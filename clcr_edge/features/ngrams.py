"""Words as hashed character n-grams (fastText style): no vocabulary file, and any recogniser's output works."""

from __future__ import annotations

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
