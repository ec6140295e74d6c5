"""A bundle verifies itself, leaves nothing half written, and never leads out of its directory."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from clcr_edge import bundle as bundles
from clcr_edge.config import StudentConfig
from clcr_edge.errors import BundleError

CONFIG = StudentConfig(("a", "none"), "none")
GRAPHS = {"fp32": "step.fp32.onnx"}


def fill(folder: Path) -> dict[str, object]:
    (folder / "step.fp32.onnx").write_bytes(b"graph")
    np.savez(folder / "golden.npz", x=np.zeros(3))
    return {"chosen": {"precision": "fp32", "why": "only one"}}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return bundles.write(tmp_path / "b", CONFIG, GRAPHS, fill).path


def edit(bundle: Path, old: str, new: str) -> None:
    manifest = bundle / bundles.MANIFEST
    text = manifest.read_text()
    assert old in text
    manifest.write_text(text.replace(old, new))


def test_what_was_written_is_read(bundle: Path) -> None:
    read = bundles.read(bundle)
    assert read.config == CONFIG
    assert read.graph().read_bytes() == b"graph"
    assert read.precisions == ("fp32",)


def test_a_bundle_without_tensorrt_graphs_still_says_what_is_for_what(bundle: Path) -> None:
    assert bundles.read(bundle).graphs_for("tensorrt") == ("fp32",)
    assert bundles.read(bundle).graphs_for("cpu") == ("fp32",)


def test_a_changed_file_is_named(bundle: Path) -> None:
    (bundle / "step.fp32.onnx").write_bytes(b"grapf")
    with pytest.raises(BundleError, match=r"step\.fp32\.onnx: does not match its SHA-256"):
        bundles.read(bundle)


def test_a_truncated_file_is_named_with_both_sizes(bundle: Path) -> None:
    (bundle / "golden.npz").write_bytes(b"x")
    with pytest.raises(BundleError, match=r"golden\.npz: 1 bytes, but the manifest says"):
        bundles.read(bundle)


def test_a_missing_file_is_named(bundle: Path) -> None:
    (bundle / "golden.npz").unlink()
    with pytest.raises(BundleError, match=r"golden\.npz: named by the manifest but not there"):
        bundles.read(bundle)


def test_a_link_out_of_the_bundle_is_refused(bundle: Path, tmp_path: Path) -> None:
    shutil.copy(bundle / "golden.npz", tmp_path / "outside.npz")
    (bundle / "golden.npz").unlink()
    (bundle / "golden.npz").symlink_to(tmp_path / "outside.npz")
    with pytest.raises(BundleError, match=r"golden\.npz: .*link"):
        bundles.read(bundle)


@pytest.mark.parametrize("name", ["../evil", "/etc/passwd", "a/b", "..\\\\evil"])
def test_a_path_out_of_the_bundle_is_refused(bundle: Path, name: str) -> None:
    edit(bundle, '"golden.npz"', f'"{name}"')
    with pytest.raises(BundleError, match="leads out of the bundle"):
        bundles.read(bundle)


def test_a_newer_schema_says_update(bundle: Path) -> None:
    edit(bundle, "schema = 1", "schema = 99")
    with pytest.raises(BundleError, match=r"schema 99.*update clcr-edge"):
        bundles.read(bundle)


def test_broken_toml_and_a_bad_value_are_named(bundle: Path) -> None:
    edit(bundle, "rate_hz = 25", "rate_hz = 0")
    with pytest.raises(BundleError, match="rate_hz = 0"):
        bundles.read(bundle)
    (bundle / bundles.MANIFEST).write_text("schema = [")
    with pytest.raises(BundleError, match="not readable as TOML"):
        bundles.read(bundle)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('fp32 = "step.fp32.onnx"', "fp32 = [1]", r"graph fp32 names \[1\]"),
        ('precision = "fp32"', "precision = [1]", r"chosen precision \[1\] is not among"),
        ("strides = [1, 2, 4]", "strides = {a = 1}", r"strides = .*expected a value, not a table"),
    ],
)
def test_a_value_of_another_kind_is_one_line(bundle: Path, old: str, new: str, said: str) -> None:
    edit(bundle, old, new)
    with pytest.raises(BundleError, match=said):
        bundles.read(bundle)


def test_no_directory_and_no_bundle_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="clcr-edge export"):
        bundles.read(tmp_path / "nothing")
    (tmp_path / "thing.txt").write_text("x")
    with pytest.raises(BundleError, match=r"not a bundle.*thing\.txt"):
        bundles.read(tmp_path)


def test_a_failed_write_leaves_the_old_bundle_whole_and_no_rest(bundle: Path) -> None:
    def broken(folder: Path) -> dict[str, object]:
        fill(folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bundles.write(bundle, CONFIG, GRAPHS, broken)
    assert bundles.read(bundle).precisions == ("fp32",)
    assert [p.name for p in bundle.parent.iterdir()] == ["b"]


def test_writing_again_replaces_a_bundle_but_never_another_folder(bundle: Path, tmp_path: Path) -> None:
    bundles.write(bundle, CONFIG, GRAPHS, fill)
    assert [p.name for p in tmp_path.iterdir()] == ["b"]
    other = tmp_path / "home"
    other.mkdir()
    (other / "thesis.tex").write_text("years of work")
    with pytest.raises(BundleError, match="is not a bundle"):
        bundles.write(other, CONFIG, GRAPHS, fill)
    assert (other / "thesis.tex").exists()
