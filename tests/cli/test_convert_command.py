"""`convkit convert` at a shell: exit statuses, one JSON object, talk on standard error, and no trace of a failure."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from sources.hostile import in_zip, plain_pickle
from sources.torch_models import ONE_INPUT

from cli.program import Ended, Program

HEAD = {
    "schema", "status", "exit_code", "repository", "model", "name", "version", "engine", "report", "candidate",
    "stages", "verification", "gates", "accuracy", "warnings", "error",
}  # fmt: skip
STAGES = {"source", "simplify", "precision", "calibrate", "quantize", "compile", "check", "measure", "publish"}
FAST = ("--measure", "none")


def said(ended: Ended, status: int) -> dict[str, Any]:
    """The JSON object, held against the contract."""
    assert ended.status == status, ended.err
    result = ended.result
    assert set(result) == HEAD
    assert result["schema"] == "convkit.result/1"
    assert result["exit_code"] == status
    assert {stage["name"] for stage in result["stages"]} <= STAGES
    assert all({"name", "seconds", "peak_bytes", "cached"} <= set(stage) for stage in result["stages"])
    if status == 0:
        assert result["error"] is None
    else:
        assert result["status"] == "failed"
        assert set(result["error"]) == {"code", "stage", "message", "hint"}
        assert result["error"]["message"] in ended.err
    return result


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_conversion_prints_one_object_and_publishes(convkit: Program, net: Path) -> None:
    result = said(convkit("convert", net, "-o", "models", "--json", *FAST), 0)

    assert (result["status"], result["name"], result["version"], result["engine"]) == ("ok", "net", 1, "none")
    assert result["model"] == "models/net"
    assert result["verification"]["passed"] is True
    assert (convkit.folder / result["report"]).is_file()
    assert files(convkit.folder / "models" / "net") >= {"config.pbtxt", "1/model.onnx", "1/convkit/manifest.json"}


def test_the_same_again_is_unchanged_and_runs_nothing(convkit: Program, net: Path) -> None:
    said(convkit("convert", net, "-o", "models", "--json", *FAST), 0)
    before = files(convkit.folder)
    ended = convkit("convert", net, "-o", "models", "--json", *FAST)
    result = said(ended, 0)

    assert (result["status"], result["version"]) == ("unchanged", 1)
    assert {stage["cached"] for stage in result["stages"] if stage["title"] != "Publish"} == {True}
    assert files(convkit.folder) == before
    assert "unchanged" in convkit("convert", net, "-o", "models", *FAST).out.lower()


def test_another_option_runs_only_what_follows_from_it_and_publishes_the_next_version(
    convkit: Program, net: Path
) -> None:
    said(convkit("convert", net, "-o", "models", "--json", *FAST), 0)
    result = said(convkit("convert", net, "-o", "models", "--json", *FAST, "--quantize", "fp16"), 0)
    cached = {stage["title"]: stage["cached"] for stage in result["stages"]}

    assert result["version"] == 2
    assert cached["Read the ONNX model"] is True
    assert cached["Simplify the graph"] is True
    assert cached["Write 16 bits"] is False


def test_an_unchanged_run_writes_its_report_where_it_was_asked_to(convkit: Program, net: Path) -> None:
    for _ in range(2):
        said(convkit("convert", net, "-o", "models", "--json", *FAST, "--report-dir", "reports"), 0)
        assert files(convkit.folder / "reports") >= {"report.json", "report.md", "report.html"}
        for file in (convkit.folder / "reports").iterdir():
            file.unlink()


def test_talk_goes_to_standard_error_in_plain_lines(convkit: Program, net: Path, tmp_path: Path) -> None:
    convkit.cache = tmp_path / "cache"
    ended = convkit("convert", net, "-o", "models", *FAST)

    assert ended.status == 0
    assert re.search(r"^Read the ONNX model: \d+\.\d s", ended.err, re.MULTILINE)
    assert "\x1b" not in ended.err + ended.out
    assert all(line.strip() == line for line in ended.err.splitlines())
    assert ended.out.count("models/net") == 2  # where the model is, and where its report is


def test_quiet_says_nothing_where_nothing_is_wrong_and_warns_where_something_is(convkit: Program, net: Path) -> None:
    assert convkit("convert", net, "-o", "models", "--quiet", *FAST) == (0, "", "")
    warned = convkit("convert", net, "-o", "models", "--quiet", *FAST, "--opset", "19", "--name", "other")

    assert (warned.status, warned.out) == (0, "")
    assert warned.err == "warning: opset 20 was converted to 19\n"


@pytest.mark.parametrize("as_json", [False, True])
def test_a_dry_run_holds_every_option_runs_nothing_and_writes_nothing(
    as_json: bool, convkit: Program, net: Path, tmp_path: Path
) -> None:
    convkit.cache = tmp_path / "cache"
    ended = convkit("convert", net, "-o", "models", "--dry-run", *(["--json"] if as_json else []))

    assert ended.status == 0
    assert "Look for external data" in ended.err
    assert not (tmp_path / "models").exists()
    assert [path for path in (tmp_path / "cache" / "entries").rglob("*") if path.is_file()] == []
    if as_json:
        assert said(ended, 0)["version"] is None
    assert convkit("convert", net, "--dry-run", "--opset", "99").status == 2


USAGE = {
    "an unknown option": ["{net}", "--nonsense"],
    "an option without its value": ["{net}", "--to"],
    "a value of another kind": ["{net}", "--opset", "many"],
    "a value out of bounds": ["{net}", "--opset", "3"],
    "an unknown choice": ["{net}", "--quantize", "int3"],
    "an unknown target": ["{net}", "--to", "onnxruntim"],
    "no model": [],
    "two models": ["{net}", "{net}"],
    "a name that is a path": ["{net}", "--name", "../net"],
    "a version that is none": ["{net}", "--version", "latest"],
    "version 0": ["{net}", "--version", "0"],
    "a setting without a value": ["{net}", "--set", "triton"],
    "an unknown setting": ["{net}", "--set", "triton.instance=2"],
    "int8 without data": ["{net}", "--quantize", "int8"],
    "data without int8": ["{net}", "--calibration-data", "{net}"],
    "an engine where there is none": ["{net}", "--engine", "now"],
    "an unknown release": ["{net}", "--triton", "1.0"],
    "an opset that the release does not read": ["{net}", "--opset", "22", "--triton", "24.10"],
}
REFUSED = {
    "a model that is not there": ["{folder}/none.onnx"],
    "a file of another kind": ["{folder}/text.md"],
    "a folder without a model": ["{folder}/empty"],
    "an empty file": ["{folder}/empty.onnx"],
    "a config.txt that is not there": ["{net}", "--config", "none.txt"],
    "a config.txt that is broken": ["{net}", "--config", "{folder}/text.md"],
    "a recipe that is not there": ["{net}", "--recipe", "none.toml"],
    "samples that are not there": ["{net}", "--samples", "none.npz"],
    "samples that are none": ["{net}", "--samples", "{folder}/text.md"],
    "a repository that is a file": ["{net}", "-o", "{folder}/text.md"],
    "a report folder that is a file": ["{net}", "--report-dir", "{folder}/text.md"],
    "a repository below a file": ["{net}", "-o", "{folder}/text.md/models"],
    "a pickle": ["{folder}/pickle/model.pth"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("inputs")
    (made / "text.md").write_text("not what it should be", encoding="utf-8")
    (made / "empty.onnx").write_bytes(b"")
    (made / "empty").mkdir()
    (made / "pickle").mkdir()
    (made / "pickle" / "config.txt").write_text(json.dumps(ONE_INPUT), encoding="utf-8")
    (made / "pickle" / "model.pth").write_bytes(in_zip(plain_pickle(made / "canary")))
    return made


@pytest.mark.parametrize("case", USAGE)
def test_a_mistake_on_the_command_line_is_status_2(case: str, convkit: Program, net: Path) -> None:
    result = said(convkit("convert", *(part.format(net=net) for part in USAGE[case]), "--json"), 2)

    assert result["error"]["code"].startswith(("usage.", "quantize.", "triton."))
    assert result["error"]["hint"]
    assert not (convkit.folder / "models").exists()


@pytest.mark.parametrize("case", REFUSED)
def test_an_input_that_is_refused_is_status_3(case: str, convkit: Program, net: Path, folder: Path) -> None:
    arguments = (part.format(net=net, folder=folder) for part in REFUSED[case])
    result = said(convkit("convert", *arguments, "--json", *FAST), 3)

    assert result["error"]["hint"]
    assert not (convkit.folder / "models").exists()
    assert not (folder / "canary").exists()


def test_a_failed_step_is_status_4_with_its_stage_and_a_report(convkit: Program, unknown: Path) -> None:
    result = said(convkit("convert", unknown, "-o", "models", "--json", *FAST), 4)

    assert result["error"]["stage"] == "source"
    assert "operator Mine of the domain my.own" in result["error"]["message"]
    assert Path(result["report"]).is_file()
    assert not (convkit.folder / "models").exists()


def test_numbers_that_do_not_hold_are_status_5_and_nothing_is_published(
    convkit: Program, net: Path, unsteady: Path
) -> None:
    said(convkit("convert", net, "-o", "models", "--name", "live", "--json", *FAST), 0)
    before = files(convkit.folder / "models")
    arguments = ("convert", unsteady, "-o", "models", "--name", "live", "--replace", "--report-dir", "reports")
    result = said(convkit(*arguments, "--json", *FAST), 5)

    assert result["error"]["code"] == "check.outputs-differ"
    assert result["error"]["stage"] == "check"
    assert "the output 'y' is not what onnxruntime" in result["error"]["message"]
    assert result["verification"]["passed"] is False
    assert result["version"] is None
    assert files(convkit.folder / "models") == before
    assert Path(result["candidate"]).is_file()
    assert convkit.cache in Path(result["candidate"]).parents
    assert files(convkit.folder / "reports") == {"report.json", "report.md", "report.html"}
    assert json.loads((convkit.folder / "reports" / "report.json").read_text())["status"] == "failed"


def test_a_limit_that_is_missed_is_status_5(convkit: Program, net: Path) -> None:
    arguments = ("convert", net, "-o", "models", "--quantize", "fp16", "--max-error", "1e-9", "--json", *FAST)
    result = said(convkit(*arguments), 5)

    assert "|a - b| <= 1e-09" in result["error"]["message"]


def test_a_target_that_is_not_installed_is_status_6(convkit: Program, net: Path) -> None:
    arguments = ("convert", net, "--to", "tensorrt", "--engine", "now", "--json", *FAST)
    result = said(convkit(*arguments, variables={"CUDA_VISIBLE_DEVICES": ""}), 6)

    assert "TensorRT is not usable here" in result["error"]["message"]
    assert not (convkit.folder / "models").exists()


def test_a_cache_that_cannot_be_made_is_status_6(convkit: Program, net: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    convkit.cache = tmp_path / "file" / "cache"

    assert said(convkit("convert", net, "--json"), 6)["error"]["code"] == "cache.unwritable"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_full_disk_under_standard_output_is_status_6(convkit: Program, net: Path) -> None:
    import subprocess

    from cli.program import PROGRAM

    with Path("/dev/full").open("w") as full:
        command = [*PROGRAM, "convert", str(net), "--dry-run", "--json"]
        done = subprocess.run(
            command, cwd=convkit.folder, env=convkit.environment(), stdout=full, stderr=-1, check=False
        )

    assert done.returncode == 6
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_at_once_with_its_own_status_and_no_files_left(
    number: signal.Signals, status: int, convkit: Program, net: Path, tmp_path: Path
) -> None:
    convkit.cache = tmp_path / "cache"
    process = convkit.start("convert", net, "-o", "models", "--measure", "full", "--json")
    wait_for(lambda: any((tmp_path / "cache").glob("scratch/[0-9]*/*")))
    os.killpg(process.pid, number)  # as a terminal sends Ctrl-C to all in the foreground
    out, err = process.communicate(timeout=60)
    result = said(Ended(process.returncode, out, err), status)

    assert result["error"]["code"] == {130: "convkit.interrupted", 143: "convkit.terminated"}[status]
    assert list((tmp_path / "cache").glob("scratch/[0-9]*")) == []
    assert not (tmp_path / "models").exists()
    assert workers_of(tmp_path / "cache") == []


def wait_for(condition: Any) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.01)


def workers_of(cache: Path) -> list[int]:
    """Processes that have a file of the cache open or on their command line."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            opened = [str(each.readlink()) for each in (process / "fd").iterdir()]
        except OSError:
            continue
        if any(str(cache) in name for name in opened):
            found.append(int(process.name))
    return found


