"""The text of client.py: a few lines of Python with numpy alone, the same for every model but for names and types."""

from __future__ import annotations

from string import Template

CLIENT = Template('''\
"""Ask $title on a Triton server: python client.py [URL] [SAMPLE.npz]

The sample holds an array for each input, under its name. This file needs numpy and nothing else.
"""

import json
import sys
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

$imports

URL = $url
PATH = $path
SAMPLE = Path(__file__).parent / $sample
INPUTS = {
$inputs
}
OUTPUTS = {
$outputs
}


def infer(arrays, url=URL):
    """Send an array for each input, the batch in front; return an array for each output."""
    bodies = {name: $encode for name, (_, dtype) in INPUTS.items()}
    inputs = [
        {
            "name": name,
            "datatype": datatype,
            "shape": $shape,
            "parameters": {"binary_data_size": len(bodies[name])},
        }
        for name, (datatype, _) in INPUTS.items()
    ]
    outputs = [{"name": name, "parameters": {"binary_data": True}} for name in OUTPUTS]
    head = json.dumps({"inputs": inputs, "outputs": outputs}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head)), "Content-Type": "application/octet-stream"}
    with urlopen(Request(url + PATH, head + b"".join(bodies.values()), headers)) as response:
        at, answer = int(response.headers["Inference-Header-Content-Length"]), response.read()
    found = {}
    for output in json.loads(answer[:at])["outputs"]:
        data = answer[at : at + output["parameters"]["binary_data_size"]]
        found[output["name"]] = $decode.reshape(output["shape"])
        at += len(data)
    return found

$strings
if __name__ == "__main__":
    url = sys.argv[1] if len(sys.argv) > 1 else URL
    with np.load(sys.argv[2] if len(sys.argv) > 2 else SAMPLE) as archive:
        arrays = $load
    try:
        answers = infer(arrays, url)
    except HTTPError as error:
        sys.exit(f"{error}: {error.read().decode()}")
    for name, answer in answers.items():
        print(name, answer.dtype, answer.shape)
        print(answer)
''')

STRINGS = '''
def encode(array, dtype):
    """Return an array's bytes; of a string its length in four bytes, then its UTF-8."""
    if dtype is not object:
        return np.asarray(array, dtype).tobytes()
    items = [item if isinstance(item, bytes) else str(item).encode() for item in array.reshape(-1).tolist()]
    return b"".join(len(item).to_bytes(4, "little") + item for item in items)


def decode(data, dtype):
    """Return what `encode` makes such bytes of, without its shape."""
    if dtype is not object:
        return np.frombuffer(data, dtype)
    texts, at = [], 0
    while at < len(data):
        end = at + 4 + int.from_bytes(data[at : at + 4], "little")
        texts.append(data[at + 4 : end].decode())
        at = end
    return np.array(texts, object)

'''
