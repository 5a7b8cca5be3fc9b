"""A network in ONNX Runtime or OpenVINO on CPUs, for the suite `network`.

    python network_peer.py quantize MODEL.onnx INT8.onnx
    python network_peer.py onnxruntime|openvino MODEL.onnx THREADS

`quantize` writes the network with int8 products, as ONNX Runtime's documentation recommends for x86: normalization folded first, then
quantize and dequantize nodes with ranges from 64 random inputs, uint8 activations, and weights with a scale per channel. The input is one
tensor of float32, whose first dimension is the batch.

The others first print a line of JSON, {"version": .., "output": [..], "load_s": .., "memory": ..}: the result for one item, the
seconds from the file to a network that can run, and the growth of the resident set until then, at its peak, in bytes. Then they read
lines of two numbers, batch and calls. The answer to each is a line with the seconds of the calls.
"""

import importlib
import json
import os
import sys
import tempfile
import time

import numpy as np

random = np.random.default_rng(0)


def quantize(source, target):
    import onnxruntime
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Samples(CalibrationDataReader):
        def __init__(self, name, dims):
            self.items = iter([{name: random.standard_normal([16] + dims).astype(np.float32)} for _ in range(4)])

        def get_next(self):
            return next(self.items, None)

    with tempfile.TemporaryDirectory() as folder:
        folded = os.path.join(folder, "folded.onnx")
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = folded
        session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        (node,) = session.get_inputs()
        types = dict(activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8)
        samples = Samples(node.name, node.shape[1:])
        quantize_static(folded, target, samples, quant_format=QuantFormat.QDQ, per_channel=True, **types)
    print("true", flush=True)


def with_onnxruntime(path, threads):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (node,) = session.get_inputs()
    return node.shape[1:], lambda x: session.run(None, {node.name: x})[0]


def with_openvino(path, threads):
    core = openvino.Core()
    model = core.read_model(path)
    dims = [dimension.get_length() for dimension in list(model.inputs[0].partial_shape)[1:]]
    settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    if not path.endswith("int8.onnx"):
        settings["INFERENCE_PRECISION_HINT"] = "f32"  # The default is bfloat16 where the processor has it.
    network = core.compile_model(model, "CPU", settings)
    request = network.create_infer_request()
    return dims, lambda x: request.infer({0: x})[0]


def memory(key):
    with open("/proc/self/status") as file:
        return next(1024 * int(line.split()[1]) for line in file if line.startswith(key))


def main():
    kind, path, last = sys.argv[1:]
    if kind == "quantize":
        return quantize(path, last)
    threads = int(last)
    # One thread means one core, also for threads that a program starts on its own.
    os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:threads]))
    runtime = globals()[kind] = importlib.import_module(kind)
    before = memory("VmRSS:")
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # Forgets the peak of the past.
    start = time.perf_counter()
    dims, run = {"onnxruntime": with_onnxruntime, "openvino": with_openvino}[kind](path, threads)
    load = time.perf_counter() - start
    item = np.sin(np.arange(np.prod(dims))).astype(np.float32).reshape([1] + dims)
    output = np.asarray(run(item)).flatten().tolist()
    ready = {"version": f"{kind} {runtime.__version__}", "output": output, "load_s": load, "memory": memory("VmHWM:") - before}
    print(json.dumps(ready), flush=True)
    inputs = {}
    for line in sys.stdin:
        batch, calls = map(int, line.split())
        if batch not in inputs:
            inputs[batch] = random.standard_normal([batch] + dims).astype(np.float32)
        seconds = []
        for _ in range(calls):
            start = time.perf_counter()
            run(inputs[batch])
            seconds.append(time.perf_counter() - start)
        print(json.dumps(seconds), flush=True)


if __name__ == "__main__":
    main()
