"""What this machine is, as a report needs it: processor, board, JetPack, power mode. An answer may be None; none may raise."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

# L4T -> JetPack, from NVIDIA's package lists. The longest prefix that fits counts.
_JETPACK = {
    "35": "5",
    "36.3": "6.0",
    "36.4.0": "6.1",
    "36.4.3": "6.2",
    "36.4.4": "6.2.1",
    "36.5": "6.2.2",
    "38.2": "7.0",
    "38.4": "7.1",
    "39.2": "7.2",
}


def cpu_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's name and number of cores."""
    try:
        lines = cpuinfo.read_text("utf-8", "replace").splitlines()
    except OSError:
        return platform.processor() or "unknown"
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name") and ":" in line]
    cores = sum(line.startswith("processor") for line in lines)
    return f"{names[0] if names else platform.machine()}, {cores} cores"


def board_name(model: Path = Path("/proc/device-tree/model")) -> str | None:
    """The board, where the firmware names one (a Jetson, a Raspberry Pi)."""
    try:
        return model.read_text("utf-8", "replace").strip("\0 \n") or None
    except OSError:
        return None


def l4t_version(release: Path = Path("/etc/nv_tegra_release")) -> str | None:
    """L4T as "36.4.3"; None where this is no Jetson."""
    try:
        text = release.read_text("utf-8", "replace")
    except OSError:
        return None
    match = re.search(r"R(\d+)[^,]*,\s*REVISION:\s*([\d.]+)", text)
    return f"{match[1]}.{match[2]}" if match else "unknown"


def jetpack_of(l4t: str) -> str:
    """The JetPack of an L4T, as far as known here."""
    known = [p for p in _JETPACK if l4t == p or l4t.startswith(f"{p}.")]
    return _JETPACK[max(known, key=len)] if known else "unknown"


def memory_bytes(meminfo: Path = Path("/proc/meminfo")) -> tuple[int, int] | None:
    """(available, total) memory: what Linux could give a program now, without swap, and all of it; or None."""
    try:
        lines = meminfo.read_text("ascii", "replace").splitlines()
        values = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if ":" in line and len(line.split()) > 1}
        return values["MemAvailable"], values["MemTotal"]
    except (OSError, ValueError, KeyError):
        return None


def resident_bytes(status: Path = Path("/proc/self/status")) -> int | None:
    """Resident memory of a process, by default of this one; None where the system does not tell, or the process has ended."""
    try:
        for line in status.read_text("ascii", "replace").splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return None


@dataclass(frozen=True)
class ProcessUse:
    """What a process holds and has used: resident memory, bytes; CPU time since it began, seconds."""

    resident_bytes: int
    cpu_s: float


def process_use(pid: int) -> ProcessUse | None:
    """Of a running process; None where the system does not tell, or the process has ended."""
    memory = resident_bytes(Path(f"/proc/{pid}/status"))
    if memory is None:
        return None
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("ascii", "replace").rpartition(")")[2].split()
        return ProcessUse(memory, (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"))  # utime, stime
    except (OSError, ValueError, IndexError):
        return None


def power_mode() -> str | None:
    """The power mode of a Jetson, as nvpmodel names it; latency means little without it."""
    program = shutil.which("nvpmodel") or shutil.which("nvpmodel", path="/usr/sbin")
    if program is None:
        return None
    try:
        asked, nothing = [program, "-q"], subprocess.DEVNULL
        done = subprocess.run(asked, capture_output=True, text=True, timeout=10, check=False, stdin=nothing)
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.search(r"NV Power Mode:\s*(\S+)", done.stdout)
    return match[1] if match else None


def machine_table() -> dict[str, str]:
    """All of it, what is not there left out."""
    l4t, memory = l4t_version(), memory_bytes()
    table = {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "cpu": cpu_name(),
        "board": board_name(),
        "l4t": l4t,
        "jetpack": None if l4t is None else jetpack_of(l4t),
        "power_mode": power_mode(),
        "memory": None if memory is None else f"{memory[0] / 2**30:.1f} GiB free of {memory[1] / 2**30:.1f}",
    }
    return {k: v for k, v in table.items() if v is not None}
