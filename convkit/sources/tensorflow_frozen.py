"""A frozen graph as a SavedModel without a signature: a few bytes around those that are there.

The numbers of fields are those of saved_model.proto and meta_graph.proto
(https://github.com/tensorflow/tensorflow/tree/master/tensorflow/core/protobuf).
"""

from __future__ import annotations

from convkit.graph.wire import key, varint
from convkit.pipeline.artifact import Artifact, gather, new_folder
from convkit.pipeline.copying import copy_file
from convkit.pipeline.step import step
from convkit.sources.exported import Prepared

_META_GRAPH, _META_INFO, _GRAPH, _TAG = 2, 1, 2, 4
_SCHEMA_VERSION_1 = b"\x08\x01"


@step(version=1, stage="source", title="Read the frozen graph", needs="tensorflow")
def wrap_graph(source: Artifact, *, file: str) -> Prepared:
    """Write a saved_model.pb that holds the GraphDef under the tag ``serve``, without signature and variables."""
    path = source.file(file)
    size = path.stat().st_size
    tag = key(_TAG) + varint(5) + b"serve"
    info = key(_META_INFO) + varint(len(tag)) + tag + key(_GRAPH) + varint(size)
    folder = new_folder("frozen")
    with (folder / "body").open("xb") as body:
        copy_file(path, body)
    with (folder / "saved_model.pb").open("xb") as stream, (folder / "body").open("rb") as body:
        stream.write(_SCHEMA_VERSION_1 + key(_META_GRAPH) + varint(len(info) + size) + info)
        while chunk := body.read(1 << 22):
            stream.write(chunk)
    (folder / "body").unlink()
    return Prepared(files=gather(folder))
