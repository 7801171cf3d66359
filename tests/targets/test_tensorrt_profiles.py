"""Optimization profiles: from the recipe, from config.txt, or assumed and said; and the recipe's other values."""

import msgspec
import numpy as np
import pytest

from convkit.errors import UsageError
from convkit.graph.model import Tensors, save_tensors
from convkit.pipeline.events import Event, Warned
from convkit.targets.trt_api import Flavour
from convkit.targets.trt_options import ShapeRange, TensorRTOptions, check_options, parse_size
from convkit.targets.trt_profiles import profiles_for
from targets.tensorrt_networks import interface, spec, warnings_of

NONE = TensorRTOptions()
IMAGE = spec("x", "batch", 3, 16, 16)


def shapes(low: list[int], usual: list[int], high: list[int]) -> ShapeRange:
    return ShapeRange(min=tuple(low), opt=tuple(usual), max=tuple(high))


def recipe(**tables: ShapeRange) -> TensorRTOptions:
    return TensorRTOptions(profiles=(tables,))


def test_a_served_batch_goes_from_1_to_the_maximum_and_is_tuned_for_the_maximum(happened: list[Event]) -> None:
    [profile] = profiles_for(interface(IMAGE, max_batch_size=16), NONE)

    assert profile.shapes == {"x": shapes([1, 3, 16, 16], [16, 3, 16, 16], [16, 3, 16, 16])}
    assert happened == []


def test_a_free_batch_of_which_nothing_is_said_reaches_32_and_the_user_is_told(happened: list[Event]) -> None:
    [profile] = profiles_for(interface(IMAGE), NONE)

    assert profile.shapes == {"x": shapes([1, 3, 16, 16], [8, 3, 16, 16], [32, 3, 16, 16])}
    [warning] = happened
    assert isinstance(warning, Warned)
    assert warning.code == "tensorrt.assumed-profile"
    assert "'x': nothing says how large dimension 0 ('batch') gets; the engine takes 1 to 32" in warning.message
    assert "max_dims" in warning.message


def test_the_dims_of_config_txt_come_first(happened: list[Event]) -> None:
    said = spec(
        "x", "batch", 3, "x_2", "x_3", min_dims=(1, 3, 32, 32), opt_dims=(4, 3, 64, 96), max_dims=(8, 3, 128, 256)
    )

    [profile] = profiles_for(interface(said), NONE)

    assert profile.shapes == {"x": shapes([1, 3, 32, 32], [4, 3, 64, 96], [8, 3, 128, 256])}
    assert happened == []


def test_what_config_txt_leaves_open_is_filled_in_around_what_it_says(happened: list[Event]) -> None:
    long = spec("tokens", "batch", "tokens_1", opt_dims=(1, 700))

    [profile] = profiles_for(interface(long, max_batch_size=4), NONE)

    assert profile.shapes == {"tokens": shapes([1, 1], [1, 700], [4, 700])}
    assert warnings_of(happened) == ["tensorrt.assumed-profile"]


def test_images_are_not_assumed_to_shrink_below_the_stride_of_a_network(happened: list[Event]) -> None:
    [profile] = profiles_for(interface(spec("x", 1, 3, "x_2", "x_3")), NONE)

    assert profile.shapes == {"x": shapes([1, 3, 32, 32], [1, 3, 64, 64], [1, 3, 512, 512])}
    assert warnings_of(happened) == ["tensorrt.assumed-profile"] * 2


def test_a_dimension_that_two_inputs_share_gets_one_range(happened: list[Event]) -> None:
    ids, mask = spec("ids", "batch", "length", max_dims=(8, 128)), spec("mask", "batch", "length")

    [profile] = profiles_for(interface(ids, mask), NONE)

    assert profile.shapes["ids"] == profile.shapes["mask"] == shapes([1, 1], [8, 64], [8, 128])
    assert happened == []


def test_two_inputs_that_contradict_each_other_are_refused() -> None:
    ids, mask = spec("ids", "batch", "length", max_dims=(8, 128)), spec("mask", "batch", "length", max_dims=(8, 64))

    with pytest.raises(UsageError) as refused:
        profiles_for(interface(ids, mask), NONE)

    assert "'mask': max_dims[1] is 64, but another input has 128" in refused.value.message


def test_fixed_shapes_need_no_profile() -> None:
    assert profiles_for(interface(spec("x", 2, 3)), NONE) == ()


def test_the_profiles_of_the_recipe_replace_all_others(happened: list[Event]) -> None:
    small = {"x": shapes([1, 3, 16, 16], [1, 3, 16, 16], [1, 3, 16, 16])}
    large = {"x": shapes([2, 3, 16, 16], [8, 3, 16, 16], [8, 3, 16, 16])}

    found = profiles_for(interface(IMAGE, max_batch_size=8), TensorRTOptions(profiles=(small, large)))

    assert [profile.shapes for profile in found] == [small, large]
    assert happened == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (recipe(image=shapes([1], [1], [1])), "profiles[0]: there is no input 'image'"),
        (TensorRTOptions(profiles=({},)), "profiles[0]: 'x' is dynamic"),
        (recipe(x=shapes([1, 3, 16], [1, 3, 16], [1, 3, 16])), "has 4 dimensions, batch included"),
        (recipe(x=shapes([4, 3, 16, 16], [2, 3, 16, 16], [8, 3, 16, 16])), "dimension 0: min 4, opt 2, max 8"),
        (recipe(x=shapes([1, 3, 18, 16], [2, 3, 18, 16], [8, 3, 18, 16])), "dimension 2 is fixed at 16, not 18 to 18"),
        (recipe(x=shapes([1, 3, 16, 16], [2, 3, 16, 16], [4, 3, 16, 16])), "reach a batch of 4, the server is to send"),
    ],
)
def test_a_profile_that_cannot_work_is_refused_with_its_place(options: TensorRTOptions, message: str) -> None:
    with pytest.raises(UsageError) as refused:
        profiles_for(interface(IMAGE, max_batch_size=8), options)

    assert message in refused.value.message
    assert refused.value.code == "tensorrt.profile"


