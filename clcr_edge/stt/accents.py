"""English words in the mouths of foreign voices: an optional third source of speech, made from recordings of people.

Festival and SVOX Pico have voices of other languages, cut or trained from recordings of one person each. Given an English word
spelled by the rules of their own language, they say it as that person might: with an accent, which is how most of the world
says it. Words of their own language are speech that is none of the vocabulary, from the same mouths.

They carry no labels; `align` finds them. A voice whose program or data is absent is passed over by the builder, which says so
(Debian: festival and festvox-*; libttspico-utils is in its section non-free, though Pico's licence, Apache-2.0, is free).
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from clcr_edge.errors import MissingPartError
from clcr_edge.stt.vocabulary import VOCABULARY

Language = Literal["english", "czech", "italian", "finnish", "german", "french", "spanish"]

# `VOCABULARY` in its own order, a line of digits and one of the other words; several spellings of a word with strokes between.
_SPELLED: dict[Language, str] = {
    "english": " ".join(VOCABULARY),
    "czech": (
        "zírou/zírov vuan/van tů srí/trí fór/foár fajv siks sevn/seven ejt najn "
        "jes nou stop gou/gov help helou senks/tenks left rajt ap daun stárt plej plís gud bed/bad oukej"
    ),
    "italian": (
        "sirou/siro uan tu sri/tri for/foar faiv sics sèven eit nain "
        "ies nou stop gou elp/help elou senks/tenks left rait ap daun start plei pliis gud bed/bad ochei"
    ),
    "finnish": (
        "siirou uan/van tuu srii/trii foor faiv siks seven eit nain "
        "jes nou stop gou help helou sänks/tänks left rait ap daun staart plei pliis gud bäd okei"
    ),
    "german": (
        "siro/sirou uann/wann tuh srih/trih foor/fohr feif six sewwen eht/äjt nein "
        "jess noh/nou sstopp goh/gou help hellou sänks/tänks left reit app daun sstart pläi plihs gudd bäd okäi"
    ),
    "french": (
        "zirô/zérô ouane tou sri/tri fort/faure faïve sixe sévenne/sèveune éïte naïne "
        "yesse nô stoppe gô helpe helô sènkse/tènkse lefte raïte oppe daoune starte plèï plize goude bade okè"
    ),
    "spanish": (
        "sirou/siro uan/guan tu sri/tri for faiv/faif sics séven eit nain "
        "ies/yes nou stop gou jelp jelou senks/tenks left rait ap daun start plei plis gud bad oquei"
    ),
}
# What is said beside it: everyday words that sound like none of the vocabulary.
_OTHER: dict[Language, str] = {
    "english": "window carpet monkey river yellow paper mountain simple together music Saturday kitchen",
    "czech": "okno koberec řeka žlutý papír hora spolu hudba sobota kuchyně jablko dobrý den prosím děkuji ulice město vlak",
    "italian": "finestra tappeto fiume giallo carta montagna insieme musica sabato cucina mela buongiorno grazie strada treno",
    "finnish": "ikkuna matto joki keltainen paperi vuori yhdessä musiikki lauantai keittiö omena kiitos katu kaupunki juna",
    "german": "Fenster Teppich Fluss gelb Papier Berg zusammen Musik Samstag Küche Apfel Danke Straße Bahnhof Zug morgen",
    "french": "fenêtre tapis rivière jaune papier montagne ensemble musique samedi cuisine pomme bonjour merci rue gare demain",
    "spanish": "ventana alfombra amarillo papel montaña juntos música sábado cocina manzana gracias calle ciudad mañana",
}
_ENCODING: dict[Language, str] = {"czech": "iso-8859-2"}


@dataclass(frozen=True)
class AccentVoice:
    """A voice. program: who has it; name: what it is called there; language: by whose rules it reads."""

    program: Literal["festival", "pico"]
    name: str
    language: Language

    @property
    def speaker(self) -> str:
        """Its name among the takes' speakers."""
        return f"{self.program}-{self.name}"


