"""Recipes that extend others, and variables of the environment where a recipe declares them."""

from __future__ import annotations

from pathlib import Path

import pytest

from convkit.errors import InputError
from convkit.request import Request, make_request
from convkit.spec.inheritance import LONGEST_CHAIN
from convkit.spec.options import Precision


def write(folder: Path, **files: str) -> None:
    """Write recipes; `sub__base` lies at ``sub/base.toml``."""
    for name, text in files.items():
        path = folder / (name.replace("__", "/") + ".toml")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def request_of(recipe: Path, **environment: str) -> Request:
    return make_request({}, recipe=recipe, environment=environment)


def refusal(recipe: Path, **environment: str) -> InputError:
    with pytest.raises(InputError) as caught:
        request_of(recipe, **environment)
    return caught.value


def test_the_extending_recipe_wins_and_tables_merge_key_by_key(tmp_path: Path) -> None:
    write(
        tmp_path,
        child='extends = "base.toml"\nmodel = "m.onnx"\n[quantize]\nsamples = 7\n',
        base='extends = "root.toml"\nto = "onnxruntime"\n[quantize]\nprecision = "dynamic"\nsamples = 3\n',
        root='to = "tensorrt"\nname = "root"\n',
    )

    request = request_of(tmp_path / "child.toml")

    assert (request.to, request.name) == ("onnxruntime", "root")
    assert (request.quantize.precision, request.quantize.samples) == (Precision.DYNAMIC, 7)


def test_each_recipes_paths_are_seen_from_where_it_lies(tmp_path: Path) -> None:
    write(
        tmp_path,
        team__child='extends = "../shared/base.toml"\nmodel = "m.onnx"\n[export]\nmodel_def = "net.py:make"\n',
        shared__base='[quantize]\ndata = "calibration"\n[export]\nmodel_def = "old.py:make"\nsamples = "s.npz"\n',
    )

    request = request_of(tmp_path / "team" / "child.toml")

    assert request.model == str(tmp_path / "team/m.onnx")
    assert Path(str(request.quantize.data)).resolve() == tmp_path / "shared/calibration"
    assert Path(str(request.export.samples)).resolve() == tmp_path / "shared/s.npz"
    assert request.export.model_def == str(tmp_path / "team/net.py:make")


def test_urls_and_functions_are_no_paths(tmp_path: Path) -> None:
    write(
        tmp_path,
        r='model = "s3://bucket/m.onnx"\nexport = { model_def = "nets.vgg:make" }\n'
        'quantize = { data = "pkg.data:batches" }\n',
    )

    request = request_of(tmp_path / "r.toml")

    assert request.model == "s3://bucket/m.onnx"
    assert (request.export.model_def, request.quantize.data) == ("nets.vgg:make", "pkg.data:batches")


def test_a_mistake_is_blamed_on_the_recipe_in_which_it_stands(tmp_path: Path) -> None:
    write(
        tmp_path,
        child='extends = "shared/base.toml"\nmodel = "m"\n[quantize]\nsamples = 7\n',
        shared__base='# a comment\n[quantize]\nprecision = "int9"\n',
    )

    error = refusal(tmp_path / "child.toml")

    assert error.message == "shared/base.toml, line 3: quantize.precision: 'int9' is none of the choices"


def test_a_mistake_that_the_extending_recipe_overrides_is_none(tmp_path: Path) -> None:
    write(tmp_path, child='extends = "base.toml"\nmodel = "m"\nto = "onnxruntime"\n', base='to = "tensorrrt"\n')

    assert request_of(tmp_path / "child.toml").to == "onnxruntime"


def test_a_syntax_error_in_a_base_names_the_base(tmp_path: Path) -> None:
    write(tmp_path, child='extends = "base.toml"\nmodel = "m"\n', base="[quantize\n")

    assert refusal(tmp_path / "child.toml").message.startswith("base.toml, line 1")


def test_a_base_that_is_not_there_is_named_with_the_line_that_wants_it(tmp_path: Path) -> None:
    write(tmp_path, child='model = "m"\nextends = "nowhere.toml"\n')

    assert refusal(tmp_path / "child.toml").message == "child.toml, line 2: extends: 'nowhere.toml' does not exist"


@pytest.mark.parametrize("value", ["3", '["a.toml"]', '""', "{ file = 'a' }"])
def test_extends_is_one_path(tmp_path: Path, value: str) -> None:
    write(tmp_path, child=f"extends = {value}\n")

    assert refusal(tmp_path / "child.toml").message.startswith("child.toml, line 1: extends: expected a path")


