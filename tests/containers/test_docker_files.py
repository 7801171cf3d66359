"""docker/: every file passes its own linter or schema, and what one says of the image is what the others say."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from containers.dockerfile import ROOT, Instruction, Stage, ignore_patterns, is_ignored, read_dockerfile
from convkit.serving.releases import release

DOCKER = ROOT / "docker"
DOCKERFILES = [*sorted(DOCKER.glob("*Dockerfile")), ROOT / "docs" / "examples" / "Dockerfile"]
CONVERT, SERVE = DOCKER / "convert.Dockerfile", DOCKER / "serve.Dockerfile"
VARIABLES = {"SOURCE_MODEL_PATH", "TARGET_MODEL_PATH", "MODEL_NAME", "MODEL_TYPE"}
PORTS = [8000, 8001, 8002]
"""HTTP, gRPC and metrics: Triton's own defaults."""
SCRATCH = {"/tmp", "/dev/shm"}


def hadolint(path: Path) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("hadolint")
    return subprocess.run([program, "--no-color", path], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_hadolint_has_nothing_to_say(path: Path) -> None:
    said = hadolint(path)

    assert (said.returncode, said.stdout) == (0, "")


def test_hadolint_would_have_something_to_say(tmp_path: Path) -> None:
    bad = tmp_path / "Dockerfile"
    bad.write_text("FROM python\nRUN cd /src && pip install convkit\n", encoding="utf-8")

    said = hadolint(bad)

    assert said.returncode == 1
    assert all(rule in said.stdout for rule in ("DL3006", "DL3003", "DL3013"))


@pytest.fixture(scope="module")
def validators(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the schemas of Kubernetes and of Compose, whose packages fit into no environment together."""
    folder = tmp_path_factory.mktemp("validators")
    packages = ["kubernetes-validate==1.37.0", "importlib-resources==7.1.0", "docker-compose==1.29.2"]
    pip = [sys.executable, "-m", "pip", "install", "-qq", "--disable-pip-version-check", "--no-deps", "--no-compile"]
    subprocess.run([*pip, "--target", folder, *packages], check=True)
    return folder


def test_kubernetes_takes_the_example(validators: Path, tmp_path: Path) -> None:
    program = validators / "bin" / "kubernetes-validate"
    text = (DOCKER / "kubernetes.yaml").read_text(encoding="utf-8")
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(text.replace("mountPath", "mountpath"), encoding="utf-8")

    for path, status in ((DOCKER / "kubernetes.yaml", 0), (wrong, 1)):
        said = subprocess.run(
            [sys.executable, program, "--strict", path],
            env={**os.environ, "PYTHONPATH": str(validators)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert bool(said.returncode) == bool(status), said.stdout + said.stderr


def test_compose_takes_the_example(validators: Path) -> None:
    (schema,) = validators.glob("compose/config/compose_spec.json")
    validator = jsonschema.Draft201909Validator(json.loads(schema.read_text(encoding="utf-8")))
    example = compose()

    assert [error.message for error in validator.iter_errors(example)] == []
    example["services"]["serve"]["health"] = "well"
    assert list(validator.iter_errors(example))


def compose() -> Any:
    return yaml.safe_load((DOCKER / "compose.yaml").read_text(encoding="utf-8"))


def kubernetes(kind: str) -> Any:
    text = (DOCKER / "kubernetes.yaml").read_text(encoding="utf-8")
    (found,) = [document for document in yaml.safe_load_all(text) if document["kind"] == kind]
    return found["spec"]


def pod() -> Any:
    return kubernetes("Deployment")["template"]["spec"]


def serve() -> Stage:
    return read_dockerfile(SERVE).final


@pytest.mark.parametrize("path", [CONVERT, SERVE], ids=lambda path: path.name)
def test_the_images_hold_the_tensorrt_that_their_triton_holds(path: Path) -> None:
    dockerfile = read_dockerfile(path)
    image = re.fullmatch(r"nvcr\.io/nvidia/tritonserver:(\d\d\.\d\d)-py3", dockerfile.arguments["TRITON"])
    assert image
    given = dict(each.text.partition("=")[::2] for each in dockerfile.final.all("ARG"))

    assert dockerfile.final.base == image[0]
    assert given["TENSORRT"] == release(image[1]).tensorrt
    assert {stage.base for stage in dockerfile.stages[:-1]} == {"python:3.11-slim"}


def test_both_images_are_made_from_the_same_convkit_and_the_same_triton() -> None:
    first, second = (read_dockerfile(path) for path in (CONVERT, SERVE))

    assert first.arguments == second.arguments
    assert first.stages[0] == second.stages[0]


def test_the_user_is_not_root_and_the_same_everywhere() -> None:
    user = serve().last("USER").text

    assert user == "1000:1000", "the user triton-server of the image"
    assert compose()["services"]["serve"]["user"] == user
    context = pod()["securityContext"]
    assert f"{context['runAsUser']}:{context['runAsGroup']}" == user
    assert context["runAsNonRoot"] is True
    assert context["fsGroup"] == context["runAsGroup"], "so that it can write into its volumes"


def test_the_ports_are_the_same_everywhere() -> None:
    (triton,) = pod()["containers"]
    named = {port["name"]: port["containerPort"] for port in triton["ports"]}

    assert [int(port) for port in serve().last("EXPOSE").text.split()] == PORTS
    assert compose()["services"]["serve"]["ports"] == [f"{port}:{port}" for port in PORTS]
    assert list(named.values()) == PORTS
    assert [named[port["targetPort"]] for port in kubernetes("Service")["ports"]] == PORTS
    assert {triton[f"{kind}Probe"]["httpGet"]["port"] for kind in ("startup", "readiness", "liveness")} == {"http"}


def test_every_probe_asks_whether_the_server_is_ready() -> None:
    health = serve().last("HEALTHCHECK")
    (triton,) = pod()["containers"]

    url = json.loads(health.text.removeprefix("CMD"))[-1]
    assert url == f"http://localhost:{PORTS[0]}/v2/health/ready"
    assert url.endswith(triton["readinessProbe"]["httpGet"]["path"])
    assert url.endswith(triton["startupProbe"]["httpGet"]["path"])
    assert triton["livenessProbe"]["httpGet"]["path"] == "/v2/health/live"
    assert health.flag("start-period") == "30m", "engines take their time"


def mounts(container: Any) -> dict[str, bool]:
    """Return where a container's volumes are mounted, and whether they can be written."""
    return {mount["mountPath"]: not mount.get("readOnly", False) for mount in container["volumeMounts"]}


def test_what_the_image_writes_are_volumes_and_the_rest_is_read_only() -> None:
    stage = serve()
    volumes = set(stage.last("VOLUME").words())
    service = compose()["services"]["serve"]
    (engines,), (triton,) = pod()["initContainers"], pod()["containers"]

    assert stage.last("ENV").text == "CONVKIT_CACHE_DIR=/cache"
    assert volumes == {"/cache", "/engines"}
    assert {volume.partition(":")[2] for volume in service["volumes"]} == volumes
    assert service["read_only"] is True
    assert set(service["tmpfs"]) == {"/tmp"}
    assert mounts(engines) == {"/cache": True, "/engines": True, "/tmp": True}
    assert mounts(triton) == {"/engines": False, "/tmp": True, "/dev/shm": True}
    for container in (engines, triton):
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"] is True
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}


def test_every_named_volume_is_declared_and_used() -> None:
    whole = compose()
    used = [volume.partition(":")[0] for service in whole["services"].values() for volume in service["volumes"]]
    declared = {volume["name"]: volume for volume in pod()["volumes"]}
    mounted = {
        mount["name"] for each in pod()["initContainers"] + pod()["containers"] for mount in each["volumeMounts"]
    }

    assert {name for name in used if re.fullmatch(r"[a-z-]+", name)} == set(whole["volumes"])
    assert mounted == set(declared)
    claim = declared["cache"]["persistentVolumeClaim"]["claimName"]
    assert f"name: {claim}\n" in (DOCKER / "kubernetes.yaml").read_text(encoding="utf-8")


def test_kubernetes_does_in_two_containers_what_the_image_does_in_one() -> None:
    stage = serve()
    (engines,), (triton,) = pod()["initContainers"], pod()["containers"]
    entrypoint, command = stage.last("ENTRYPOINT").words(), stage.last("CMD").words()

    built = [*engines["command"], *engines["args"]]
    served = [*triton["command"], *triton["args"]]
    assert [*built, "--exec", "tritonserver", "--"] == entrypoint
    assert [entrypoint[0], "tritonserver", *command] == served
    assert engines["image"] == triton["image"]
    assert engines["resources"] == triton["resources"], "the GPU that builds is like the one that serves"
    assert triton["resources"]["limits"]["nvidia.com/gpu"] == "1"
    labels = kubernetes("Deployment")["template"]["metadata"]["labels"]
    assert kubernetes("Service")["selector"] == kubernetes("Deployment")["selector"]["matchLabels"] == labels


def test_compose_builds_from_the_dockerfiles_and_names_the_four_variables() -> None:
    services = compose()["services"]

    for name, path in (("convert", CONVERT), ("serve", SERVE)):
        build = services[name]["build"]
        assert (DOCKER / build["context"]).resolve() == ROOT
        assert ROOT / build["dockerfile"] == path
    converter = services["convert"]
    assert set(converter["environment"]) == VARIABLES
    places = {volume.removesuffix(":ro").rpartition(":")[2] for volume in converter["volumes"]}
    assert {converter["environment"][name] for name in ("SOURCE_MODEL_PATH", "TARGET_MODEL_PATH")} < places
    assert set(read_dockerfile(CONVERT).final.last("VOLUME").words()) < places


@pytest.mark.parametrize(
    ("path", "kept_out"),
    [
        ("convkit/api.py", False),
        ("convkit/report/__pycache__/sheet.pyc", True),
        ("docker/convert.sh", False),
        ("constraints.txt", False),
        ("sample_models/digits_cnn/model.py", False),
        ("my/models/net.onnx", False),
        ("models/net/1/model.onnx", True),
        (".git/config", True),
        (".venv-triton/bin/python", True),
        ("convkit.egg-info/PKG-INFO", True),
        ("tests/conftest.py", True),
    ],
)
def test_the_context_holds_what_the_images_need(path: str, kept_out: bool) -> None:
    assert is_ignored(path, ignore_patterns()) is kept_out


def shown() -> list[list[str]]:
    """Return the commands of docs/docker.md that need Docker or a cluster, as words."""
    text = (ROOT / "docs" / "docker.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```console\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [shlex.split(line.removeprefix("$ ")) for line in re.sub(r"\\\n\s*", "", "".join(blocks)).splitlines()]


def after(words: list[str], option: str) -> list[str]:
    return [word for before, word in pairwise(words) if before == option]


def test_the_page_builds_what_is_there_with_arguments_that_are_there() -> None:
    builds = [words for words in shown() if words[:2] == ["docker", "build"]]

    assert [after(words, "-f") for words in builds] == [["docker/convert.Dockerfile"], ["docker/serve.Dockerfile"]]
    page = (ROOT / "docs" / "docker.md").read_text(encoding="utf-8")
    named = set(re.findall(r"--build-arg (\w+)=", page))
    known = {each.text.partition("=")[0] for path in (CONVERT, SERVE) for each in all_arguments(path)}
    assert {"TRITON", "TENSORRT", "MODEL", "NAME"} <= named <= known | {"TRITON"}


def all_arguments(path: Path) -> list[Instruction]:
    return [each for stage in read_dockerfile(path).stages for each in stage.all("ARG")]


def test_the_page_runs_the_images_as_they_are() -> None:
    runs = [words for words in shown() if words[:2] == ["docker", "run"]]
    converter, server = runs
    stage = serve()

    assert {word.partition("=")[0] for word in after(converter, "-e")} == VARIABLES
    assert {volume.partition(":")[2] for volume in after(server, "-v")} == set(stage.last("VOLUME").words())
    assert set(after(server, "-p")) <= {f"{port}:{port}" for port in PORTS}
    (started,) = [words for words in shown() if words[0] == "convkit"]
    entrypoint = [*stage.last("ENTRYPOINT").words(), *stage.last("CMD").words()]
    assert ["/opt/nvidia/nvidia_entrypoint.sh", f"/opt/convkit/bin/{started[0]}", *started[1:]] == entrypoint


def test_the_page_names_services_and_files_that_are_there() -> None:
    services = compose()["services"]

    for words in shown():
        assert all((ROOT / path).is_file() for path in after(words, "-f")), words
        if words[:2] == ["docker", "compose"]:
            assert words[-1] in services
