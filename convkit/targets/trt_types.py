"""What convkit uses of TensorRT's Python API, as types.

mypy holds the code of this family to these names; a test holds these names to the real modules: to the TensorRT-RTX
that is installed, and to the names that the bindings of TensorRT 10 and 11 define. A class here is called what the
API calls it. What only one of the modules has is marked `FEATURES` and is detected by its attributes, never by version.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias, runtime_checkable

Enumerator: TypeAlias = Any
"""A member of one of the API's enumerations; its ``name`` is stable, its number is not."""
Dims: TypeAlias = Sequence[int]


class ITensor(Protocol):
    name: str
    dtype: Enumerator
    shape: Dims


class INetworkDefinition(Protocol):
    num_layers: int
    num_inputs: int
    num_outputs: int

    def get_input(self, index: int, /) -> ITensor: ...
    def get_output(self, index: int, /) -> ITensor: ...


class IOptimizationProfile(Protocol):
    def set_shape(self, name: str, low: Dims, usual: Dims, high: Dims, /) -> None: ...
    def set_shape_input(self, name: str, low: Dims, usual: Dims, high: Dims, /) -> None: ...


class ITimingCache(Protocol):
    def combine(self, other: ITimingCache, ignore_mismatch: bool, /) -> bool: ...
    def serialize(self) -> IHostMemory | None: ...


class IBuilderConfig(Protocol):
    """What a recipe sets by name (`trt_settings.PROPERTIES`) is not listed here; a test holds it to the modules too."""

    builder_optimization_level: int
    hardware_compatibility_level: Enumerator
    progress_monitor: object

    def set_memory_pool_limit(self, pool: Enumerator, size: int, /) -> None: ...
    def set_flag(self, flag: Enumerator, /) -> None: ...
    def clear_flag(self, flag: Enumerator, /) -> None: ...
    def set_preview_feature(self, feature: Enumerator, enable: bool, /) -> None: ...
    def set_tactic_sources(self, sources: int, /) -> bool: ...
    def add_optimization_profile(self, profile: IOptimizationProfile, /) -> int: ...
    def create_timing_cache(self, serialized: bytes, /) -> ITimingCache | None: ...
    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool, /) -> bool: ...
    def get_timing_cache(self) -> ITimingCache | None: ...


class Builder(Protocol):
    max_threads: int

    def create_network(self, flags: int, /) -> INetworkDefinition: ...
    def create_builder_config(self) -> IBuilderConfig: ...
    def create_optimization_profile(self) -> IOptimizationProfile: ...
    def build_serialized_network(
        self, network: INetworkDefinition, config: IBuilderConfig, /
    ) -> IHostMemory | None: ...


class IHostMemory(Protocol):
    nbytes: int

    def __buffer__(self, flags: int, /) -> memoryview: ...


class ParserError(Protocol):
    def node(self) -> int: ...
    def node_name(self) -> str: ...
    def node_operator(self) -> str: ...
    def desc(self) -> str: ...


class OnnxParser(Protocol):
    num_errors: int

    def parse_from_file(self, path: str, /) -> bool: ...
    def get_error(self, index: int, /) -> ParserError: ...


class IExecutionContext(Protocol):
    def set_input_shape(self, name: str, shape: Dims, /) -> bool: ...
    def infer_shapes(self) -> list[str]: ...
    def get_tensor_shape(self, name: str, /) -> Dims: ...
    def set_tensor_address(self, name: str, address: int, /) -> bool: ...
    def set_output_allocator(self, name: str, allocator: object, /) -> bool: ...
    def execute_async_v3(self, stream: int, /) -> bool: ...
    def set_optimization_profile_async(self, profile: int, stream: int, /) -> bool: ...


class EngineInspector(Protocol):
    def get_engine_information(self, form: Enumerator, /) -> str: ...


class ICudaEngine(Protocol):
    num_io_tensors: int
    num_optimization_profiles: int

    def get_tensor_name(self, index: int, /) -> str: ...
    def get_tensor_mode(self, name: str, /) -> Enumerator: ...
    def get_tensor_dtype(self, name: str, /) -> Enumerator: ...
    def get_tensor_location(self, name: str, /) -> Enumerator: ...
    def get_tensor_profile_shape(self, name: str, profile: int, /) -> Sequence[Dims]: ...
    def get_tensor_profile_values(self, profile: int, name: str, /) -> Sequence[Dims]: ...
    def create_execution_context(self) -> IExecutionContext | None: ...
    def create_engine_inspector(self) -> EngineInspector: ...
    def serialize(self) -> IHostMemory: ...


class Runtime(Protocol):
    def deserialize_cuda_engine(self, plan: bytes, /) -> ICudaEngine | None: ...


class NetworkDefinitionCreationFlag(Protocol):
    STRONGLY_TYPED: Enumerator


class MemoryPoolType(Protocol):
    WORKSPACE: Enumerator


class Refitter(Protocol):
    def get_missing_weights(self) -> Sequence[str]: ...
    def refit_cuda_engine(self) -> bool: ...


class OnnxParserRefitter(Protocol):
    def refit_from_file(self, path: str, /) -> bool: ...


class BuilderFlag(Protocol):
    REFIT: Enumerator
    VERSION_COMPATIBLE: Enumerator


class LayerInformationFormat(Protocol):
    JSON: Enumerator


class TensorIOMode(Protocol):
    INPUT: Enumerator


class TensorLocation(Protocol):
    HOST: Enumerator


@runtime_checkable
class BuildsAheadOfTime(Protocol):
    """A module that builds engines for named compute capabilities, without a GPU or a driver."""

    ComputeCapability: Any


@runtime_checkable
class TakesComputeCapabilities(Protocol):
    """The `IBuilderConfig` of such a module."""

    num_compute_capabilities: int

    def set_compute_capability(self, capability: Enumerator, index: int, /) -> bool: ...


FEATURES: dict[type, str] = {BuildsAheadOfTime: "", TakesComputeCapabilities: "IBuilderConfig"}
"""Protocols of what only some modules have, with the class that has it; empty: the module itself."""