# Voices of the people whom Flite has too (kal, rms, slt, awb) are left to it: one of them is for tests.
TRAIN_VOICES = (
    AccentVoice("festival", "ked_diphone", "english"),
    AccentVoice("festival", "czech_dita", "czech"),
    AccentVoice("festival", "czech_krb", "czech"),
    AccentVoice("festival", "czech_machac", "czech"),
    AccentVoice("festival", "czech_ph", "czech"),
    AccentVoice("festival", "lp_diphone", "italian"),
    AccentVoice("festival", "hy_fi_mv_diphone", "finnish"),
    AccentVoice("festival", "suo_fi_lj_diphone", "finnish"),
    AccentVoice("pico", "en-US", "english"),
    AccentVoice("pico", "en-GB", "english"),
    AccentVoice("pico", "de-DE", "german"),
    AccentVoice("pico", "fr-FR", "french"),
    AccentVoice("pico", "es-ES", "spanish"),
    AccentVoice("pico", "it-IT", "italian"),
)


@dataclass(frozen=True)
class Line:
    """Something to say: as spelled for the voice, slower where stretch is above 1, at a pitch of 1 as it comes.

    word: the vocabulary word that it is, None for none.
    """

    word: str | None
    text: str
    stretch: float
    pitch: float


def lines(voice: AccentVoice, count: int, seed: int, other: float = 0.25) -> list[Line]:
    """`count` things for a voice to say, a share `other` of them no words of the vocabulary; the words come in turn."""
    rng = np.random.default_rng([seed, *voice.speaker.encode()])
    spelled = [found.split("/") for found in _SPELLED[voice.language].split()]
    strange = _OTHER[voice.language].split()
    made = []
    for index in range(count):
        word: str | None = None
        if rng.random() < other:
            text = " ".join(rng.choice(strange, int(rng.integers(1, 3))).tolist())
        else:
            place = index % len(VOCABULARY)
            word, text = VOCABULARY[place], str(rng.choice(spelled[place]))
        made.append(Line(word, text, float(rng.uniform(0.75, 1.3)), float(rng.uniform(0.75, 1.3))))
    return made


def speak(voice: AccentVoice, said: Sequence[Line], folder: Path) -> Iterator[tuple[Line, Path]]:
    """Have lines said into WAV files in a folder; a line that the voice makes nothing of is left out.

    Raises `MissingPartError` where the program or the voice is not installed.
    """
    make = _festival if voice.program == "festival" else _pico
    paths = [folder / f"{voice.speaker}-{index}.wav" for index in range(len(said))]
    make(voice, said, paths)
    found = [(line, path) for line, path in zip(said, paths, strict=True) if path.is_file() and path.stat().st_size > 44]
    if not found:
        raise MissingPartError(f"{voice.program} has no voice {voice.name!r}: install its package, or go without")
    yield from found


def _program(name: str, package: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise MissingPartError(f"{name} is not installed: apt-get install {package}")
    return path


def _festival(voice: AccentVoice, said: Sequence[Line], paths: Sequence[Path]) -> None:
    script = [f"(voice_{voice.name})"]
    for line, path in zip(said, paths, strict=True):
        script.append(f"(Parameter.set 'Duration_Stretch {line.stretch:.3f})")
        script.append(f'(set! said (utt.synth (Utterance Text "{line.text}")))')
        script.append(f'(utt.save.wave said "{path}" \'riff)')
    encoding = _ENCODING.get(voice.language, "iso-8859-1")
    with tempfile.NamedTemporaryFile(suffix=".scm") as file:
        file.write("\n".join(script).encode(encoding))
        file.flush()
        subprocess.run([_program("festival", "festival"), "-b", file.name], capture_output=True, check=False, timeout=600)


def _pico(voice: AccentVoice, said: Sequence[Line], paths: Sequence[Path]) -> None:
    program = _program("pico2wave", "libttspico-utils (section non-free)")
    for line, path in zip(said, paths, strict=True):
        text = f'<speed level="{100 / line.stretch:.0f}"><pitch level="{100 * line.pitch:.0f}">{line.text}.</pitch></speed>'
        subprocess.run([program, "-l", voice.name, "-w", str(path), text], capture_output=True, check=False, timeout=60)
