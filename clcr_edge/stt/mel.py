"""The recogniser's front end: Kaldi log-mel for training, and the MFCC options that Vosk reads.

With no lifter, Kaldi's 40 MFCC of 40 mel bands are an orthonormal DCT of the log-mel vector. So the network is trained on
log-mel (where channels are offsets and masking is easy) and the DCT's inverse is folded into its first layer on export.
"""

from __future__ import annotations

import kaldi_native_fbank as knf
import numpy as np

from clcr_edge.stt.arrays import FloatArray

RATE_HZ = 16_000
BANDS = 40
LOW_HZ, HIGH_HZ = 60.0, 3800.0  # all that 8 kHz recordings hold, so that they and 16 kHz microphones look alike
HOP_S = 0.01

MFCC_CONF = (
    "--use-energy=false",
    f"--sample-frequency={RATE_HZ}",
    f"--num-mel-bins={BANDS}",
    f"--num-ceps={BANDS}",
    "--cepstral-lifter=0",
    f"--low-freq={LOW_HZ:g}",
    f"--high-freq={HIGH_HZ:g}",
    "--dither=0",  # the default adds random numbers: results would not repeat
)


def log_mel(samples: FloatArray) -> FloatArray:
    """float32 `[N]` in -1..1 at 16 kHz -> natural-log mel energies float32 `[T, 40]`, 10 ms apart, 16-bit amplitudes."""
    options = knf.FbankOptions()
    options.frame_opts.samp_freq = RATE_HZ
    options.frame_opts.dither = 0.0
    options.frame_opts.snip_edges = True
    options.mel_opts.num_bins = BANDS
    options.mel_opts.low_freq = LOW_HZ
    options.mel_opts.high_freq = HIGH_HZ
    computer = knf.OnlineFbank(options)
    computer.accept_waveform(RATE_HZ, samples * np.float32(32_768))
    computer.input_finished()
    frames = [computer.get_frame(i) for i in range(computer.num_frames_ready)]
    return np.asarray(frames, np.float32).reshape(-1, BANDS)


def dct_matrix() -> FloatArray:
    """Orthonormal DCT-II `[40, 40]`: MFCC = log-mel @ matrix.T."""
    n = np.arange(BANDS)
    matrix = np.sqrt(2.0 / BANDS) * np.cos(np.pi / BANDS * np.outer(n, n + 0.5))
    matrix[0] = np.sqrt(1.0 / BANDS)
    return np.asarray(matrix)
