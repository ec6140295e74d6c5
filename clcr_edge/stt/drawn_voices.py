"""Voices that nobody designed: espeak-ng variants drawn at random, so that training does not learn a list of voices.

espeak-ng ships about a hundred variants: text files that move and widen formants, set pitch, roughness, echo, the balance of
voiced and unvoiced sound. A network that has heard all of them still knows a hundred voices. Drawing the numbers themselves
gives as many as there are utterances. Ranges: what the shipped variants of `TRAIN_VARIANTS` use, at first without their
extremes.
"""

from __future__ import annotations

import numpy as np

_HIGH_FORMANTS = (4, 5, 6, 7, 8)
_MISSING = "formant {} 10 10 10"


def drawn_variant(rng: np.random.Generator, odd: bool = False) -> str:
    """Text of an espeak-ng variant file (its format: espeak-ng's documentation, "voices"). odd: from the whole range of the
    shipped variants, extremes and all: formants that lie by themselves or are missing, hoarse, shrill and booming voices."""

    def whole(low: float, high: float) -> int:
        return round(float(rng.uniform(low, high)))

    def sometimes(share: float) -> bool:
        return bool(rng.random() < share)

    def pick(usual: tuple[float, float], wide: tuple[float, float]) -> int:
        return whole(*(wide if odd else usual))

    low_hz = float(np.exp(rng.uniform(*np.log((48, 240) if odd else (55, 190)))))
    lines = [f"pitch {low_hz:.0f} {low_hz * rng.uniform(0.95 if odd else 1.15, 2.2 if odd else 1.9):.0f}"]
    # A longer vocal tract lowers all formants together.
    tract = float(np.exp(rng.uniform(*np.log((0.75, 1.25) if odd else (0.82, 1.2)))))
    lines.append(f"formant 0 {whole(75, 125)} {whole(80, 170)} {whole(80, 160)}")
    for formant in (1, 2, 3):
        scale = 100 * tract * float(np.exp(rng.normal(0.0, 0.14 if odd else 0.06)))
        width, volume = pick((55, 150), (55, 180)), pick((60, 170), (60, 190))
        if odd and formant == 3 and sometimes(0.05):
            lines.append(_MISSING.format(formant))
        else:
            lines.append(f"formant {formant} {np.clip(scale, 60, 150):.0f} {width} {volume}")
    muffled = sometimes(0.15)
    for formant in _HIGH_FORMANTS:
        if (muffled and sometimes(0.6)) or (odd and sometimes(0.06)):
            lines.append(_MISSING.format(formant))
        else:
            place = tract * rng.uniform(0.65 if odd else 0.9, 1.4 if odd else 1.15)
            lines.append(f"formant {formant} {100 * place:.0f} {pick((30, 130), (20, 150))} {pick((60, 140), (40, 170))}")
    if sometimes(0.5):
        lines.append(f"voicing {pick((35, 180), (20, 230))}")
    if sometimes(0.6):
        lines.append(f"consonants {pick((40, 160), (30, 195))} {pick((40, 180), (40, 250))}")
    if sometimes(0.5):
        lines.append(f"flutter {pick((0, 12), (0, 20))}")
    if sometimes(0.35):
        lines.append(f"roughness {whole(0, 8)}")
    if sometimes(0.2):
        lines.append(f"echo {whole(10, 200)} {pick((10, 100), (10, 150))}")
    if sometimes(0.4):
        lines.append(
            f"tone {whole(80, 650)} {whole(130, 255)} {whole(700, 1500)} {whole(70, 255)} "
            f"{whole(1700, 3500)} {whole(25, 255)} {whole(3600, 4800)} {whole(30, 120)}"
        )
    if sometimes(0.12):
        lines.append("breath " + " ".join(str(whole(0, 40)) for _ in range(8)))
    if sometimes(0.15):
        lines.append(f"klatt {int(rng.integers(1, 7))}")
    if sometimes(0.3):  # how much louder and longer stressed syllables are
        lines.append("stressAmp " + " ".join(str(pick((14, 36), (14, 40))) for _ in range(8)))
    if sometimes(0.3):
        lines.append("stressAdd " + " ".join(str(pick((-30, 180), (-30, 255))) for _ in range(8)))
    return "\n".join(["language variant", "name drawn", *lines, ""])
