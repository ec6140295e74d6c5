"""A live run on a real microphone and camera: recorded it replays bit for bit, and unrecorded it writes and sends nothing."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from clips import make_clip, noise
from live_rig import CameraServer, SoundServer, need_module, need_program, write_wav

from clcr_edge import bundle as bundles
from clcr_edge.packets import AudioChunk, VideoFrame
from clcr_edge.runtime.onnx_engine import OnnxEngine
from clcr_edge.runtime.recording import Recording
from clcr_edge.runtime.replaying import OF_THE_DEVICE
from clcr_edge.runtime.session import Session

pytestmark = pytest.mark.live

COMMAND = [sys.executable, "-m", "clcr_edge"]


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> Path:
    need_module("vosk")
    need_program("espeak-ng")
    wav = tmp_path_factory.mktemp("say") / "say.wav"
    subprocess.run(["espeak-ng", "-v", "en-us", "-s", "140", "-w", str(wav), "seven. three."], check=True)
    return wav


def untold(env: dict[str, str]) -> dict[str, str]:
    """The environment without what this process's import of clcr_edge has put there: a user's command starts without it."""
    return {k: v for k, v in env.items() if k != "ORT_DISABLE_TELEMETRY"}


def live(
    bundle: Path, sound: SoundServer, camera: CameraServer, say: Path, *options: str, ticks: int = 100,
    before: list[str] | None = None, **env: str,
) -> tuple[list[str], str]:
    """`clcr-edge run --json` on both servers, until so many ticks are out: lines and stderr."""
    sources = ["--camera", camera.url, "--duration", str(ticks / 25)]
    process = subprocess.Popen(
        [*(before or []), *COMMAND, "run", str(bundle), *sources, "--json", *options],
        env={**untold(sound.env), "OMP_NUM_THREADS": "1", **env}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )
    assert process.stdout is not None
    first = process.stdout.readline()
    player = sound.play(say)
    out, err = process.communicate(timeout=90)
    player.wait()
    assert process.returncode == 0, err
    return [first, *out.splitlines()], err


@pytest.mark.live
def test_a_live_run_replays_bit_for_bit(
    proof_bundle: Path, sound: SoundServer, camera: CameraServer, said: Path, tmp_path: Path
) -> None:
    out, err = live(proof_bundle, sound, camera, said, "--record", str(tmp_path / "r"))
    assert "recorded 4.0 s" in err
    predictions = [json.loads(line) for line in out]
    assert sum(p["age_s"]["audio"] == 0 for p in predictions) > 70
    assert len({p["frame_seq"] for p in predictions}) > 70
    assert any(p["words"] for p in predictions), "nothing was understood, so words were not tested"
    done = subprocess.run([*COMMAND, "replay", str(tmp_path / "r"), "--json"], capture_output=True, text=True, check=True)
    *ticks, last = [json.loads(line) for line in done.stdout.splitlines()]
    assert last["summary"]["identical"] == last["summary"]["ticks"] == 100
    assert last["summary"]["frames_lost"] == 0
    for then, now in zip(predictions, ticks, strict=True):
        media = then.keys() - set(OF_THE_DEVICE)
        assert {k: now[k] for k in media} == {k: then[k] for k in media}


# -- recovery, on real parts ------------------------------------------------------------------------------------------


def test_a_memory_after_both_sources_went_nothing_is_left_of_it(
    proof_bundle: Path, sound: SoundServer, camera: CameraServer, tmp_path: Path
) -> None:
    """`test_laws_recovery.py` takes packets away; here a sound server is killed and a camera unplugged.

    The run that never had the fault is the recording with other media in its hole."""
    engine = OnnxEngine.from_bundle(bundles.read(proof_bundle))
    memory = max(engine.config.vision_memory, engine.config.audio_memory)
    hiss = write_wav(tmp_path / "hiss.wav", noise(40.0))
    options = ["--json", "--no-stt", "--no-shedding", "--record", str(tmp_path / "r")]
    process = subprocess.Popen(
        [*COMMAND, "run", str(proof_bundle), "--camera", camera.url, *options],
        env={**sound.env, "OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )
    assert process.stdout is not None
    rows = (json.loads(line) for line in process.stdout)
    players = [sound.play(hiss)]
    assert next(row for row in rows if row["tick"] >= 50)
    sound.kill()
    camera.stop()
    time.sleep(0.8)
    sound.start()
    camera.start()
    players.append(sound.play(hiss))
    whole = {"camera": "live", "microphone": "live"}
    back = next(row["tick"] for row in rows if row["sources"] == whole and row["age_s"]["audio"] == 0 and row["tick"] > 60)
    assert next(row for row in rows if row["tick"] >= back + memory + 40)
    process.send_signal(2)
    process.communicate(timeout=30)
    for player in players:
        player.kill()
        player.wait()
    steps = list(Recording(tmp_path / "r").steps())
    chunks = [p for step in steps for p in step.packets if isinstance(p, AudioChunk)]
    holes = {id(a): (a.end_s, b.t_s) for a, b in pairwise(chunks) if b.t_s - a.end_s > 0.1}
    assert holes
    session, rng, apart, hurt = Session(engine), np.random.default_rng(0), [], []
    seen_s, image = 0.0, np.zeros((120, 160, 3), np.uint8)
    for k, step in enumerate(steps):
        if step.start_s is not None:
            session.start(step.start_s)
        for packet in step.packets:
            if isinstance(packet, VideoFrame):
                session.push_frame(packet)
                seen_s, image = packet.t_s, packet.image
            elif isinstance(packet, AudioChunk):
                session.push_audio(packet)
                if id(packet) in holes:  # all but its last 20 ms, so that what comes next is placed by its own stamp
                    begin_s, end_s = holes[id(packet)]
                    made = 0.1 * rng.standard_normal(round((end_s - begin_s - 0.02) * 16_000))
                    session.push_audio(AudioChunk(made.astype(np.float32), 16_000, begin_s))
        if 50 < k < back and session.next_end_s - seen_s > 0.2:
            made_up = rng.integers(0, 256, image.shape, np.uint8)
            session.push_frame(VideoFrame(made_up, session.next_end_s - 0.02, 0))
        now, then = session.step(), step.prediction
        apart.append(max(abs(p - then["probs"][name]) for name, p in now.probs.items()))
        if then["frame_seq"] is None or then["age_s"]["audio"] != 0:
            hurt.append(k)
    last = max(k for k in hurt if k <= back)
    assert max(k for k in hurt) <= back, "the machine was too busy: there is another hole"
    assert max(apart[50:back]) > 1e-4
    assert max(apart[last + memory + 1 :]) <= 1e-5


# -- privacy -----------------------------------------------------------------------------------------------------------

_TRACED = (
    "open,openat,openat2,creat,rename,renameat,renameat2,mkdir,mkdirat,link,linkat,symlink,symlinkat,"
    "connect,bind,sendto,sendmsg"
)


def strace(log: Path) -> list[str]:
    need_program("strace")
    return ["strace", "-f", "-qq", "-s", "200", "-e", f"trace={_TRACED}", "-o", str(log)]


def traces(log: Path) -> tuple[set[str], set[str]]:
    """What was opened for writing, made or renamed; and which addresses were connected or bound to, or sent to."""
    written, reached = set(), set()
    for line in log.read_text("utf-8", "replace").splitlines():
        if re.search(r"= -1 E[A-Z]+|resumed>", line) and "EINPROGRESS" not in line:
            continue  # it did not happen
        called = re.search(r"^\d+\s+(\w+)\(", line)
        if called is None:
            continue
        if called[1] in ("connect", "bind", "sendto", "sendmsg"):
            net = re.search(r'htons\((\d+)\).*?inet_(?:addr|pton)\([^"]*"([^"]+)"', line)
            unix = re.search(r'sun_path=@?"([^"]+)"', line)
            if net:
                reached.add(f"{net[2]}:{net[1]}")
            elif unix:
                reached.add(unix[1])
            elif called[1] in ("connect", "bind") and "AF_NETLINK" not in line and "AF_UNSPEC" not in line:
                reached.add(line)
        elif called[1] not in ("open", "openat", "openat2") or re.search(r"O_WRONLY|O_RDWR|O_CREAT|O_TMPFILE", line):
            written |= set(re.findall(r'"([^"]+)"', line))
    return written, reached


def everything(*folders: Path) -> dict[str, tuple[int, int]]:
    """Every file under the folders, with size and time of change."""
    files = [p for folder in folders for p in folder.rglob("*") if p.is_file() and p.parts[-2:] != ("pulse", "cookie")]
    return {str(p): (p.stat().st_size, p.stat().st_mtime_ns) for p in files}


def no_files(written: set[str]) -> set[str]:
    """Of what was opened for writing, what would still be there: no devices, shared memory, terminals; nor the cookie (256
    random bytes) by which PulseAudio's own library knows its server, nor the folders it lies in."""
    pulse = re.compile(r".*/pulse(/cookie)?$")
    return {w for w in written if not w.startswith(("/dev/null", "/dev/shm/", "/dev/tty", "/proc/")) and not pulse.match(w)}


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """An environment whose every usual place to write is ours to look at."""
    places = {"HOME": "home", "TMPDIR": "tmp", "XDG_CACHE_HOME": "cache", "XDG_CONFIG_HOME": "config", "XDG_DATA_HOME": "data"}
    for folder in places.values():
        (tmp_path / "places" / folder).mkdir(parents=True)
    made = {key: str(tmp_path / "places" / folder) for key, folder in places.items()}
    # The interpreter's own cache of compiled modules holds nothing of the run.
    return {**made, "PYTHONDONTWRITEBYTECODE": "1"}


