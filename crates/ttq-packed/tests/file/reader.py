"""An independent reader, written from the specification with the standard library of Python.

Prints `name shape axis scales values` of every ternary weight of a file, with scales as the integers of their bits, and fails if
the checksum does not match."""
import json, struct, sys, zlib

def tensors_and_description(path):
    data = open(path, "rb").read()
    length = struct.unpack_from("<Q", data)[0]
    header, data = json.loads(data[8:8 + length]), data[8 + length:]
    description = json.loads(header.pop("__metadata__")["ttq-packed"])
    return {n: (t["dtype"], t["shape"], data[slice(*t["data_offsets"])]) for n, t in header.items()}, description

def checksum(tensors, description):
    number = lambda n: struct.pack("<Q", n)
    text = lambda t: number(len(t)) + t
    shape = lambda s: number(len(s)) + b"".join(map(number, s))
    by_name = lambda items: sorted((name.encode(), value) for name, value in items.items())
    parts = [number(description["version"]), number(len(description["weights"]))]
    for name, weight in by_name({n: (w["shape"], w["output_axis"], w["coding"]) for n, w in description["weights"].items()}):
        parts += [text(name), shape(weight[0]), number(weight[1]), text(weight[2].encode())]
    parts += [number(1), text(description["config"].encode())] if "config" in description else [number(0)]
    parts += [number(len(tensors))]
    for name, (dtype, dims, data) in by_name(tensors):
        parts += [text(name), text(dtype.encode()), shape(dims), text(data)]
    return "%08x" % zlib.crc32(b"".join(parts))

def plain(data, n):
    return [(data[i // 4] >> 2 * (i % 4) & 3) - 1 for i in range(n)]

def archive(data, n):
    minus, plus, x = struct.unpack_from("<HHI", data)
    zero, rest, values = 65536 - minus - plus, iter(data[8:]), []
    for _ in range(n):
        r = x % 65536
        value, start, f = (-1, 0, minus) if r < minus else (0, minus, zero) if r < minus + zero else (1, minus + zero, plus)
        x = f * (x // 65536) + r - start
        while x < 2**23:
            x = 256 * x + next(rest)
        values.append(value)
    assert x == 2**23
    return values

tensors, description = tensors_and_description(sys.argv[1])
assert description["version"] == 1 and description["crc32"] == checksum(tensors, description)
for name, weight in sorted(description["weights"].items()):
    n = 1
    for dim in weight["shape"]:
        n *= dim
    values = {"plain": plain, "archive": archive}[weight["coding"]](tensors[name + ".codes"][2], n)
    scales = [bits for (bits,) in struct.iter_unpack("<I", tensors[name + ".scales"][2])]
    print(name, weight["shape"], weight["output_axis"], scales, values)
