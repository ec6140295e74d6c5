"""Where a command cannot write, it says so before it works; a full disk leaves the old bundle whole."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from clcr_edge import bundle as bundles
from clcr_edge import outputs
from clcr_edge.errors import OutputError
from clcr_edge.outputs import check_folder, put_in_place

COMMAND = [sys.executable, "-m", "clcr_edge"]

# Limits the size of files as a full disk would: the graph alone has 3 MB.
WRITE_AGAIN = """
import resource, shutil, sys
from pathlib import Path
from clcr_edge import bundle as bundles
from clcr_edge.errors import OutputError
out = Path(sys.argv[1])
old = bundles.read(out)
def fill(folder):
    for name in old.manifest["files"]:
        (folder / name).write_bytes((out / name).read_bytes())
    return {"chosen": old.manifest["chosen"]}
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
try:
    bundles.write(out, old.config, old.manifest["graphs"], fill)
except OutputError as e:
    print(e)
"""


def test_a_folder_that_can_be_made_is_not_made(tmp_path: Path) -> None:
    check_folder(tmp_path / "a" / "b")
    check_folder(tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_stands_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    for out, said in (("file", "file is a file"), ("file/below", "file is a file"), ("link", "link is a link to nothing")):
        with pytest.raises(OutputError, match=f"{out}: cannot be made, as .*{said}; name another --out"):
            check_folder(tmp_path / out)
    with pytest.raises(OutputError, match=r"/proc/x: nothing can be written to /proc \("):
        check_folder(Path("/proc/x"))


@pytest.mark.parametrize(
    "arguments",
    [
        ("export", "--out", "FILE/bundle"),
        ("train", "digits", "--root", "/none", "--out", "FILE"),
        ("train", "clips", "--root", "/none", "--out", "FILE"),
        ("distill", "/none", "--data", "digits", "--root", "/none", "--out", "FILE"),
    ],
)
def test_a_command_says_so_before_it_reads_anything(arguments: tuple[str, ...], tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="torch is not installed: pip install 'clcr-edge[train]'")
    (tmp_path / "file").write_text("x")
    given = [a.replace("FILE", str(tmp_path / "file")) for a in arguments]
    done = subprocess.run([*COMMAND, *given], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "cannot be made" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_full_disk_leaves_the_old_bundle_whole(proof_bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    shutil.copytree(proof_bundle, out)
    done = subprocess.run([sys.executable, "-c", WRITE_AGAIN, str(out)], capture_output=True, text=True, check=True)
    assert "bundle: the bundle cannot be written (File too large); make room" in done.stdout
    assert done.stdout.endswith("the old one is as it was\n")
    assert bundles.read(out).manifest == bundles.read(proof_bundle).manifest
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]


def two_folders(root: Path) -> tuple[Path, Path]:
    made, place = root / "made", root / "place"
    for folder in (made, place):
        folder.mkdir()
        (folder / "which").write_text(folder.name)
    return made, place


@pytest.mark.parametrize("exchange", [True, False])
def test_a_finished_folder_takes_the_place_of_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchange: bool
) -> None:
    made, place = two_folders(tmp_path)
    if not exchange:
        monkeypatch.setattr(outputs, "_exchanged", lambda *_: False)
    put_in_place(made, place)
    assert (place / "which").read_text() == "made"
    assert list(tmp_path.iterdir()) == [place]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux exchanges two names in one step")
def test_a_kill_between_two_renames_cannot_be(proof_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is one step, in the kernel: nothing of ours runs while the name stands for nothing."""
    out = tmp_path / "bundle"
    shutil.copytree(proof_bundle, out)
    old = bundles.read(out)

    def fill(folder: Path) -> dict[str, object]:
        for name in old.manifest["files"]:
            shutil.copyfile(out / name, folder / name)
        return {"chosen": old.manifest["chosen"], "created": "later"}

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "rename", killed)
    assert bundles.write(out, old.config, old.manifest["graphs"], fill).manifest["created"] == "later"
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]


def test_where_names_cannot_be_exchanged_the_old_folder_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, place = two_folders(tmp_path)
    monkeypatch.setattr(outputs, "_exchanged", lambda *_: False)
    rename = Path.rename

    def refused(self: Path, target: Path) -> Path:
        if self == made:
            raise OSError("no")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refused)
    with pytest.raises(OSError, match="no"):
        put_in_place(made, place)
    assert (place / "which").read_text() == "place"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["made", "place"]