@pytest.mark.live
def test_unrecorded_a_live_run_writes_nothing_and_reaches_only_its_sources(
    proof_bundle: Path, sound: SoundServer, camera: CameraServer, said: Path, tmp_path: Path, home: dict[str, str]
) -> None:
    before = everything(tmp_path / "places", proof_bundle)
    log = tmp_path / "trace"
    out, _ = live(proof_bundle, sound, camera, said, before=strace(log), ticks=75, **home)
    assert len(out) == 75
    assert everything(tmp_path / "places", proof_bundle) == before
    written, reached = traces(log)
    assert no_files(written) == set()
    port = camera.url.split(":")[2].split("/")[0]
    assert f"127.0.0.1:{port}" in reached, "the trace sees no network"
    # ::1, port 0: urllib3, which comes with Vosk, tries whether there is IPv6; nobody is at the other end.
    assert reached <= {f"127.0.0.1:{port}", sound.address.removeprefix("unix:"), "::1:0"}


@pytest.mark.live
def test_unrecorded_a_file_run_writes_and_sends_nothing_and_recorded_only_where_asked(
    proof_bundle: Path, tmp_path: Path, home: dict[str, str]
) -> None:
    clip = make_clip(tmp_path / "clip.mp4", video_s=1.0, audio=noise(1.0))
    before = everything(tmp_path / "places", proof_bundle)
    for options in ([], ["--record", str(tmp_path / "asked")]):
        log, env = tmp_path / "trace", {**untold(dict(os.environ)), **home}
        done = subprocess.run(
            [*strace(log), *COMMAND, "run", str(proof_bundle), "--camera", str(clip), "--fast", "--json", *options],
            env=env, cwd=tmp_path / "places", capture_output=True, text=True, check=True, timeout=60,
        )
        assert len(done.stdout.splitlines()) >= 25
        assert everything(tmp_path / "places", proof_bundle) == before
        written, reached = traces(log)
        assert reached <= {"::1:0"}, "urllib3's trial of IPv6, which comes with Vosk, and nothing else"
        assert {w for w in no_files(written) if not w.startswith(str(tmp_path / "asked"))} == set()
        assert bool(no_files(written)) == bool(options), "the trace sees no writing"
    shutil.rmtree(tmp_path / "asked")
