"""What a Triton release, or a TensorRT, cannot read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from check.repositories import codes, dense, errors, foreign
from convkit.checking import check
from convkit.errors import UsageError
from convkit.serving.manifest import write_manifest
from convkit.serving.publish import Publication, publish
from convkit.serving.remark import Severity


@pytest.mark.parametrize(
    ("release", "ir_version", "opset", "told"),
    [
        ("24.10", 10, 21, None),
        ("24.10", 11, 21, "IR version 11 (it reads 10 at most)"),
        ("24.10", 10, 22, "opset 22 (it reads 21 at most)"),
        ("25.03", 10, 22, None),
        ("26.02", 13, 25, None),
        ("24.12", 13, 25, "IR version 13 (it reads 10 at most) and opset 25 (it reads 21 at most)"),
    ],
)
def test_an_onnx_file_that_a_release_cannot_read_is_named(
    tmp_path: Path, release: str, ir_version: int, opset: int, told: str | None
) -> None:
    repository = foreign(tmp_path / "repository", model=dense(ir_version=ir_version, opset=opset))

    report = check(repository, triton=release)

    assert errors(check(repository)) == []
    assert errors(report) == ([] if told is None else ["check.release-onnx"])
    if told:
        remark = next(remark for remark in report.remarks if remark.code == "check.release-onnx")
        assert told in remark.message
        assert f"--triton {release}" in remark.hint


def test_what_convkit_publishes_suits_every_release(published: Path) -> None:
    assert check(published, triton="24.10").remarks == check(published, triton="26.08").remarks == ()


def with_engine(pending: Path, *, tensorrt: str, compatible: bool = False) -> Path:
    """Publish a plan as `convkit build` does, with bytes that are no engine: nothing here loads it."""
    folder = pending / "dense" / "pending" / "1"
    build = folder / "build.json"
    plan = json.loads(build.read_text())
    plan["options"]["version_compatible"] = compatible
    build.write_text(json.dumps(plan))
    inner = [path for path in folder.rglob("*") if path.is_file() and path.suffix in (".onnx", ".npz")]
    files: dict[str, Path | bytes] = {
        "model.plan": b"no engine",
        "convkit/build.json": build,
        **{f"convkit/{path.relative_to(folder)}": path for path in inner},
    }
    beside = {
        name: (folder / "model" / name).read_bytes() for name in ("config.pbtxt", "configs/cpu.pbtxt", "warmup/0-x")
    }
    config = beside["config.pbtxt"]
    manifest = write_manifest(
        files=files, beside=beside, options={}, sources={}, versions={"convkit": "0.1.0", "tensorrt": tensorrt}
    )
    del beside["config.pbtxt"]
    publication = Publication(name="dense", files=files, manifest=manifest, config=config, beside=beside)
    publish(pending, publication, version=1, replace=True, same_interface=True)
    shutil.rmtree(folder.parent)
    return pending


def test_an_engine_is_a_sound_publication(pending: Path) -> None:
    report = check(with_engine(pending, tensorrt="10.16.1.11"))

    assert (report.exit_code, report.remarks) == (0, ())


@pytest.mark.parametrize(
    ("built", "asked", "compatible", "loads"),
    [
        ("10.16.1.11", {"triton": "26.04"}, False, True),
        ("10.16.1.11", {"triton": "26.07"}, False, False),
        ("10.16.1.11", {"triton": "26.07"}, True, True),
        ("11.1.0.106", {"triton": "26.04"}, True, False),
        ("11.0.0.114", {"triton": "26.06"}, False, True),
        ("11.0.0.113", {"triton": "26.06"}, False, False),
        ("10.16.1.11", {"tensorrt": "10.16"}, False, True),
        ("10.16.1.11", {"triton": "26.07", "tensorrt": "10.16.1.11"}, False, True),
        ("10.16.1.11", {"tensorrt": "10.9"}, False, False),
    ],
)
def test_an_engine_runs_on_its_own_tensorrt(
    pending: Path, built: str, asked: dict[str, str], compatible: bool, loads: bool
) -> None:
    repository = with_engine(pending, tensorrt=built, compatible=compatible)

    found = check(repository, **asked)  # type: ignore[arg-type]

    assert errors(found) == ([] if loads else ["check.release-tensorrt"])
    if not loads:
        assert f"TensorRT {built} and cannot be loaded by" in found.remarks[-1].message
        assert "convkit build" in found.remarks[-1].hint


def test_a_release_whose_tensorrt_is_not_known_is_a_warning(pending: Path) -> None:
    report = check(with_engine(pending, tensorrt="10.16.1.11"), triton="25.03")

    assert codes(report, Severity.WARNING) == ["check.tensorrt-unknown"]
    assert "--tensorrt" in report.remarks[-1].hint


def test_an_engine_of_unknown_origin_is_a_warning(tmp_path: Path) -> None:
    repository = foreign(tmp_path / "repository", config='platform: "tensorrt_plan"\n')
    (repository / "theirs" / "1" / "model.onnx").rename(repository / "theirs" / "1" / "model.plan")

    assert "check.tensorrt-unknown" in codes(check(repository, triton="26.07"), Severity.WARNING)


@pytest.mark.parametrize("asked", [{"triton": "latest"}, {"triton": "20.01"}, {"tensorrt": "ten"}])
def test_a_release_that_is_none_is_refused(published: Path, asked: dict[str, str]) -> None:
    with pytest.raises(UsageError):
        check(published, **asked)  # type: ignore[arg-type]
