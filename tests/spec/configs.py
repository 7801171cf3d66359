"""config.txt as tests need it: dl_inference's own, a good one of many lines, and ways to spoil it."""

from __future__ import annotations

import pytest

from convkit.errors import MetadataError
from convkit.spec.metadata import parse_metadata

DL_INFERENCE_EXAMPLE = (
    '{"batch_size":0,"input":[{"name":"image","data_type":"float","dims":[-1,224,224,3],"node_name":"input_1:0"}],'
    '"output":[{"name":"probs","data_type":"float","dims":[-1,19],"node_name":"dense_1/Softmax:0"}]}'
)

CONFIG = """\
{
    "batch_size": 8,
    "input": [
        {
            "name": "image",
            "data_type": "float",
            "dims": [-1, 28, 28, 1],
            "node_name": "input_1:0"
        },
        {
            "name": "weight",
            "data_type": "int",
            "dims": [8, -1],
            "node_name": "input_2:0"
        }
    ],
    "output": [
        {
            "name": "probs",
            "data_type": "float",
            "dims": [-1, 10],
            "node_name": "dense_1/Softmax:0"
        }
    ]
}
"""


def changed(*replacements: str) -> str:
    """Return CONFIG with the first of each old text replaced by the new one."""
    text = CONFIG
    for old, new in zip(replacements[::2], replacements[1::2], strict=True):
        assert old in text
        text = text.replace(old, new, 1)
    return text


def with_keys(*keys: str, batch_size: int = 0, data_type: str = "float", dims: str = "[-1, 3]") -> str:
    """Return a config whose one input has these further lines, from line 3 on."""
    lines = "".join(f",\n{key}" for key in keys)
    return (
        f'{{"batch_size": {batch_size}, "output": [{{"name": "o", "data_type": "float", "dims": [-1]}}], "input": [\n'
        f'{{"name": "i", "data_type": "{data_type}", "dims": {dims}{lines}}}]}}'
    )


def refusal(content: str | bytes) -> MetadataError:
    with pytest.raises(MetadataError) as caught:
        parse_metadata(content)
    return caught.value
