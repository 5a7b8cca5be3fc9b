import json
import numpy
from safetensors import safe_open

def codes(path):  # yields the name and the int8 codes -1, 0, +1 of every ternary weight, in the shape of the weight
    with safe_open(path, "numpy") as file:
        for name, weight in json.loads(file.metadata()["ttq-packed"])["weights"].items():
            assert weight["coding"] == "plain", f"{name} is entropy-coded: write the file with Coding::Plain"
            pairs = file.get_tensor(name + ".codes")[:, None] >> numpy.arange(0, 8, 2, dtype=numpy.uint8) & 3
            yield name, (pairs.astype(numpy.int8) - 1).ravel()[: numpy.prod(weight["shape"], dtype=int)].reshape(weight["shape"])
