"""Raw media -> the numbers of one tick. Training and live use call exactly this code.

It stands apart from `runtime/` because data sets and calibration need it too, and imports run one way.
"""

from clcr_edge.features.fbank import FbankStream, fbank, fbank_of_ticks
from clcr_edge.features.image import luma_square, rgb_square
from clcr_edge.features.ngrams import word_age_ticks, word_ngrams

__all__ = ["FbankStream", "fbank", "fbank_of_ticks", "luma_square", "rgb_square", "word_age_ticks", "word_ngrams"]
