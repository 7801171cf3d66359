"""What the author of a source for convkit calls in their own tests, to see that it does what convkit relies on.

    import pytest
    from convkit.testing import SOURCE_CHECKS

    @pytest.mark.parametrize("check", SOURCE_CHECKS, ids=lambda check: check.__name__)
    def test_my_source_is_one(check, tmp_path):
        check("my-source", Path("tests/small.mine"), tmp_path)

Each check takes the source's name, a small model of its kind (alone in a folder with what belongs to it, such as
config.txt) and an empty folder, and raises an AssertionError that says what is wrong. They need `convkit[onnx]`, and
what the source needs.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from convkit.conversion import convert
from convkit.errors import ConvkitError
from convkit.pipeline.artifact import Artifact
from convkit.pipeline.cache import Cache
from convkit.pipeline.events import nobody
from convkit.pipeline.runner import Contender, Runner
from convkit.report.document import Report, Status
from convkit.request import make_request
from convkit.sources.find import find_model
from convkit.sources.source import GROUP, OtherSource, open_other
from convkit.sources.trust import TRUST_ALL
from convkit.spec.entry_points import load
from convkit.spec.metadata import read_metadata
from convkit.spec.options import ExportOptions

_HEAVY = ("numpy", "onnx", "onnxruntime", "torch", "tensorflow", "tensorrt", "sklearn")
_OPSETS = (17, 21)


def its_files_are_found(name: str, example: Path, folder: Path) -> None:
    """The entry point gives a class with a name and endings, and its files are known by them."""
    kind = load(GROUP, name)
    assert kind.name == name, f"the entry point is called '{name}', the source says '{kind.name}'"
    assert kind.endings, "it has no endings"
    for ending in kind.endings:
        assert ending.startswith("."), f"the ending {ending!r} has no dot in front"
        file = folder / f"some{ending}"
        file.touch()
        found = find_model(file)
        assert found.framework == name, f"'{ending}' is convkit's own: {found.written_by} would open such a file"
        assert found.name == "some", f"a file some{ending} would be called '{found.name}'"
    assert find_model(example).framework == name, f"{example} has none of its endings"


def it_says_what_it_is(name: str, example: Path, folder: Path) -> None:
    """Opening a model gives every attribute of a source, and runs nothing."""
    del folder
    source = _opened(name, example)
    for attribute, kind in {"environment": str, "kind": str, "files": Artifact}.items():
        value = getattr(source, attribute, ...)
        assert isinstance(value, kind), f"{attribute} is {value!r}, and should be of the type {kind.__name__}"
    assert example.name in source.files.files, f"files has not {example.name}: a change of it would go unnoticed"
    for file in source.untrusted:
        assert file.runs, f"untrusted: {file.path} does not say what it runs"


def opening_it_loads_nothing_heavy(name: str, example: Path, folder: Path) -> None:
    """Looking into a model imports no framework: heavy libraries are imported inside steps."""
    program = (
        "import sys; from pathlib import Path; from convkit.source_testing import _opened; "
        f"_opened({name!r}, Path({str(example.absolute())!r}))"
    )
    loads_nothing_heavy(program, folder, what="opening a model")


def loads_nothing_heavy(program: str, folder: Path, *, what: str) -> None:
    """Run a line of Python that has imported `sys` in a process of its own, and see that it imports no framework."""
    told = f"sys.stderr.write(' '.join(set({_HEAVY}) & set(sys.modules)))"
    environment = {"PYTHONPATH": ":".join(entry for entry in sys.path if entry)}
    done = subprocess.run(
        [sys.executable, "-c", f"{program}; {told}"],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr, f"{what} loads {done.stderr}"


def it_converts_and_does_nothing_twice(name: str, example: Path, folder: Path) -> None:
    """The model is converted with its framework's answers; the same again, without memory too, gives the same bytes."""
    del name
    report = _converted(example, folder / "models", cache=folder / "cache")
    assert report.status is Status.OK
    published = _files(folder / "models")
    again = _converted(example, folder / "models", cache=folder / "cache")
    assert again.status is Status.UNCHANGED, "the same again was published as another version"
    assert _files(folder / "models") == published, "the same again changed files"
    ran = [stage.title for stage in again.stages if not stage.cached and stage.name not in ("publish", "measure")]
    assert not ran, f"these ran again: {', '.join(ran)}"
    _converted(example, folder / "others", cache=folder / "empty")
    for path in published:
        other = folder / "others" / path.relative_to(folder / "models")
        if path.suffix == ".onnx":
            assert other.read_bytes() == published[path], f"{path.name} is another one when it is made again"


