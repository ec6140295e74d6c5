"""What the speech-to-text says: a model of a small recogniser's errors, confidences and delay.

It stands in for the recogniser where none is at hand, and makes training see its mistakes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clcr_edge.data.bank import DIGITS
from clcr_edge.packets import Word

# What recognisers write for a digit word that was said, besides the word itself.
SOUND_ALIKES: dict[str, tuple[str, ...]] = {
    "zero": ("hero", "sierra", "row", "arrow"),
    "one": ("won", "want", "when", "on"),
    "two": ("to", "too", "do", "who"),
    "three": ("free", "tree", "the", "street"),
    "four": ("for", "fore", "or", "far"),
    "five": ("fine", "fire", "file", "life"),
    "six": ("sex", "sick", "sticks", "fix"),
    "seven": ("heaven", "eleven", "southern", "even"),
    "eight": ("ate", "hate", "a", "it"),
    "nine": ("mine", "line", "night", "nice"),
}
# The digits that one is taken for, likeliest first.
_CONFUSED = (
    (4, 7, 3), (9, 4, 7), (3, 8, 0), (2, 8, 6), (5, 1, 0), (9, 4, 1), (8, 3, 7), (1, 0, 6), (6, 3, 2), (5, 1, 4),
)  # fmt: skip
COMMON_WORDS = tuple(
    """the and you that was for are with his they this have from had word but not what all were when your can said
    there use each which she how their will other about out many then them these some her would make like him into
    time has look more write see number way could people than first water been call who its now find long down day
    did get come made may part over new sound take only little work know place year live back give most very after
    thing our just name good sentence man think say great where help through much before line right too mean old any
    same tell boy follow came want show also around form small set put end does another well large must big even
    such because turn here why ask went men read need land different home us move try kind hand picture again change
    off play spell air away animal house point page letter mother answer found study still learn should world to on
    in is it of a i he we do an or no yes at be by my up so if go me hello okay please thanks stop start left
    computer camera light table coffee music morning""".split()  # noqa: SIM905 - 240 quoted words read worse
)


@dataclass(frozen=True)
class Spoken:
    """One word truly said. text: None for speech that is no word (reversed, spliced). Times in seconds."""

    text: str | None
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Heard:
    """A word as recognised. tick: when it arrives; source: place in the list of what was said; right: no error."""

    tick: int
    word: Word
    source: int
    right: bool


def substitute(text: str, rng: np.random.Generator) -> str:
    """Another word in place of `text`, as a recogniser errs: sound-alikes and confusable digits first."""
    if text in DIGITS and rng.random() < 0.9:
        if rng.random() < 0.55:
            return str(rng.choice(SOUND_ALIKES[text]))
        digit = DIGITS.index(text)
        if rng.random() < 0.7:
            return DIGITS[_CONFUSED[digit][int(rng.choice(3, p=[0.5, 0.3, 0.2]))]]
        return DIGITS[(digit + int(rng.integers(1, 10))) % 10]
    digit_instead = rng.random() < 0.05
    while True:
        other = str(rng.choice(DIGITS if digit_instead else COMMON_WORDS))
        if other != text:
            return other


def _confidence(right: bool, rng: np.random.Generator) -> float:
    if rng.random() < 0.3:
        return 1.0  # recognisers are often sure, right or wrong
    return float(rng.beta(8.0, 1.5) if right else rng.beta(4.0, 2.5))


def hear(spoken: list[Spoken], word_error_rate: float, ticks: int, rng: np.random.Generator) -> list[Heard]:
    """What the recogniser makes of it, in order of arrival; what would arrive after `ticks` is left off.

    Per word said, `word_error_rate` errors: 55 % of them substitutions, 30 % deletions, 15 % insertions. A word
    arrives 0.05 to 0.8 s after its end (partial and final results); what is no word is mostly passed over, as
    unknown words are never handed on. Word times err by some 20 ms.
    """
    heard: list[Heard] = []

    def arrives(source: int, text: str, start_s: float, end_s: float, right: bool) -> None:
        start_s = max(start_s + rng.normal(0.0, 0.02), 0.0)
        end_s = max(end_s + rng.normal(0.0, 0.02), start_s + 0.05)
        tick = int((end_s + rng.uniform(0.05, 0.8)) * 25)
        if tick < ticks:
            heard.append(Heard(tick, Word(text, float(start_s), float(end_s), _confidence(right, rng)), source, right))

    for source, said in enumerate(spoken):
        if said.text is None:
            if rng.random() < 0.12:
                arrives(source, str(rng.choice(COMMON_WORDS)), said.start_s, said.end_s, False)
            continue
        fate = rng.random() / max(word_error_rate, 1e-9)
        if fate < 0.55:
            arrives(source, substitute(said.text, rng), said.start_s, said.end_s, False)
        elif fate >= 0.85:
            arrives(source, said.text, said.start_s, said.end_s, True)
            if fate < 1.0:
                extra = substitute(said.text, rng) if rng.random() < 0.3 else str(rng.choice(COMMON_WORDS))
                arrives(source, extra, said.end_s, said.end_s + 0.15, False)
    heard.sort(key=lambda h: h.tick)
    return heard


def attribute(arrived: list[tuple[int, Word]], spoken: list[Spoken]) -> list[Heard]:
    """Words of a real recogniser, each with the tick in which it arrives, traced back to what was said: by the most time that
    both take. A word over no speech has source -1."""
    heard = []
    for tick, word in arrived:
        shared = [min(word.end_s, s.end_s) - max(word.start_s, s.start_s) for s in spoken]
        source = int(np.argmax(shared)) if shared and max(shared) > 0.0 else -1
        heard.append(Heard(tick, word, source, source >= 0 and spoken[source].text == word.text))
    return heard