def test_an_unexpected_error_is_status_1_with_a_traceback_on_standard_error(convkit: Program, net: Path) -> None:
    broken = convkit.folder / "broken"
    broken.mkdir()
    (broken / "sitecustomize.py").write_text(
        "import convkit.request\n"
        "def fails(*a, **k):\n"
        "    raise ZeroDivisionError('planted')\n"
        "convkit.request.make_request = fails\n",
        encoding="utf-8",
    )
    path = os.pathsep.join([str(broken), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
    ended = convkit("convert", net, "--json", variables={"PYTHONPATH": path})

    assert ended.status == 1
    assert ended.result["error"]["code"] == "convkit.bug"
    assert "ZeroDivisionError: planted" in ended.result["error"]["message"]
    assert "Traceback" in ended.err


def test_a_reader_that_has_read_enough_is_no_error(convkit: Program, net: Path) -> None:
    process = convkit.start("convert", net, "--dry-run", "--json")
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    err = process.stderr.read()

    assert process.wait(120) == 0
    assert "Traceback" not in err
    assert "Exception ignored" not in err


def test_warnings_of_python_and_chatter_of_libraries_stay_off_standard_output(convkit: Program, net: Path) -> None:
    variables = {"PYTHONWARNINGS": "always", "PYTHONDEVMODE": "1", "ORT_LOGGING_LEVEL": "0"}
    ended = convkit("convert", net, "-o", "models", "--json", "--measure", "none", "--name", "n", variables=variables)

    said(ended, 0)