def it_writes_what_the_server_reads(name: str, example: Path, folder: Path) -> None:
    """The graph's opset is at most the one that `export` is given."""
    import onnx

    source = _opened(name, example)
    for opset in _OPSETS:
        with Runner(Cache(folder / str(opset)), nobody) as run:
            exported = source.export(run, samples=None, max_opset=opset)
            proto = onnx.load(str(exported.model.path), load_external_data=False)
        written = {entry.domain: entry.version for entry in proto.opset_import}
        assert written[""] <= opset, f"opset {written['']} was written where the server reads {opset} at most"


def a_change_of_the_model_is_noticed(name: str, example: Path, folder: Path) -> None:
    """A file with other bytes is another source, and one in another folder the same."""
    copy = _copied(example, folder / "copy")
    same, before = _opened(name, copy).files.digest, _opened(name, example).files.digest
    assert same == before, "the digest of `files` depends on where the model lies"
    with copy.open("ab") as file:
        file.write(b"\n")
    assert _opened(name, copy).files.digest != before, "a change of the model does not change the digest of `files`"


def what_is_no_model_is_refused_politely(name: str, example: Path, folder: Path) -> None:
    """An empty file, half a file and something else are refused with a hint; nothing is published."""
    del name
    whole = example.read_bytes()
    for what, content in (("an empty file", b""), ("half a file", whole[: len(whole) // 2]), ("noise", bytes(999))):
        copy = _copied(example, folder / what)
        copy.write_bytes(content)
        error = _refusal(copy, folder / "models", cache=folder / "cache")
        if what != "half a file":  # not every format can tell
            assert error is not None, f"{what} was converted"
        if error is not None:
            assert error.code != "step.failed", f"{what}: {error.message}"
            assert error.hint, f"{what} is refused without a hint: {error.message}"
            assert not _files(folder / "models"), f"{what} was published"


def it_is_timed_or_says_that_it_cannot_be(name: str, example: Path, folder: Path) -> None:
    """`contender` gives what times the model in its own framework, or None."""
    source = _opened(name, example)
    with Runner(Cache(folder / "cache"), nobody) as run:
        contender = source.contender(source.export(run, samples=None, max_opset=_OPSETS[-1]), seconds=0.01)
        if contender is None:
            return
        assert isinstance(contender, Contender), f"contender gives {contender!r}"
        ((timing,),) = run.alternate([contender], rounds=1, title="Time it")
    assert min(timing.latencies_ns) > 0, "a call took no time"


SOURCE_CHECKS: tuple[Callable[[str, Path, Path], None], ...] = (
    its_files_are_found,
    it_says_what_it_is,
    opening_it_loads_nothing_heavy,
    it_converts_and_does_nothing_twice,
    it_writes_what_the_server_reads,
    a_change_of_the_model_is_noticed,
    what_is_no_model_is_refused_politely,
    it_is_timed_or_says_that_it_cannot_be,
)
"""Everything that a source has to pass."""


def _opened(name: str, example: Path) -> OtherSource:
    found = find_model(example)
    assert found.framework == name, f"{example} has none of its endings"
    return open_other(found, read_metadata(Path(found.config)) if found.config else None, ExportOptions())


def _copied(example: Path, folder: Path) -> Path:
    """Copy the example with what lies beside it."""
    shutil.copytree(example.parent, folder)
    return folder / example.name


def _converted(example: Path, output: Path, *, cache: Path) -> Report:
    arguments = {"model": str(example), "output": str(output), "trust": [TRUST_ALL], "measure": {"mode": "none"}}
    return convert(make_request(arguments, environment={}), cache=Cache(cache))


def _refusal(example: Path, output: Path, *, cache: Path) -> ConvkitError | None:
    try:
        _converted(example, output, cache=cache)
    except ConvkitError as error:
        return error
    return None


def _files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
