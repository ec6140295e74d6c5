"""One import package over four folders: what a wheel holds, and that it works where the source tree is not."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    source = out / "source"
    # A copy, so that building leaves no build/ in the tree.
    subprocess.run(["git", "-C", str(ROOT), "checkout-index", "-a", f"--prefix={source}/"], check=True)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--wheel-dir", str(out), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return next(out.glob("*.whl"))


@pytest.mark.slow
def test_the_wheel_is_one_package_with_its_assets(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    top = next(n for n in names if n.endswith("top_level.txt"))
    assert zipfile.ZipFile(wheel).read(top).decode().split() == ["clcr_edge"]
    assert {n.split("/")[0] for n in names if ".dist-info" not in n} == {"clcr_edge"}
    for needed in ("runtime/session.py", "export/step.py", "calibration/qdq.py", "commands/run.py", "py.typed"):
        assert f"clcr_edge/{needed}" in names
    for needed in ("assets/digits-student/student.safetensors", "assets/vosk-tiny/am/final.mdl", "assets/synthetic/check.npz"):
        assert f"clcr_edge/{needed}" in names


@pytest.mark.slow
def test_the_installed_wheel_imports_without_the_tree(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    code = "import clcr_edge.cli, clcr_edge.runtime.session as s; print(s.__file__)"
    where = {"PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=where, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(tmp_path))


def test_nothing_imports_a_room_by_its_folder_name() -> None:
    wrong = re.compile(r"^\s*(?:from|import) (?:runtime|export|calibration)\b", re.MULTILINE)
    files = subprocess.run(["git", "-C", str(ROOT), "ls-files", "*.py"], capture_output=True, text=True, check=True).stdout
    assert [f for f in files.split() if (ROOT / f).is_file() and wrong.search((ROOT / f).read_text("utf-8"))] == []


def test_the_runtime_imports_no_torch() -> None:
    for folder in ("runtime", "clcr_edge/features", "clcr_edge/data"):
        for file in (ROOT / folder).glob("*.py"):
            assert not re.search(r"^\s*(?:from|import) torch\b", file.read_text("utf-8"), re.MULTILINE), file


def test_the_public_names_are_there_and_importing_the_package_loads_no_numpy() -> None:
    code = (
        "import sys, clcr_edge\n"
        "assert 'numpy' not in sys.modules, 'the command line sets BLAS threads before numpy loads'\n"
        "missing = [n for n in clcr_edge.__all__ if not hasattr(clcr_edge, n)]\n"
        "assert not missing, missing\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
