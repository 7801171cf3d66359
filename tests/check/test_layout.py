"""What Triton would stumble over: folders, versions, configurations; in repositories that anybody made."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from check.repositories import FOREIGN_CONFIG, codes, dense, errors, foreign
from convkit.checking import check
from convkit.errors import ExitStatus, InputError
from convkit.serving.holding import locked
from convkit.serving.remark import Severity


def test_a_sound_repository_that_others_made_is_found_in_order(tmp_path: Path) -> None:
    report = check(foreign(tmp_path / "repository"))

    assert (report.exit_code, codes(report)) == (0, ["check.no-manifest"])
    (version,) = report.models[0].versions
    assert (version.version, version.recorded, version.files) == (1, False, 0)


def test_a_model_whose_configuration_the_server_completes_is_no_error(tmp_path: Path) -> None:
    without = foreign(tmp_path / "without", config=None)
    empty = foreign(tmp_path / "empty", config='backend: "onnxruntime"\n')

    assert codes(check(without), Severity.WARNING) == ["repository.no-config"]
    assert codes(check(empty), Severity.WARNING) == ["triton.no-input", "triton.no-output"]
    assert errors(check(without)) == errors(check(empty)) == []


@pytest.mark.parametrize(
    ("old", "new", "code", "named"),
    [
        ('name: "x"', 'name: "image"', "check.unknown-tensor", "'image' is not in the model, which has 'x'"),
        ('name: "x"', 'name: "image"', "check.missing-input", "'x' is not in the configuration"),
        ("TYPE_FP32 dims: [ 4 ]", "TYPE_FP16 dims: [ 4 ]", "check.type", "'x' is TYPE_FP16"),
        ("dims: [ 4 ]", "dims: [ 5 ]", "check.dims", "[5] in the configuration, and the model [4]"),
        ("dims: [ 4 ]", "dims: [ -1, 4 ]", "check.dims", "'x' has the dims [-1, 4]"),
        ("dims: [ 3 ]", "dims: [ -1 ]", "check.dims", "'y' has the dims [-1]"),
        ("max_batch_size: 8", "max_batch_size: 0", "check.dims", "'x' has the dims [4]"),
        ("max_batch_size: 8", 'name: "other"', "triton.name-mismatch", "'other'"),
        ("max_batch_size: 8", "max_batch_sise: 8", "triton.config-unreadable", "theirs/config.pbtxt, line 3"),
        ("max_batch_size: 8", "dynamic_batching {}", "triton.batching-without-batch", "max_batch_size is 0"),
    ],
)
def test_a_configuration_that_is_not_the_models_is_named(
    tmp_path: Path, old: str, new: str, code: str, named: str
) -> None:
    report = check(foreign(tmp_path / "repository", config=FOREIGN_CONFIG.replace(old, new)))

    found = [remark for remark in report.remarks if remark.code == code]
    assert found
    assert any(named in remark.message for remark in found), [remark.message for remark in found]
    assert {remark.path for remark in found} == {"theirs/config.pbtxt"}
    assert report.exit_code == ExitStatus.CHECK_FAILED


def test_a_model_without_a_dynamic_batch_cannot_have_a_batch_size(tmp_path: Path) -> None:
    assert errors(check(foreign(tmp_path / "repository", model=dense(batch=1)))) == ["check.batch"] * 2


def test_only_what_the_version_policy_serves_has_to_fit_the_configuration(tmp_path: Path) -> None:
    repository = foreign(tmp_path / "repository", model=dense(width=5))
    good = foreign(tmp_path / "good") / "theirs" / "1"
    good.rename(repository / "theirs" / "2")

    latest = check(repository)
    config = repository / "theirs" / "config.pbtxt"
    config.write_text(FOREIGN_CONFIG + "version_policy { all {} }")
    every = check(repository)

    assert (codes(latest, Severity.WARNING), errors(latest)) == (["check.dims"], [])
    assert errors(every) == ["check.dims"]


def _make(name: str) -> Callable[[Path], None]:
    return lambda repository: (repository / name).mkdir(parents=True)


def _leftover_beside(repository: Path) -> None:
    (repository.parent / f".convkit-staging-{repository.name}-abc").mkdir()


def _drop_model(repository: Path) -> None:
    (repository / "theirs" / "1" / "model.onnx").unlink()


def _write_garbage(repository: Path) -> None:
    (repository / "theirs" / "1" / "model.onnx").write_bytes(b"\x08\x09hello")


@pytest.mark.parametrize(
    ("change", "code", "severity", "path"),
    [
        (_make(".git"), "repository.not-a-model", Severity.ERROR, ".git"),
        (_make("notes/deep"), "repository.not-a-model", Severity.ERROR, "notes"),
        (_make(".convkit-staging-repository-x"), "repository.leftover", Severity.WARNING, ".convkit-staging-"),
        (_leftover_beside, "repository.leftover", Severity.WARNING, ".convkit-staging-repository-abc"),
        (_make("theirs/.convkit-staging-repository-x"), "repository.leftover", Severity.WARNING, "theirs/.convkit"),
        (_make("theirs/backup"), "repository.folder-ignored", Severity.NOTE, "theirs/backup"),
        (_make("theirs/01"), "repository.version-ignored", Severity.WARNING, "theirs/01"),
        (_make("theirs/2"), "repository.no-model-file", Severity.ERROR, "theirs/2"),
        (_drop_model, "repository.no-model-file", Severity.ERROR, "theirs/1"),
        (_write_garbage, "check.no-onnx", Severity.ERROR, "theirs/1/model.onnx"),
    ],
)
def test_what_a_server_would_stumble_over_is_named(
    tmp_path: Path, change: Callable[[Path], None], code: str, severity: Severity, path: str
) -> None:
    repository = foreign(tmp_path / "repository")
    change(repository)

    report = check(repository)

    found = [remark for remark in report.remarks if remark.code == code]
    assert [remark.severity for remark in found] == [severity]
    assert path in found[0].path
    assert report.exit_code == (ExitStatus.CHECK_FAILED if severity is Severity.ERROR else ExitStatus.DONE)


def test_a_configuration_without_any_version_cannot_be_served(tmp_path: Path) -> None:
    repository = foreign(tmp_path / "repository")
    (repository / "empty").mkdir()
    (repository / "empty" / "config.pbtxt").write_text(FOREIGN_CONFIG)

    assert errors(check(repository)) == ["repository.no-version"]


def test_a_model_whose_weights_lie_outside_of_its_folder_is_an_error(tmp_path: Path) -> None:
    model = dense()
    weight = model.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = weight.EXTERNAL
    for location in ("../../../etc/passwd", "model.onnx.data"):
        weight.ClearField("external_data")
        weight.external_data.add(key="location", value=location)
        repository = foreign(tmp_path / location.replace("/", "_"), model=None)
        (repository / "theirs" / "1" / "model.onnx").write_bytes(model.SerializeToString())

        expected = "check.data-outside" if ".." in location else "check.no-data"
        assert errors(check(repository)) == [expected]


@pytest.mark.parametrize("damage", ["missing", "short"])
def test_warm_up_data_that_a_server_cannot_use_are_named(repository: Path, damage: str) -> None:
    data = repository / "dense" / "warmup" / "0-x"
    data.unlink() if damage == "missing" else data.write_bytes(data.read_bytes()[:-1])

    found = errors(check(repository))

    assert ("check.warmup-file" if damage == "missing" else "check.warmup-size") in found


def test_an_engine_still_to_be_built_is_a_warning(pending: Path) -> None:
    report = check(pending)

    assert (report.exit_code, codes(report)) == (0, ["repository.pending"])
    (version,) = report.models[0].versions
    assert (version.version, version.pending, version.recorded) == (1, True, True)


@pytest.mark.parametrize("kind", ["nothing there", "a file", "an empty folder", "a folder of other things"])
def test_where_there_is_no_repository_the_check_is_refused(tmp_path: Path, kind: str) -> None:
    place = tmp_path / "place"
    if kind == "a file":
        place.write_text("x")
    elif kind != "nothing there":
        place.mkdir()
    if kind == "a folder of other things":
        (place / "src").mkdir()

    with pytest.raises(InputError) as refused:
        check(place)

    assert refused.value.exit_status == ExitStatus.INPUT_REFUSED


def test_a_publication_that_is_under_way_is_waited_for(repository: Path) -> None:
    """Without the wait, the version and its configuration could be seen at two moments."""
    program = "import sys, convkit.checking as c; print('ready', flush=True); c.check(c.Path(sys.argv[1]))"
    with locked(repository):
        checking = subprocess.Popen(
            [sys.executable, "-c", program, str(repository)], stdout=subprocess.PIPE, text=True, close_fds=True
        )
        assert checking.stdout is not None
        assert checking.stdout.readline() == "ready\n"
        with pytest.raises(subprocess.TimeoutExpired):
            checking.wait(1.0)
    assert checking.wait(60) == 0
    checking.stdout.close()
