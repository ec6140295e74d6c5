"""CREMA-D (Cao et al., 2014): 91 actors say 12 sentences in 6 emotions; 7,442 clips of about 2.5 s.

Files are named `actor_sentence_emotion_level`, for example `1088_IOM_NEU_XX.flv`: `VideoFlash/*.flv` and `AudioWAV/*.wav`, as
the data set is published, anywhere below the root. The sound is taken from the WAV, from the film where there is none.
"""

from __future__ import annotations

import re
from pathlib import Path

from clcr_edge.data.sets.cache import Source
from clcr_edge.data.sets.dataset import DataSet
from clcr_edge.data.sets.media_set import AUDIO, VIDEO, Listed, Lister, build
from clcr_edge.data.sets.options import Options
from clcr_edge.data.sets.paths import existing_folder, find_one, media_index, read_rows
from clcr_edge.data.sets.sample import Task
from clcr_edge.errors import DataError

CLASSES = ("NEU", "HAP", "SAD", "FEA", "DIS", "ANG")
SENTENCES = {
    "IEO": "It's eleven o'clock",
    "TIE": "That is exactly what happened",
    "IOM": "I'm on my way to the meeting",
    "IWW": "I wonder what this is about",
    "TAI": "The airplane is almost full",
    "MTI": "Maybe tomorrow it will be cold",
    "IWL": "I would like a new alarm clock",
    "ITH": "I think I have a doctor's appointment",
    "DFA": "Don't forget a jacket",
    "ITS": "I think I've seen this before",
    "TSI": "The surface is slick",
    "WSI": "We'll stop in a couple of minutes",
}
_NAME = re.compile(r"^([0-9]{4})_([A-Z]{3})_(NEU|HAP|SAD|FEA|DIS|ANG)_(LO|MD|HI|XX|X)$")
_CLIPS = 7_442


def load_crema_d(root: Path | str, options: Options) -> DataSet:
    """Emotion, 6 classes; the actor is the group.

    "strict": every clip found, actors split 70 / 10 / 20. "published": the lists `train.csv` and `test.csv` of the root (rows
    `1001_IEO_ANG_HI,ANG`), in the literature 6,698 and 744 clips of the same actors, without val. `Sample.text` is the
    sentence (it says nothing about the emotion). Raises `DataError` where a folder or list is missing.
    """
    folder = existing_folder(root, "CREMA-D (VideoFlash/*.flv, AudioWAV/*.wav)")
    films, sounds = media_index(folder, VIDEO), media_index(folder, AUDIO)
    lister = Lister()
    if options.protocol == "published":
        for part in ("train", "test"):
            _read_list(find_one(folder, f"{part}.csv"), part, films, sounds, lister)
    else:
        for name in sorted({*films, *sounds}):
            _add(name, None, films, sounds, lister)
    lister.expect("crema-d", _CLIPS, "clips")
    return build("crema-d", Task.CLASSIFICATION, CLASSES, lister, folder, options)


def _read_list(path: Path, part: str, films: dict[str, list[Path]], sounds: dict[str, list[Path]], lister: Lister) -> None:
    for line, cells in read_rows(path):
        if len(cells) < 2:
            raise DataError(f"{path}: line {line} has {len(cells)} cells, expected name,emotion; correct the line")
        name, label = cells[0].strip(), cells[1].strip()
        match = _NAME.match(name)
        if match is not None and label not in (match[3], str(CLASSES.index(match[3]))):
            lister.refuse(name, f"line {line} of {path.name} says {label!r}, the name says {match[3]}")
        else:
            _add(name, part, films, sounds, lister)


def _add(name: str, part: str | None, films: dict[str, list[Path]], sounds: dict[str, list[Path]], lister: Lister) -> None:
    match = _NAME.match(name)
    if match is None:
        lister.refuse(name, "expected a name like 1088_IOM_NEU_XX (actor_sentence_emotion_level)")
        return
    if match[2] not in SENTENCES:
        lister.refuse(name, f"sentence {match[2]!r} is none of the twelve")
        return
    film, sound = films.get(name, []), sounds.get(name, [])
    # The set is published with the same sound as WAV and as MP3.
    sound = [p for p in sound if p.suffix.lower() == ".wav"] or sound
    for paths in (film, sound):
        if len(paths) > 1:
            lister.refuse(name, f"{len(paths)} files of this name ({paths[0]}, {paths[1]}); leave one")
            return
    if not film and not sound:
        lister.refuse(name, "no such media file below the root; fetch it or take it out of the list")
        return
    video = film[0] if film else None
    source = Source(video, sound[0] if sound else video)
    if video is None:
        lister.note(name, "no film, sound only")
    elif not sound:
        lister.note(name, "no WAV, sound from the film")
    target = CLASSES.index(match[3])
    lister.add(Listed(name, match[1], target, part, source, text=SENTENCES[match[2]]))