def test_dims_of_config_txt_below_the_batch_that_is_served_are_refused() -> None:
    said = spec("x", "batch", 3, max_dims=(4, 3))

    with pytest.raises(UsageError, match="reach a batch of 4"):
        profiles_for(interface(said, max_batch_size=8), NONE)


def test_a_profile_without_the_single_request_is_warned_of(happened: list[Event]) -> None:
    options = recipe(x=shapes([2, 3, 16, 16], [8, 3, 16, 16], [8, 3, 16, 16]))

    profiles_for(interface(IMAGE, max_batch_size=8), options)

    assert warnings_of(happened) == ["tensorrt.profile-minimum"]


def recorded(*shapes: tuple[int, ...]) -> Tensors:
    return save_tensors([{"x": np.zeros(shape, np.float32)} for shape in shapes])


FREE_IMAGE = spec("x", "batch", 3, "height", "width")


def test_an_assumption_is_widened_to_the_users_own_inputs_and_tuned_for_the_commonest(happened: list[Event]) -> None:
    seen = recorded((1, 3, 480, 640), (3, 3, 480, 640), (1, 3, 16, 700))

    [profile] = profiles_for(interface(FREE_IMAGE, max_batch_size=4), NONE, seen=seen)

    assert profile.shapes == {"x": shapes([1, 3, 16, 32], [4, 3, 480, 640], [4, 3, 512, 700])}
    assert warnings_of(happened) == ["tensorrt.assumed-profile"] * 2, "it is still an assumption"


def test_what_config_txt_says_wins_over_what_is_seen_and_the_user_is_told(happened: list[Event]) -> None:
    said = spec("x", "batch", 3, "height", "width", max_dims=(4, 3, 256, 256), min_dims=(1, 3, 32, 32))

    [profile] = profiles_for(interface(said, max_batch_size=4), NONE, seen=recorded((1, 3, 100, 300)))

    assert profile.shapes == {"x": shapes([1, 3, 32, 32], [4, 3, 100, 256], [4, 3, 256, 256])}
    [warning] = happened
    assert isinstance(warning, Warned)
    assert warning.code == "tensorrt.samples-outside"
    assert "sample 0 fits no profile ('x' [1, 3, 100, 300])" in warning.message


def test_an_input_that_fits_one_of_several_profiles_is_none_to_be_warned_of(happened: list[Event]) -> None:
    small = shapes([1, 3, 8, 8], [1, 3, 8, 8], [1, 3, 16, 16])
    large = shapes([1, 3, 64, 64], [1, 3, 64, 64], [1, 3, 96, 96])
    options = TensorRTOptions(profiles=({"x": small}, {"x": large}))

    profiles_for(interface(FREE_IMAGE), options, seen=recorded((1, 3, 80, 64), (1, 3, 9, 9)))
    assert happened == []

    profiles_for(interface(FREE_IMAGE), options, seen=recorded((1, 3, 30, 30)))
    assert warnings_of(happened) == ["tensorrt.samples-outside"]


@pytest.mark.parametrize(
    ("text", "size"), [("4GiB", 4 << 30), ("512 MB", 512_000_000), ("1.5gib", 3 << 29), (1 << 20, 1 << 20), ("7", 7)]
)
def test_a_workspace_is_a_size_of_memory(text: str | int, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["much", "4 GiBs", "-1", "0", 0, ""])
def test_a_workspace_that_is_no_size_is_refused(text: str | int) -> None:
    with pytest.raises(UsageError, match="is not a size of memory"):
        parse_size(text)


@pytest.mark.parametrize(
    ("flavour", "options", "word"),
    [
        (Flavour.TENSORRT, TensorRTOptions(compute_capabilities=("8.9",)), "compute_capabilities"),
        (Flavour.TENSORRT_RTX, TensorRTOptions(hardware_compatibility="AMPERE_PLUS"), "hardware_compatibility"),
        (Flavour.TENSORRT_RTX, TensorRTOptions(version_compatible=True), "version_compatible"),
        (Flavour.TENSORRT, TensorRTOptions(workspace="lots"), "workspace"),
    ],
)
def test_an_option_that_a_flavour_does_not_have_is_refused(
    flavour: Flavour, options: TensorRTOptions, word: str
) -> None:
    with pytest.raises(UsageError, match=word):
        check_options(options, flavour)


def test_the_recipes_table_is_typed() -> None:
    table = {"profiles": [{"x": {"min": [1, 3], "opt": [4, 3], "max": [8, 3]}}], "workspace": "1GiB"}

    options = msgspec.convert(table, type=TensorRTOptions)

    assert options.profiles == ({"x": shapes([1, 3], [4, 3], [8, 3])},)
    with pytest.raises(msgspec.ValidationError, match="builder_optimization_level"):
        msgspec.convert({"builder_optimization_level": 6}, type=TensorRTOptions)
