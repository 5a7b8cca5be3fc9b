"""ResNet-20 on 32x32 images: ttq-packed's compiled network, ONNX Runtime and OpenVINO, in alternating calls.

    pip install onnx onnxruntime openvino numpy
    cargo bench -p ttq-packed --bench network --no-run     # prints the path of the program
    python benchmarks/network_peers.py PROGRAM [--json FILE]

The weights are random and ternary, with 10 % zeros; all programs compute the same architecture, not the same numbers. The
int8 model of the peers has normalization folded into the convolutions before it is quantized (QDQ, uint8 activations, int8
weights per channel), as their documentation recommends. A line shows the fastest call and the median in milliseconds.
"""

import argparse
import json
import os
import subprocess
import tempfile
import time

import numpy as np
import onnx
import onnxruntime
import openvino
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

random = np.random.default_rng(0)


def resnet20():
    nodes, constants = [], []

    def constant(name, values):
        constants.append(numpy_helper.from_array(np.asarray(values, dtype=np.float32), name))
        return name

    def node(kind, inputs, name, **attributes):
        nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def convolution(name, x, inputs, outputs, size, stride):
        codes = random.choice([-1, 0, 1], p=[0.45, 0.1, 0.45], size=(outputs, inputs, size, size))
        weight = constant(name + ".weight", codes * np.sqrt(2 / (inputs * size * size * 0.9)))
        return node("Conv", [x, weight], name, kernel_shape=[size] * 2, strides=[stride] * 2, pads=[size // 2] * 4)

    def norm(name, x, channels):
        spread = [(1, 0.3), (0, 0.2), (0, 0.2), (1, 0.3)]
        values = [mean + width * random.uniform(-1, 1, channels) for mean, width in spread]
        names = [constant(f"{name}.{part}", v) for part, v in zip(["gamma", "beta", "mean", "var"], values)]
        return node("BatchNormalization", [x] + names, name)

    x = node("Relu", [norm("norm", convolution("stem", "x", 3, 16, 3, 1), 16)], "stem.relu")
    channels = 16
    for stage, outputs in enumerate((16, 32, 64)):
        for block in range(3):
            stride, name = (2 if stage > 0 and block == 0 else 1), f"blocks.{3 * stage + block}"
            y = norm(name + ".norm1", convolution(name + ".conv1", x, channels, outputs, 3, stride), outputs)
            y = node("Relu", [y], name + ".relu1")
            y = norm(name + ".norm2", convolution(name + ".conv2", y, outputs, outputs, 3, 1), outputs)
            if stride != 1:
                x = convolution(name + ".shortcut", x, channels, outputs, 1, stride)
            x = node("Relu", [node("Add", [y, x], name + ".add")], name + ".relu2")
            channels = outputs
    x = node("Flatten", [node("GlobalAveragePool", [x], "pool")], "flat")
    weight, bias = constant("classes.weight", random.standard_normal((64, 10)) * 0.1), constant("classes.bias", np.zeros(10))
    node("Gemm", [x, weight, bias], "y")
    value = lambda name, dims: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"] + dims)
    graph = helper.make_graph(nodes, "resnet20", [value("x", [3, 32, 32])], [value("y", [10])], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.checker.check_model(model)
    return model


class Samples(CalibrationDataReader):
    def __init__(self):
        self.batches = iter([{"x": random.standard_normal((16, 3, 32, 32)).astype(np.float32)} for _ in range(4)])

    def get_next(self):
        return next(self.batches, None)


def session(path, threads, optimized=None):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    if optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = optimized
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def timed(call):
    def times(calls):
        call()
        result = []
        for _ in range(calls):
            start = time.perf_counter()
            call()
            result.append(time.perf_counter() - start)
        return result

    return times


def ours(program, int8):
    environment = dict(os.environ, **({"INT8": "1"} if int8 else {}))
    return subprocess.Popen([program, "serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)


def served(process, batch, threads):
    def times(calls):
        print(batch, threads, calls, file=process.stdin, flush=True)
        return [float(seconds) for seconds in process.stdout.readline().split()]

    return times


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("--json")
    arguments = parser.parse_args()
    folder = tempfile.mkdtemp()
    full, folded, int8 = (os.path.join(folder, name + ".onnx") for name in ("full", "folded", "int8"))
    onnx.save(resnet20(), full)
    session(full, 1, folded)
    types = dict(activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8)
    quantize_static(folded, int8, Samples(), quant_format=QuantFormat.QDQ, per_channel=True, **types)
    processes = {"ttq float32": ours(arguments.program, False), "ttq int8": ours(arguments.program, True)}
    core, results = openvino.Core(), []
    for threads in (1, 2):
        for batch, calls, rounds in ((1, 60, 8), (8, 12, 8), (100, 2, 5)):
            # One thread means one core, also for threads that a program starts on its own.
            for process in [0] + [process.pid for process in processes.values()]:
                os.sched_setaffinity(process, set(sorted(os.sched_getaffinity(os.getppid()))[:threads]))
            x = random.standard_normal((batch, 3, 32, 32)).astype(np.float32)
            candidates = {}
            for kind, path in (("float32", full), ("int8", int8)):
                run = session(path, threads)
                candidates[f"ONNX Runtime {kind}"] = timed(lambda run=run: run.run(None, {"x": x}))
                settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
                request = core.compile_model(path, "CPU", settings).create_infer_request()
                candidates[f"OpenVINO {kind}"] = timed(lambda request=request: request.infer({0: x}))
            for name, process in processes.items():
                candidates[name] = served(process, batch, threads)
            seconds = {name: [] for name in candidates}
            for _ in range(rounds):
                for name, times in candidates.items():
                    seconds[name] += times(calls)
            print(f"{threads} threads, batch {batch}")
            for name, values in seconds.items():
                best, median = 1e3 * min(values), 1e3 * float(np.median(values))
                print(f"  {name:22} {best:8.3f} {median:8.3f}", flush=True)
                row = {"threads": threads, "batch": batch, "network": name, "fastest_ms": best, "median_ms": median}
                results.append(row)
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump(results, file, indent=1)


if __name__ == "__main__":
    main()
