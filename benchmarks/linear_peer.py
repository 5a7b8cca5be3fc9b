"""Products of a linear layer in PyTorch or ONNX Runtime on CPUs, for the suite `packed`.

    python linear_peer.py KIND INPUTS OUTPUTS CODES THREADS

KIND is pytorch-float32, pytorch-bfloat16 or pytorch-int8 (dynamic quantization: activations as they come), onnxruntime-int8 (its tool's
dynamic quantization) or onnxruntime-2bit (MatMulNBits with int8 activations). CODES is a file of int8 numbers -1, 0 and 1, [OUTPUTS, INPUTS].
The weight is 0.7 where they are 1 and -0.4 where they are -1. The 2-bit format has equally spaced values: there it is 0.55 and -0.55.

First prints a line of JSON, {"version": .., "difference": ..}: the largest difference of a result for one row from that of float64, divided
by the largest result. Then reads lines of two numbers, rows and calls. The answer to each is a line with the seconds of the calls.
"""

import json
import os
import sys
import time

import numpy as np


def pytorch(weight, threads, precision):
    import torch

    torch.set_num_threads(threads)
    layer = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    layer.weight = torch.nn.Parameter(torch.from_numpy(weight), requires_grad=False)
    kind = torch.float32
    if precision == "bfloat16":
        kind = torch.bfloat16
        layer = layer.to(kind)
    if precision == "int8":
        layer = torch.ao.quantization.quantize_dynamic(torch.nn.Sequential(layer), dtype=torch.qint8)

    def prepare(x):
        x = torch.from_numpy(x).to(kind)

        def run():
            with torch.inference_mode():
                return layer(x)

        return run

    return f"PyTorch {torch.__version__}", prepare, lambda y: y.float().numpy()


def onnxruntime(weight, threads, precision):
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper

    outputs, inputs = weight.shape
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", inputs])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", outputs])
    domains = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    if precision == "2bit":
        block = 128 if inputs % 128 == 0 else 32
        codes = (np.sign(weight) + 2).astype(np.uint8).reshape(outputs, inputs // block, block // 4, 4)
        packed = codes[..., 0] | codes[..., 1] << 2 | codes[..., 2] << 4 | codes[..., 3] << 6
        scales = np.full([outputs, inputs // block], 0.55, np.float32)
        constants = [onnx.numpy_helper.from_array(packed, "w"), onnx.numpy_helper.from_array(scales, "s")]
        settings = dict(K=inputs, N=outputs, bits=2, block_size=block, accuracy_level=4)
        nodes = [helper.make_node("MatMulNBits", ["x", "w", "s"], ["y"], domain="com.microsoft", **settings)]
    else:
        # What quantize_dynamic makes of a product: one scale per output, activations quantized by their range.
        scale = (np.abs(weight).max(axis=1) / 127).astype(np.float32)
        quantized = np.rint(weight / scale[:, None]).astype(np.int8).T.copy()
        constants = [onnx.numpy_helper.from_array(quantized, "w"), onnx.numpy_helper.from_array(scale, "s")]
        nodes = [helper.make_node("DynamicQuantizeMatMul", ["x", "w", "s"], ["y"], domain="com.microsoft")]
    graph = helper.make_graph(nodes, "linear", [x], [y], constants)
    model = helper.make_model(graph, opset_imports=domains, ir_version=8).SerializeToString()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return f"ONNX Runtime {onnxruntime.__version__}", lambda x: lambda: session.run(None, {"x": x})[0], lambda y: y


def main():
    kind, inputs, outputs, codes, threads = sys.argv[1:]
    inputs, outputs, threads = int(inputs), int(outputs), int(threads)
    # One thread means one core, also for threads that a program starts on its own.
    os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:threads]))
    codes = np.fromfile(codes, np.int8).reshape(outputs, inputs)
    positive, negative = (0.55, 0.55) if kind.endswith("2bit") else (0.7, 0.4)
    weight = (positive * (codes == 1) - negative * (codes == -1)).astype(np.float32)
    package, precision = kind.split("-")
    version, prepare, to_numpy = globals()[package](weight, threads, precision)
    item = np.sin(np.arange(inputs)).astype(np.float32)[None]
    expected, found = item.astype(np.float64) @ weight.T.astype(np.float64), to_numpy(prepare(item)())
    difference = float(np.abs(found - expected).max() / np.abs(expected).max())
    print(json.dumps({"version": version, "difference": difference}), flush=True)
    random, calls_of = np.random.default_rng(0), {}
    for line in sys.stdin:
        rows, calls = map(int, line.split())
        if rows not in calls_of:
            calls_of[rows] = prepare(random.standard_normal([rows, inputs]).astype(np.float32))
        run, seconds = calls_of[rows], []
        for _ in range(calls):
            start = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - start)
        print(json.dumps(seconds), flush=True)


if __name__ == "__main__":
    main()
