"""The images' steps, done in folders: what a user of dl_inference gets from the one, and a server from the other.

Here convkit is the one that the tests run; `make soak` installs it as the Dockerfiles do, into fresh environments.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from e2e.networks import write_scale
from e2e.published import files_below, hold_config_to_model, read_config
from nobody import as_nobody, needs_root, open_to_all
from triton_server.server import installation, lay_out_backends

from containers.dockerfile import ROOT, Image, build, fresh_python, python_of_the_tests, read_dockerfile
from convkit.building import build as build_engines
from convkit.pipeline.cache import Cache

SAMPLES = ROOT / "sample_models"
CONVERT, SERVE = (read_dockerfile(ROOT / "docker" / f"{name}.Dockerfile") for name in ("convert", "serve"))
MISSING = 6
"""convkit's exit status where something is missing on this machine: here TensorRT and a GPU."""


def installs(text: str) -> bool:
    return "pip" in text


def with_convkit_of_the_tests(image: Image) -> Image:
    program = image.path("/opt/convkit/bin/convkit")
    program.parent.mkdir(parents=True, exist_ok=True)
    program.symlink_to(Path(sys.executable).with_name("convkit"))
    return image


@pytest.fixture(scope="module")
def converter(tmp_path_factory: pytest.TempPathFactory) -> Image:
    """The image in place of tis-model-convert, its packages those of the tests."""
    folder = tmp_path_factory.mktemp("converter") / "stages"
    (folder / "wheel" / "wheels").mkdir(parents=True)
    return with_convkit_of_the_tests(build(CONVERT, folder, python=python_of_the_tests, skip=installs))


def run_as_dl_inference(
    image: Image, source: Path, target: Path, kind: str, *arguments: str, **more: str
) -> tuple[int, str, str]:
    """Run the converter as `docker run -v FOLDER:/workspace/source_model -e ... tis-model-convert` does."""
    workspace = image.path("/workspace")
    workspace.mkdir(exist_ok=True)
    mounted = {"/workspace/source_model": source, "/workspace/target_model": target}
    for inside, folder in mounted.items():
        image.path(inside).unlink(missing_ok=True)
        image.path(inside).symlink_to(folder)
    return image.run(
        [*CONVERT.final.last("ENTRYPOINT").words(), *arguments],
        SOURCE_MODEL_PATH="/workspace/source_model",
        TARGET_MODEL_PATH="/workspace/source_model" if source == target else "/workspace/target_model",
        MODEL_NAME="digits-666",
        MODEL_TYPE=kind,
        **more,
    )


def test_the_converter_takes_dl_inferences_folder_and_leaves_its_files_there(converter: Image, tmp_path: Path) -> None:
    folder = tmp_path / "source_model"
    shutil.copytree(SAMPLES / "digits_cnn", folder)
    before = files_below(folder)

    status, _, stderr = run_as_dl_inference(converter, folder, folder, "pytorch", "--measure", "none")

    assert status == 0, stderr
    assert_as_dl_inference_left_it(folder, before, ("image", "logits"), batch=8)


def assert_as_dl_inference_left_it(folder: Path, before: dict[str, str], names: tuple[str, str], *, batch: int) -> None:
    """See that source and target in one folder hold what they held, and NAME/config.pbtxt and version 1 beside it."""
    after = files_below(folder)
    model = folder / "digits-666"
    assert {name: after[name] for name in before} == before
    assert {name.partition("/")[0] for name in after.keys() - before.keys()} == {"digits-666"}
    config = read_config(model / "config.pbtxt")
    assert config.name == "digits-666"
    assert config.default_model_filename == "model.plan"
    assert (config.input[0].name, config.output[0].name) == names
    assert config.max_batch_size == batch
    hold_config_to_model(config, model / "pending" / "1" / "model.onnx")


def test_a_conversion_that_fails_leaves_an_exit_status_and_no_model(converter: Image, tmp_path: Path) -> None:
    source, target = write_scale(tmp_path / "source"), tmp_path / "target"
    target.mkdir()

    status, _, stderr = run_as_dl_inference(converter, source, target, "tensorflow")

    assert status == 3
    assert "MODEL_TYPE" in stderr or "tensorflow" in stderr
    assert list(target.iterdir()) == []


def test_the_code_beside_the_model_is_refused_where_the_image_is_told_so(converter: Image, tmp_path: Path) -> None:
    source, target = write_scale(tmp_path / "source"), tmp_path / "target"
    target.mkdir()

    status, _, stderr = run_as_dl_inference(converter, source, target, "pytorch", CONVKIT_TRUST="0")

    assert status == 3
    assert "--trust" in stderr
    assert list(target.iterdir()) == []


