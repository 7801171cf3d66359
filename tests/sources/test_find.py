"""MODEL is looked at as dl_inference did: a file, or the one model anywhere below a folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from nobody import as_nobody, needs_root, open_to_all

from convkit.errors import InputError, UsageError
from convkit.sources.find import Framework, find_model, plain_name


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    return folder


@pytest.mark.parametrize(
    ("file", "framework", "name"),
    [
        ("resnet/model.pth", Framework.PYTORCH, "resnet"),
        ("resnet/resnet50.pth", Framework.PYTORCH, "resnet50"),
        ("resnet/net.pt", Framework.PYTORCH, "net"),
        ("resnet/net.onnx", Framework.ONNX, "net"),
        ("resnet/saved_model.pb", Framework.TENSORFLOW, "resnet"),
        ("resnet/model.keras", Framework.TENSORFLOW, "resnet"),
        ("resnet/net.h5", Framework.TENSORFLOW, "net"),
        ("resnet/frozen.pb", Framework.TENSORFLOW, "frozen"),
    ],
)
def test_a_file_is_known_by_its_ending_and_named_after_itself_or_its_folder(
    file: str, framework: Framework, name: str, tmp_path: Path
) -> None:
    found = find_model(touch(tmp_path, file) / file)

    assert (found.framework, found.name, found.path) == (framework, name, tmp_path / file)


def test_a_folder_is_searched_downwards_and_gives_its_own_name(tmp_path: Path) -> None:
    touch(tmp_path / "net", "a/b/saved_model.pb", "a/b/variables/variables.index", "readme.txt")
    found = find_model(tmp_path / "net")

    assert (found.framework, found.name, found.path) == (
        Framework.TENSORFLOW,
        "net",
        tmp_path / "net/a/b/saved_model.pb",
    )


def test_the_nearest_model_is_taken(tmp_path: Path) -> None:
    touch(tmp_path, "model.pth", "old/model.pth", "old/other.onnx")

    assert find_model(tmp_path).path == tmp_path / "model.pth"


def test_a_model_pth_is_preferred_to_other_files_beside_it(tmp_path: Path) -> None:
    touch(tmp_path, "model.pth", "exported.onnx", "epoch3.pth")

    assert find_model(tmp_path).path == tmp_path / "model.pth"


@pytest.mark.parametrize("names", [("a.onnx", "b.onnx"), ("one/a.pth", "two/b.pth"), ("model.pth", "saved_model.pb")])
def test_two_models_as_near_are_refused_with_their_names(names: tuple[str, ...], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds 2 models") as refused:
        find_model(touch(tmp_path, *names))

    assert all(name in refused.value.message for name in names)
    assert refused.value.code == "source.ambiguous"


def test_what_was_published_into_the_same_folder_is_no_source(tmp_path: Path) -> None:
    touch(tmp_path, "deeper/down/net.onnx", "net/config.pbtxt", "net/1/model.onnx", ".hidden/other.onnx")

    assert find_model(tmp_path).path == tmp_path / "deeper/down/net.onnx"


def test_links_in_circles_are_not_followed(tmp_path: Path) -> None:
    touch(tmp_path, "a/b/net.onnx")
    (tmp_path / "a" / "b" / "up").symlink_to(tmp_path)

    assert find_model(tmp_path).path == tmp_path / "a/b/net.onnx"


@pytest.mark.parametrize(
    ("file", "hint"),
    [
        ("net.tflite", "convkit takes .pth"),
        ("net", "convkit takes .pth"),
    ],
)
def test_a_file_of_another_kind_is_refused_with_the_way_out(file: str, hint: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no model that convkit takes") as refused:
        find_model(touch(tmp_path, file) / file)

    assert hint in refused.value.hint


def test_a_path_that_is_not_there_and_a_folder_without_a_model_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        find_model(tmp_path / "nothing")
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    with pytest.raises(InputError, match="does not exist"):
        find_model(tmp_path / "link")
    with pytest.raises(InputError, match="holds no model"):
        find_model(touch(tmp_path / "empty", "readme.txt"))


@needs_root
def test_what_may_not_be_read_is_refused_or_passed_over(tmp_path: Path) -> None:
    touch(tmp_path / "file", "model.onnx")
    touch(tmp_path / "closed", "model.onnx")
    touch(tmp_path / "inner", "closed/model.onnx", "open/model.onnx")
    open_to_all(tmp_path)
    (tmp_path / "file" / "model.onnx").chmod(0)
    (tmp_path / "closed").chmod(0)
    (tmp_path / "inner" / "closed").chmod(0)

    assert as_nobody(lambda: find_model(tmp_path / "file")) is InputError
    assert as_nobody(lambda: find_model(tmp_path / "closed")) is InputError
    assert as_nobody(lambda: find_model(tmp_path / "inner")) is None


@pytest.mark.parametrize(
    ("files", "model", "config"),
    [
        (("net/model.pth", "net/config.txt"), "net", "net/config.txt"),
        (("net/model.pth", "net/config.txt"), "net/model.pth", "net/config.txt"),
        (("net/config.txt", "net/sub/model.pth"), "net", "net/config.txt"),
        (("net/config.txt", "net/sub/model.pth", "net/sub/config.txt"), "net", "net/sub/config.txt"),
        (("net/config.txt", "net/saved/saved_model.pb"), "net/saved", "net/config.txt"),
        (("config.txt", "net/model.pth"), "net", None),
    ],
)
def test_config_txt_is_found_beside_or_inside_the_model(
    files: tuple[str, ...], model: str, config: str | None, tmp_path: Path
) -> None:
    found = find_model(touch(tmp_path, *files) / model)

    assert found.config == (None if config is None else str(tmp_path / config))


def test_a_config_that_is_named_wins_and_must_be_there(tmp_path: Path) -> None:
    touch(tmp_path, "net/model.pth", "net/config.txt", "other.txt")

    assert find_model(tmp_path / "net", config=tmp_path / "other.txt").config == str(tmp_path / "other.txt")
    with pytest.raises(InputError, match=r"--config .* does not exist"):
        find_model(tmp_path / "net", config=tmp_path / "none.txt")


def test_the_working_directory_has_its_own_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(touch(tmp_path / "resnet", "model.pth"))

    assert find_model(Path()).name == "resnet"
    assert find_model(Path("model.pth")).name == "resnet"


@pytest.mark.parametrize("name", ["resnet", "ResNet-50_v1.5", "1", "_private"])
def test_a_plain_name_is_taken(name: str) -> None:
    assert plain_name(name) == name


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "../a", ".hidden", "-x", "a b", "größe", "a\n", "a\x00", "x" * 201]
)
def test_a_name_that_is_a_path_or_hides_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="cannot be a model's name") as refused:
        plain_name(name)

    assert "--name NAME" in refused.value.hint


def test_a_folder_whose_name_cannot_be_a_models_needs_another(tmp_path: Path) -> None:
    folder = touch(tmp_path / "my model (1)", "model.pth")

    with pytest.raises(UsageError, match="cannot be a model's name"):
        find_model(folder)
    assert find_model(folder, name="mine").name == "mine"
