"""A Dockerfile read, and as much of it done as can be done without Docker: in folders, not in containers.

The stages' file systems are folders; a path of the container is the same path below its stage's folder. RUN is run by
the host's shell with such paths in place of the container's own, COPY and ENV and ARG are done as they stand there, and
what an image would start is returned as the words of its command. Users, mounts and networks are not made.
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]

_HOSTS_OWN = ("bin", "dev", "etc", "proc", "usr")
_ABSOLUTE = re.compile(r"(?<![\w./:}$])/(?=[\w.])([\w.]+)")
_FLAG = re.compile(r"--([a-z-]+)=(\S+)\s+")


class Instruction(NamedTuple):
    """One instruction: its keyword, its flags in order, and the rest on one line."""

    keyword: str
    flags: tuple[tuple[str, str], ...]
    text: str

    def words(self) -> list[str]:
        """Return what the exec form lists.

        Raises:
            json.JSONDecodeError: it is the shell form.
        """
        found: list[str] = json.loads(self.text)
        return found

    def flag(self, name: str) -> str | None:
        return dict(self.flags).get(name)


class Stage(NamedTuple):
    """The instructions from one FROM to the next."""

    name: str
    base: str
    instructions: tuple[Instruction, ...]

    def all(self, keyword: str) -> list[Instruction]:
        return [each for each in self.instructions if each.keyword == keyword]

    def last(self, keyword: str) -> Instruction:
        return self.all(keyword)[-1]


class Dockerfile(NamedTuple):
    """A Dockerfile's stages, and the defaults of the arguments before the first."""

    arguments: dict[str, str]
    stages: tuple[Stage, ...]

    @property
    def final(self) -> Stage:
        """The stage that is the image."""
        return self.stages[-1]


def read_dockerfile(path: Path) -> Dockerfile:
    """Read a Dockerfile. Comments go, continued lines become one."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.lstrip().startswith("#")]
    whole = re.sub(r"\\\n\s*", "", "\n".join(lines))
    arguments: dict[str, str] = {}
    stages: list[Stage] = []
    for line in filter(None, map(str.strip, whole.splitlines())):
        instruction = _instruction(line)
        if instruction.keyword == "FROM":
            base, _, name = instruction.text.partition(" AS ")
            stages.append(Stage(name or f"stage-{len(stages)}", _expanded(base, arguments), ()))
        elif not stages:
            name, _, value = instruction.text.partition("=")
            arguments[name] = value
        else:
            stages[-1] = stages[-1]._replace(instructions=(*stages[-1].instructions, instruction))
    return Dockerfile(arguments, tuple(stages))


def _instruction(line: str) -> Instruction:
    keyword, _, rest = line.partition(" ")
    flags = []
    while match := _FLAG.match(rest.lstrip()):
        flags.append((match[1], match[2]))
        rest = rest.lstrip()[match.end() :]
    return Instruction(keyword.upper(), tuple(flags), rest.strip())


def _expanded(text: str, variables: Mapping[str, str]) -> str:
    return re.sub(r"\$\{(\w+)\}", lambda match: variables[match[1]], text)


def is_ignored(path: str, patterns: list[str]) -> bool:
    """Tell whether .dockerignore keeps a file of the context, or a folder above it, from docker build."""
    parts = path.split("/")
    for pattern in patterns:
        rooted = pattern.lstrip("/").removeprefix("**/")
        anywhere = pattern.startswith("**/")
        for end in range(1, len(parts) + 1):
            candidate = parts[end - 1] if anywhere else "/".join(parts[:end])
            if fnmatch.fnmatchcase(candidate, rooted) and (anywhere or candidate.count("/") == rooted.count("/")):
                return True
    return False


def ignore_patterns() -> list[str]:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


class Image:
    """A stage being made: its folder, and its variables."""

    def __init__(self, folder: Path, base: str) -> None:
        self.folder = folder
        self.base = base
        self.variables: dict[str, str] = {}
        self.build_variables: dict[str, str] = {}
        self.folder.mkdir(parents=True, exist_ok=True)

    def path(self, inside: str) -> Path:
        """Return where a path of the container is."""
        return self.folder / inside.lstrip("/")

    def outside(self, text: str) -> str:
        """Return a text with its absolute paths, except those of the host's own programs, below the stage's folder."""
        return _ABSOLUTE.sub(lambda match: match[0] if match[1] in _HOSTS_OWN else f"{self.folder}/{match[1]}", text)

    def environment(self, **more: str) -> dict[str, str]:
        """Return the variables of a process in the container, with the stage's own Python first on the path."""
        drop = ("CONVKIT_", "PYTHON", "SOURCE_", "TARGET_", "MODEL_", "VIRTUAL_ENV")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(drop)}
        path = os.pathsep.join([str(self.folder / "python" / "bin"), kept["PATH"]])
        inside = {name: self.outside(value) for name, value in {**self.variables, **more}.items()}
        return {**kept, "PATH": path, "TMPDIR": str(self.tmp()), **inside}

    def tmp(self) -> Path:
        folder = self.folder / "tmp"
        folder.mkdir(exist_ok=True)
        return folder

    def start(self, words: list[str], **variables: str) -> subprocess.Popen[str]:
        """Start a command as the container would."""
        return subprocess.Popen(
            [self.outside(word) for word in words],
            env=self.environment(**variables),
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, words: list[str], **variables: str) -> tuple[int, str, str]:
        """Run a command as the container would; return its exit status and what it said."""
        process = self.start(words, **variables)
        stdout, stderr = process.communicate(timeout=600)
        return process.returncode, stdout, stderr


