"""Checks the models of a folder with ONNX, and compares the outputs of ONNX Runtime with what is expected.

NUMBER.onnx is a model, NUMBER.input and NUMBER.expected have float32 inputs and outputs of some items, and NUMBER.name
a name.
"""

import argparse
import pathlib

import numpy
import onnx
import onnxruntime

arguments = argparse.ArgumentParser()
arguments.add_argument("folder", type=pathlib.Path)
arguments.add_argument("--tolerance", type=float, help="largest error, relative to the largest output")
arguments.add_argument("--bytes", action="store_true", help="ONNX Runtime must compute weights of bytes as bytes")
arguments = arguments.parse_args()

BYTES = {"QLinearConv", "QGemm", "QLinearMatMul", "MatMulIntegerToFloat"}


def shape(value):
    return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]


def check(path):
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    # The shapes in the model must be those that follow from its operators.
    stated = {value.name: shape(value) for value in [*model.graph.value_info, *model.graph.output]}
    del model.graph.value_info[:]
    for dim in model.graph.output[0].type.tensor_type.shape.dim:
        dim.Clear()
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    found = {value.name: shape(value) for value in [*inferred.graph.value_info, *inferred.graph.output]}
    for name, dims in stated.items():
        assert found[name] == dims, f"{name}: {found[name]} instead of {dims}"

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    # Without it, sums of two products can saturate on x86 without VNNI.
    options.add_session_config_entry("session.x64quantprecision", "1")
    if arguments.bytes:
        options.optimized_model_filepath = str(path.with_suffix(".optimized"))
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    if arguments.bytes:
        integers = [tensor for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.INT8]
        expected = sum(len(tensor.dims) > 1 for tensor in integers)
        nodes = onnx.load(options.optimized_model_filepath).graph.node
        products = sum(node.op_type in BYTES for node in nodes)
        assert products == expected, f"{products} instead of {expected}: {[node.op_type for node in nodes]}"
    item = shape(model.graph.input[0])[1:]
    x = numpy.fromfile(path.with_suffix(".input"), "<f4").reshape(-1, *item)
    expected = numpy.fromfile(path.with_suffix(".expected"), "<f4").reshape(len(x), *stated["output"][1:])
    together = session.run(["output"], {"input": x})[0]
    one_by_one = numpy.concatenate([session.run(["output"], {"input": x[i : i + 1]})[0] for i in range(len(x))])
    largest = abs(expected).max()
    for y in (together, one_by_one):
        assert y.shape == expected.shape, f"{y.shape} instead of {expected.shape}"
        error = abs(y - expected).max() / largest
        assert error <= arguments.tolerance, f"the error is {error:.1e} of the largest output"
    return error


errors = []
for path in sorted(arguments.folder.glob("*.onnx")):
    name = path.with_suffix(".name").read_text()
    try:
        errors.append((check(path), name))
    except Exception as error:
        raise SystemExit(f"{name}: {type(error).__name__}: {error}")
for error, name in sorted(errors)[-6:]:
    print(f"{name}: {error:.1e} of the largest output")
print(f"onnx {onnx.__version__}, onnxruntime {onnxruntime.__version__}: {len(errors)} models")
