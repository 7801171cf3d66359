"""config.pbtxt as text: written and read by the official protobuf, which is loaded without grpc."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

from convkit.errors import InputError, MissingError

ModelConfig: TypeAlias = Any
"""A message of the type `inference.ModelConfig`; its class exists only once protobuf is loaded."""

HEADER = "# Written by convkit.\n"

_MODULE = "tritonclient.grpc.model_config_pb2"


def proto() -> ModuleType:
    """Return tritonclient's generated module for model_config.proto.

    `tritonclient.grpc` itself needs grpcio, which convkit's core does not install, so the one file is loaded by its
    place. It is kept under its proper name, so that a later `import tritonclient.grpc` finds the same classes.

    Raises:
        MissingError: tritonclient or protobuf is not installed, or protobuf is older than the client asks for.
    """
    if _MODULE in sys.modules:
        return sys.modules[_MODULE]
    try:
        return _load(_generated_file())
    except ImportError as error:
        raise MissingError(
            f"Triton's configuration format cannot be loaded: {error}",
            hint='pip install --upgrade tritonclient "protobuf<7"',
            code="triton.protobuf-missing",
        ) from error


def render(config: ModelConfig) -> str:
    """Return the text of config.pbtxt: the same configuration always gives the same bytes."""
    from google.protobuf import text_format

    return HEADER + str(text_format.MessageToString(config, as_utf8=True, use_short_repeated_primitives=True))


def parse(text: str, *, where: str = "config.pbtxt") -> ModelConfig:
    """Read the text of a config.pbtxt.

    Args:
        text: the file's text.
        where: what errors call the file.

    Raises:
        InputError: with the line of what is wrong.
    """
    config = proto().ModelConfig()
    from google.protobuf import text_format

    try:
        return text_format.Parse(text, config)
    except ValueError as error:  # a number that no field holds
        raise InputError(
            f"{where}: {error}",
            hint="Triton's model_config.proto says which fields there are, and of what type",
            code="triton.config-unreadable",
        ) from error
    except text_format.ParseError as error:
        line, column = error.GetLine(), error.GetColumn()
        reason = str(error).removeprefix(f"{line}:{column} : ")
        raise InputError(
            f"{where}, line {line}: {reason}" if line else f"{where}: {reason}",
            hint="Triton's model_config.proto says which fields there are, and of what type",
            code="triton.config-unreadable",
        ) from error


def type_name(number: int) -> str:
    """Return the name of a data type, such as ``TYPE_FP32``; of a number that has none, which text may hold, itself."""
    types = proto().DataType
    return str(types.Name(number)) if number in types.values() else str(number)


def _generated_file() -> Path:
    package = importlib.util.find_spec("tritonclient.grpc")
    for folder in (package and package.submodule_search_locations) or ():
        file = Path(folder) / "model_config_pb2.py"
        if file.is_file():
            return file
    raise ImportError("the package tritonclient is not installed")


def _load(file: Path) -> ModuleType:
    from google.protobuf import runtime_version

    spec = importlib.util.spec_from_file_location(_MODULE, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except runtime_version.VersionError as error:
        raise ImportError(str(error)) from error
    sys.modules[_MODULE] = module
    return module