def build(
    dockerfile: Dockerfile,
    folder: Path,
    *,
    python: Callable[[Path], None],
    skip: Callable[[str], bool] = lambda text: False,
    context: Path = ROOT,
    **arguments: str,
) -> Image:
    """Do what can be done of a Dockerfile; return the last stage.

    Args:
        dockerfile: what is to be done.
        folder: where the stages' folders go.
        python: makes the environment that stands in for a base image's own Python, in the folder that it is given.
        skip: tells which RUN is to be left out, by its text.
        context: the build's context.
        arguments: --build-arg.
    """
    images: dict[str, Image] = {}
    for stage in dockerfile.stages:
        image = images[stage.name] = Image(folder / stage.name, stage.base)
        python(image.folder / "python")
        for instruction in stage.instructions:
            _do(instruction, image, images, context, skip, arguments)
    return images[dockerfile.final.name]


def _do(
    instruction: Instruction,
    image: Image,
    images: Mapping[str, Image],
    context: Path,
    skip: Callable[[str], bool],
    arguments: Mapping[str, str],
) -> None:
    known = {**image.build_variables, **image.variables}
    match instruction.keyword:
        case "ARG":
            name, _, value = instruction.text.partition("=")
            image.build_variables[name] = arguments.get(name, value)
        case "ENV":
            name, _, value = instruction.text.partition("=")
            image.variables[name] = _expanded(value, known)
        case "COPY":
            _copy(instruction, image, images, context, known)
        case "RUN" if not skip(instruction.text):
            _run(instruction, image)
        case "VOLUME":
            for inside in instruction.words():
                assert image.path(inside).is_dir(), f"VOLUME {inside}: it is not made by the image"
        case "RUN" | "USER" | "EXPOSE" | "HEALTHCHECK" | "ENTRYPOINT" | "CMD":
            pass
        case keyword:
            raise AssertionError(f"nobody has taught this test what {keyword} does")


def _copy(
    instruction: Instruction, image: Image, images: Mapping[str, Image], context: Path, known: Mapping[str, str]
) -> None:
    *sources, target = _expanded(instruction.text, known).split()
    origin = instruction.flag("from")
    patterns = ignore_patterns()
    for name in sources:
        source = images[origin].path(name) if origin else context / name
        place = image.path(target)
        assert source.exists(), f"COPY {name}: it is not there"
        assert origin or not is_ignored(name, patterns), f"COPY {name}: .dockerignore keeps it out"
        if source.is_dir():

            def ignored(at: str, names: list[str], origin: str | None = origin) -> set[str]:
                if origin:
                    return set()
                return {
                    each for each in names if is_ignored((Path(at) / each).relative_to(context).as_posix(), patterns)
                }

            shutil.copytree(source, place, ignore=ignored, dirs_exist_ok=True)
        else:
            place = place / source.name if target.endswith("/") else place
            place.parent.mkdir(parents=True, exist_ok=True)
            text = source.read_bytes()
            if text.startswith(b"#!"):  # a script of the image: it names the image's own paths
                text = image.outside(text.decode()).encode()
            place.write_bytes(text)
            place.chmod(int(instruction.flag("chmod") or "644", 8))


def _run(instruction: Instruction, image: Image) -> None:
    for flag, value in instruction.flags:
        mount = dict(part.partition("=")[::2] for part in value.split(","))
        assert (flag, mount["type"]) == ("mount", "cache"), f"RUN --{flag}={value}"
        image.path(mount["target"]).mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        ["/bin/sh", "-ec", image.outside(instruction.text)],
        env=image.environment(**image.build_variables),
        cwd=image.folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"RUN {instruction.text}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"


def fresh_python(folder: Path) -> None:
    """Make an environment with nothing but pip, as python:3.11-slim's."""
    venv.create(folder, with_pip=True)


def python_of_the_tests(folder: Path) -> None:
    """Stand in with the environment that the tests run in, convkit installed."""
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "convkit").symlink_to(Path(sys.executable).with_name("convkit"))
