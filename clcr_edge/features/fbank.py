"""Log-mel filter bank (Kaldi's, through kaldi-native-fbank), cut so that every tick holds the same number of frames.

A run of audio starts with `window - hop` zero samples before its first sample. So frame j ends exactly at sample
`(j + 1) * hop`, a tick of `n * hop` samples always completes `n` frames, and no tick needs a frame count:

    samples      |--tick 0--|--tick 1--|
    windows  [0 0 0 f0]
                [0 0 f0 f1] ...                 each ends on a hop
"""

from __future__ import annotations

import kaldi_native_fbank as knf
import numpy as np
import numpy.typing as npt

from clcr_edge.config import TickConfig
from clcr_edge.packets import FloatArray

# Kaldi's filter banks expect 16-bit amplitudes. The affine map brings log energies to about -2..2 (speech, this project).
_INT16 = 32_768.0
_SHIFT, _SCALE = 12.0, 0.25
_FLOOR = 8.0  # log energy of white noise at -83 dB of full scale: what lies below tells microphones apart, not words


def _options(config: TickConfig) -> knf.FbankOptions:
    options = knf.FbankOptions()
    options.frame_opts.samp_freq = config.sample_rate_hz
    options.frame_opts.dither = 0.0  # the default is 3e-5: two runs of one recording would differ
    options.frame_opts.snip_edges = True
    options.frame_opts.frame_shift_ms = 1000.0 * config.fbank_hop / config.sample_rate_hz
    options.frame_opts.frame_length_ms = 1000.0 * config.fbank_window / config.sample_rate_hz
    options.mel_opts.num_bins = config.n_mels
    options.mel_opts.low_freq = config.mel_low_hz
    options.mel_opts.high_freq = config.mel_high_hz
    return options


class FbankStream:
    """Streaming filter bank of one unbroken run of audio; memory does not grow.

    `push` takes float32 samples `[N]` in -1..1, any N, and gives the frames they complete: float32 `[n, n_mels]`,
    log energy, floored, shifted and scaled to about -2..2. Bitwise equal to `fbank` for every chunking.
    """

    def __init__(self, config: TickConfig) -> None:
        self._config = config
        self._options = _options(config)
        self.reset()

    def reset(self) -> None:
        """Begin a new run: forget everything, pad the left edge again."""
        self._online = knf.OnlineFbank(self._options)
        self._done = 0
        self._feed(np.zeros(self._config.fbank_window - self._config.fbank_hop, np.float32))

    def _feed(self, samples: FloatArray) -> None:
        self._online.accept_waveform(self._config.sample_rate_hz, samples * np.float32(_INT16))

    def push(self, samples: FloatArray) -> FloatArray:
        """Append samples; return the frames that are now complete."""
        self._feed(samples)
        new = range(self._done, self._online.num_frames_ready)
        frames = np.empty((len(new), self._config.n_mels), np.float32)
        for row, index in zip(frames, new, strict=True):
            row[:] = self._online.get_frame(index)
        self._online.pop(len(new))  # or the object keeps every frame it ever made
        self._done += len(new)
        np.maximum(frames, np.float32(_FLOOR), out=frames)
        frames -= np.float32(_SHIFT)
        frames *= np.float32(_SCALE)
        return frames


def fbank(samples: FloatArray, config: TickConfig) -> FloatArray:
    """Filter bank of a whole run: float32 `[N]` -> float32 `[N // hop, n_mels]`."""
    return FbankStream(config).push(samples)


def fbank_of_ticks(samples: FloatArray, present: npt.NDArray[np.bool_], config: TickConfig) -> FloatArray:
    """Filter bank of a recording in which audio comes and goes by ticks, as a session would make it.

    samples: float32 `[T * samples per tick]`; present: bool `[T]`. Returns float32 `[T, F, n_mels]`, zero where absent: every
    unbroken run starts anew, exactly as after a gap in a live stream.
    """
    ticks = len(present)
    out = np.zeros((ticks, config.fbank_frames, config.n_mels), np.float32)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], present, [False]]).astype(np.int8)))
    for first, last in zip(edges[::2], edges[1::2], strict=True):
        run = fbank(samples[first * config.samples : last * config.samples], config)
        out[first:last] = run.reshape(last - first, config.fbank_frames, config.n_mels)
    return out