def test_a_circle_is_refused(tmp_path: Path) -> None:
    write(tmp_path, a='extends = "sub/b.toml"\n', sub__b='extends = "../a.toml"\n')

    error = refusal(tmp_path / "a.toml")

    assert error.message == "sub/b.toml, line 1: extends: a.toml -> b.toml -> a.toml is a circle"
    assert error.code == "recipe.extends"


def test_a_chain_may_be_so_long_and_no_longer(tmp_path: Path) -> None:
    links = {f"r{n}": f'extends = "r{n + 1}.toml"\n' for n in range(1, LONGEST_CHAIN)}
    write(tmp_path, **links, **{f"r{LONGEST_CHAIN}": 'model = "m"\n'})

    assert request_of(tmp_path / "r1.toml").model == str(tmp_path / "m")

    write(tmp_path, r0='extends = "r1.toml"\n')
    assert "more than 8 recipes extend each other" in refusal(tmp_path / "r0.toml").message


def test_declared_variables_are_filled_in(tmp_path: Path) -> None:
    write(
        tmp_path,
        r='env = ["DATA"]\nmodel = "${DATA}/m.onnx"\ntrust = ["sha256:${DATA}", "a"]\n'
        'quantize = { data = "x${DATA}${DATA}" }\n',
    )

    request = request_of(tmp_path / "r.toml", DATA="d")

    assert (request.model, request.trust) == (str(tmp_path / "d/m.onnx"), ("sha256:d", "a"))
    assert request.quantize.data == str(tmp_path / "xdd")


def test_a_default_stands_where_the_variable_is_not_set_or_empty(tmp_path: Path) -> None:
    write(tmp_path, r='model = "${DATA}/m"\n[env]\nDATA = "here"\n')

    assert request_of(tmp_path / "r.toml").model == str(tmp_path / "here/m")
    assert request_of(tmp_path / "r.toml", DATA="").model == str(tmp_path / "here/m")
    assert request_of(tmp_path / "r.toml", DATA="/there").model == "/there/m"


def test_an_undeclared_variable_is_refused_with_its_line(tmp_path: Path) -> None:
    write(tmp_path, r='env = ["DATA"]\nmodel = "m"\n[quantize]\ndata = "${DATE}/x"\n')

    error = refusal(tmp_path / "r.toml", DATA="d", DATE="e")

    assert error.message == "r.toml, line 4: quantize.data: the variable DATE is not declared"
    assert 'env = ["DATE"]' in error.hint


def test_a_declaration_holds_for_its_own_file_only(tmp_path: Path) -> None:
    write(tmp_path, child='env = ["DATA"]\nextends = "base.toml"\nmodel = "m"\n', base='name = "${DATA}"\n')

    assert refusal(tmp_path / "child.toml", DATA="d").message.startswith("base.toml, line 1: name: the variable DATA")


def test_a_variable_without_value_is_refused_with_its_line(tmp_path: Path) -> None:
    write(tmp_path, r='env = ["DATA"]\nmodel = "${DATA}/m"\n')
    assert refusal(tmp_path / "r.toml").message == "r.toml, line 2: model: the variable DATA is not set"


def test_any_other_dollar_stays_as_it_is(tmp_path: Path) -> None:
    write(tmp_path, r='model = "m"\nname = "a$b$$c$DATA${}$(x)$${DATA}"\n')

    assert request_of(tmp_path / "r.toml", DATA="d").name == "a$b$$c$DATA${}$(x)${DATA}"


def test_what_is_filled_in_is_not_looked_through_again(tmp_path: Path) -> None:
    write(tmp_path, r='env = ["A", "B"]\nmodel = "m"\nname = "${A}"\n')

    assert request_of(tmp_path / "r.toml", A="${B}", B="b").name == "${B}"


@pytest.mark.parametrize("env", ['"DATA"', "[1]", "{ DATA = 3 }", "7"])
def test_env_lists_names_or_gives_defaults(tmp_path: Path, env: str) -> None:
    write(tmp_path, r=f'env = {env}\nmodel = "m"\n')

    assert refusal(tmp_path / "r.toml").message.startswith("r.toml, line 1: env: expected a list of names")


def test_a_name_that_no_shell_could_set_is_refused(tmp_path: Path) -> None:
    write(tmp_path, r='env = ["DATA-DIR"]\nmodel = "m"\n')

    assert refusal(tmp_path / "r.toml").message == "r.toml, line 1: env: 'DATA-DIR' is not a variable's name"
