"""A step that runs a user's code, as sources do."""

from __future__ import annotations

import msgspec

from convkit.pipeline.step import step
from convkit.sources.user_code import UserFunction, load_function


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    number: int


@step(version=1, stage="source", title="Call a function", needs="tensorrt-rtx")
def call(function: UserFunction, *, again: int) -> Answer:
    return Answer(number=load_function(function, "--model-def")() + again)
