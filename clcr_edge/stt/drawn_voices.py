"""Voices that nobody designed: espeak-ng variants drawn at random, so that training does not learn a list of voices.

espeak-ng ships about a hundred variants: text files that move and widen formants, set pitch, roughness, echo, the balance of
voiced and unvoiced sound. A network that has heard all of them still knows a hundred voices. Drawing the numbers themselves
gives as many as there are utterances. Ranges: what the shipped variants of `TRAIN_VARIANTS` use, without their extremes.
"""

from __future__ import annotations

import numpy as np

_HIGH_FORMANTS = (4, 5, 6, 7, 8)


def drawn_variant(rng: np.random.Generator) -> str:
    """Text of an espeak-ng variant file (its format: espeak-ng's documentation, "voices")."""

    def whole(low: float, high: float) -> int:
        return round(float(rng.uniform(low, high)))

    def sometimes(share: float) -> bool:
        return bool(rng.random() < share)

    low_hz = float(np.exp(rng.uniform(np.log(55), np.log(190))))
    lines = [f"pitch {low_hz:.0f} {low_hz * rng.uniform(1.15, 1.9):.0f}"]
    tract = float(np.exp(rng.uniform(np.log(0.82), np.log(1.2))))  # a longer vocal tract lowers all formants together
    lines.append(f"formant 0 {whole(75, 125)} {whole(80, 170)} {whole(80, 160)}")
    for formant in (1, 2, 3):
        scale = 100 * tract * float(np.exp(rng.normal(0.0, 0.06)))
        lines.append(f"formant {formant} {np.clip(scale, 60, 150):.0f} {whole(55, 150)} {whole(60, 170)}")
    muffled = sometimes(0.15)
    for formant in _HIGH_FORMANTS:
        if muffled and sometimes(0.6):
            lines.append(f"formant {formant} 10 10 10")
        else:
            lines.append(f"formant {formant} {100 * tract * rng.uniform(0.9, 1.15):.0f} {whole(30, 130)} {whole(60, 140)}")
    if sometimes(0.5):
        lines.append(f"voicing {whole(35, 180)}")
    if sometimes(0.6):
        lines.append(f"consonants {whole(40, 160)} {whole(40, 180)}")
    if sometimes(0.5):
        lines.append(f"flutter {whole(0, 12)}")
    if sometimes(0.35):
        lines.append(f"roughness {whole(0, 8)}")
    if sometimes(0.2):
        lines.append(f"echo {whole(10, 200)} {whole(10, 100)}")
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
        lines.append("stressAmp " + " ".join(str(whole(14, 36)) for _ in range(8)))
    if sometimes(0.3):
        lines.append("stressAdd " + " ".join(str(whole(-30, 180)) for _ in range(8)))
    return "\n".join(["language variant", "name drawn", *lines, ""])