@needs_root
@pytest.mark.parametrize("made", [True, False], ids=["a folder", "a folder to be made"])
def test_a_container_started_by_root_works_as_the_owner_of_the_target(converter: Image, made: bool) -> None:
    """The program that stands in for convkit notes who runs it, since that user may not be let near the tests' own."""
    program = converter.path("/opt/convkit/bin/convkit")
    real = program.readlink()
    program.unlink()
    program.write_text('#!/bin/sh\necho "$(id -u):$(id -g):$(id -G) $HOME $CONVKIT_CACHE_DIR $*"\n', encoding="utf-8")
    program.chmod(0o755)
    mount = converter.path("/mount")
    mount.mkdir(exist_ok=True)
    os.chown(mount, 1234, 4321)
    open_to_all(program.parent)

    status, stdout, stderr = converter.run(
        [*CONVERT.final.last("ENTRYPOINT").words(), "--quantize", "fp16"],
        TARGET_MODEL_PATH="/mount" if made else "/mount/to/be/made",
    )
    program.unlink()
    program.symlink_to(real)

    assert status == 0, stderr
    places = f"{converter.path('/tmp')} {converter.path('/cache/1234')}"
    assert stdout == f"1234:4321:4321 {places} convert --quantize fp16\n"


@pytest.fixture(scope="module")
def built_server(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folders of the Triton image with the example's model, its packages those of the tests."""
    folder = tmp_path_factory.mktemp("server") / "stages"
    (folder / "wheel" / "wheels").mkdir(parents=True)
    return with_convkit_of_the_tests(build(SERVE, folder, python=python_of_the_tests, skip=installs)).folder


@pytest.fixture
def server(built_server: Path, tmp_path: Path) -> Image:
    """One container of that image."""
    image = Image(tmp_path / "container", SERVE.final.base)
    shutil.copytree(built_server, image.folder, symlinks=True, dirs_exist_ok=True)
    image.variables = {each.text.partition("=")[0]: each.text.partition("=")[2] for each in SERVE.final.all("ENV")}
    return image


@pytest.fixture(scope="module")
def for_onnx_runtime(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with the example's model for ONNX Runtime, where nothing waits for a GPU."""
    folder = tmp_path_factory.mktemp("onnxruntime")
    program = Path(sys.executable).with_name("convkit")
    arguments = ["--trust", "--measure", "none", "--output", folder / "models"]
    environment = {**os.environ, "CONVKIT_CACHE_DIR": str(folder / "cache")}
    subprocess.run([program, "convert", SAMPLES / "digits_cnn", *arguments], env=environment, check=True)
    return folder / "models"


def put_into(image: Image, repository: Path) -> None:
    """Serve another repository, as a volume over the image's own."""
    shutil.rmtree(image.path("/models"))
    shutil.copytree(repository, image.path("/models"))


ENTRY = [*SERVE.final.last("ENTRYPOINT").words()[1:], *SERVE.final.last("CMD").words()]
"""What the image starts, without NVIDIA's own entrypoint, which is in the base image."""


def test_the_server_image_holds_the_converted_model_and_its_pending_engine(server: Image) -> None:
    model = server.path("/models/digits_cnn")

    assert sorted(path.name for path in server.path("/models").iterdir()) == ["digits_cnn"]
    hold_config_to_model(read_config(model / "config.pbtxt"), model / "pending" / "1" / "model.onnx")


def a_server(image: Image) -> Path:
    """Lay a program called tritonserver on the image's path, which notes its arguments; return where it notes them."""
    program = image.path("/python/bin/tritonserver")
    notes = image.path("/tmp/started")
    notes.unlink(missing_ok=True)
    program.write_text(f'#!/bin/sh\necho "$@" > {notes}\nexec sleep 600\n', encoding="utf-8")
    program.chmod(0o755)
    return notes


def words_of(process: int) -> list[str]:
    """Return the command line of a process."""
    return Path(f"/proc/{process}/cmdline").read_text(encoding="utf-8").split("\0")


def test_without_a_gpu_the_server_is_not_started_and_what_is_missing_is_said(server: Image) -> None:
    notes = a_server(server)

    status, _, stderr = server.run(ENTRY)

    assert status == MISSING
    assert "TensorRT" in stderr
    assert not notes.exists()
    assert server.path("/models/digits_cnn/pending/1/model.onnx").is_file()


def test_where_nothing_is_pending_the_server_takes_the_place_of_convkit_and_is_told_to_stop(
    server: Image, for_onnx_runtime: Path
) -> None:
    notes = a_server(server)
    put_into(server, for_onnx_runtime)
    before = files_below(server.folder)

    process = server.start(ENTRY)
    deadline = time.monotonic() + 60
    while "sleep" not in (command := words_of(process.pid)) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    process.terminate()
    process.communicate(timeout=60)

    assert notes.read_text(encoding="utf-8").split() == [f"--model-repository={server.path('/engines')}"]
    assert "sleep" in command, "the process that Docker started is the server now"
    assert process.returncode == -signal.SIGTERM
    assert server.path("/engines/digits_cnn/1/model.onnx").is_file()
    changed = {name for name, digest in files_below(server.folder).items() if before.get(name) != digest}
    assert {name.partition("/")[0] for name in changed} <= {"cache", "engines", "tmp"}, "the rest may be read-only"


@needs_root
def test_the_images_user_can_write_into_its_volumes(server: Image, for_onnx_runtime: Path) -> None:
    user = int(SERVE.final.last("USER").text.partition(":")[0])
    put_into(server, for_onnx_runtime)
    open_to_all(server.path("/models"))

    def finish(engines: Path) -> None:
        build_engines(server.path("/models"), everything=True, into=engines, cache=Cache(server.path("/cache")))

    finish(server.path("/tmp/imported-while-root"))
    raised = as_nobody(lambda: finish(server.path("/engines")), user=user)

    assert raised is None
    assert {path.stat().st_uid for path in server.path("/engines").rglob("*")} == {user}
    assert server.path("/engines/digits_cnn/config.pbtxt").is_file()


@pytest.mark.triton
def test_a_real_server_is_healthy_by_the_images_own_check_and_stops_by_itself_when_docker_says_so(
    server: Image, for_onnx_runtime: Path
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    prefix = the_real_server(server, port)
    put_into(server, for_onnx_runtime)
    check = json.loads(SERVE.final.last("HEALTHCHECK").text.removeprefix("CMD"))
    check[-1] = check[-1].replace(":8000/", f":{port}/")

    assert server.run(check)[0] != 0, "nothing answers yet"
    process = server.start(ENTRY)
    try:
        deadline = time.monotonic() + 90
        while (healthy := server.run(check)[0] == 0) is False and time.monotonic() < deadline:
            assert process.poll() is None, process.communicate()[1][-4000:]
            time.sleep(0.2)
        process.terminate()
        _, stderr = process.communicate(timeout=60)
    finally:
        process.kill()
        for left in Path("/dev/shm").glob(f"{prefix}*"):
            left.unlink(missing_ok=True)

    assert healthy
    assert process.returncode == 0, stderr
    assert "Timeout" in stderr or "Signal (15) received" in stderr


def the_real_server(image: Image, port: int) -> str:
    """Lay Triton on the image's path, with ONNX Runtime's backend; return the prefix of its shared memory."""
    found = installation()
    lay_out_backends(image.path("/opt/tritonserver/backends"), found, ("onnxruntime",))
    prefix = f"convkit_docker_{port}_"
    options = [
        f"--backend-directory={image.path('/opt/tritonserver/backends')}",
        f"--backend-config=python,shm-region-prefix-name={prefix}",
        *("--http-address=127.0.0.1", f"--http-port={port}"),
        *("--allow-grpc=false", "--allow-metrics=false", "--exit-timeout-secs=5"),
    ]
    exports = [f"export {name}='{found.variables()[name]}'" for name in ("PATH", "LD_LIBRARY_PATH")]
    program = image.path("/python/bin/tritonserver")
    program.write_text(
        "\n".join(["#!/bin/sh", *exports, f'exec {found.server} "$@" {" ".join(options)}', ""]), encoding="utf-8"
    )
    program.chmod(0o755)
    return prefix


@pytest.mark.soak
@pytest.mark.parametrize(
    ("sample", "kind", "names"),
    [("digits_cnn", "pytorch", ("image", "logits")), ("digits_keras", "tensorflow", None)],
)
def test_installed_as_the_dockerfile_does_the_converter_does_what_dl_inferences_did(
    installed: Image, tmp_path: Path, sample: str, kind: str, names: tuple[str, str] | None
) -> None:
    folder = tmp_path / "source_model"
    shutil.copytree(SAMPLES / sample, folder)
    before = files_below(folder)
    config = json.loads((folder / "config.txt").read_text(encoding="utf-8"))

    status, _, stderr = run_as_dl_inference(installed, folder, folder, kind)

    assert status == 0, stderr
    wire = (config["input"][0]["node_name"], config["output"][0]["node_name"])
    assert names in (None, wire)
    assert_as_dl_inference_left_it(folder, before, wire, batch=config["batch_size"])


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Image:
    """The converter on a base image without TensorRT, everything installed as the Dockerfile says."""
    return build(CONVERT, tmp_path_factory.mktemp("installed"), python=fresh_python, TENSORRT="")


@pytest.mark.soak
def test_installed_as_the_dockerfile_does_the_server_image_holds_the_model_and_asks_for_a_gpu(tmp_path: Path) -> None:
    image = build(SERVE, tmp_path, python=fresh_python)
    notes = a_server(image)

    status, _, stderr = image.run(ENTRY)

    model = image.path("/models/digits_cnn")
    hold_config_to_model(read_config(model / "config.pbtxt"), model / "pending" / "1" / "model.onnx")
    assert status == MISSING, stderr
    assert not notes.exists()
    listed = subprocess.run(
        [image.path("/opt/convkit/bin/python"), "-c", INSTALLED], capture_output=True, text=True, check=True
    ).stdout.split()
    assert {"convkit", "tensorrt-cu13-bindings"} <= set(listed)
    assert set(listed).isdisjoint({"torch", "onnx", "onnxruntime", "tensorflow-cpu"}), "the light core is enough"


INSTALLED = "import importlib.metadata as m;print(*(d.name.lower().replace('_', '-') for d in m.distributions()))"
