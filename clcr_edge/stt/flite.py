"""Flite's voices, which were made from recordings of people: optional second source of speech (apt: flite, a free licence).

They carry no labels; `align` finds them. Where Flite is absent the builder goes on without it and says so.
"""

from __future__ import annotations

import ctypes

import numpy as np

from clcr_edge.errors import MissingPartError, UsageError
from clcr_edge.stt.arrays import FloatArray

TRAIN_VOICES = ("kal16", "rms", "slt")
TEST_VOICES = ("awb",)


class _Wave(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_char_p),
        ("rate_hz", ctypes.c_int),
        ("n_samples", ctypes.c_int),
        ("n_channels", ctypes.c_int),
        ("samples", ctypes.POINTER(ctypes.c_short)),
    )


class _Voice(ctypes.Structure):
    _fields_ = (("name", ctypes.c_char_p), ("features", ctypes.c_void_p))


class FliteVoice:
    """One of Flite's voices. MissingPartError where the library or the voice is not installed."""

    def __init__(self, name: str) -> None:
        try:
            # Flite's libraries do not name what they need of each other: load them in order, globally.
            self._flite = ctypes.CDLL("libflite.so.1", mode=ctypes.RTLD_GLOBAL)
            for part in ("usenglish", "cmulex"):
                ctypes.CDLL(f"libflite_{part}.so.1", mode=ctypes.RTLD_GLOBAL)
            library = ctypes.CDLL(f"libflite_cmu_us_{name}.so.1")
        except OSError as error:
            raise MissingPartError(f"flite's voice {name!r} is not installed: apt-get install flite") from error
        self._flite.flite_init()
        register = library[f"register_cmu_us_{name}"]
        register.restype = ctypes.POINTER(_Voice)
        register.argtypes = (ctypes.c_char_p,)
        self._voice = register(None)
        self._flite.flite_text_to_wave.restype = ctypes.POINTER(_Wave)
        self._flite.flite_text_to_wave.argtypes = (ctypes.c_char_p, ctypes.POINTER(_Voice))
        self._flite.feat_set_float.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_float)
        self._flite.delete_wave.argtypes = (ctypes.POINTER(_Wave),)

    def speak(self, text: str, stretch: float = 1.0) -> tuple[FloatArray, int]:
        """Audio float32 `[N]` in -1..1 and its rate. `stretch` above 1 is slower."""
        self._flite.feat_set_float(self._voice.contents.features, b"duration_stretch", stretch)
        wave = self._flite.flite_text_to_wave(text.encode(), self._voice)
        if not wave or wave.contents.n_samples <= 0:
            raise UsageError(f"flite has nothing to say for {text!r}")
        samples = np.ctypeslib.as_array(wave.contents.samples, shape=(wave.contents.n_samples,)).astype(np.float32)
        rate_hz = int(wave.contents.rate_hz)
        self._flite.delete_wave(wave)
        return samples / np.float32(32_768), rate_hz
