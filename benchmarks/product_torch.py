"""A linear layer's product in half precision, in PyTorch: cuBLAS, on a GPU. What `gpu packed` has beside its own.

First prints a line of JSON, {"torch": ..., "device": ...}. Then reads lines of four numbers, size, batch, queue and turns, and answers each
with the seconds of a call, one number for each turn: a turn queues so many calls and waits for the device once.

    echo 4096 1 64 5 | python benchmarks/product_torch.py cuda
"""

import json
import sys
import time

import torch
import torch.nn.functional as F

COLD = 256 << 20  # Bytes of weights that calls take in turn: what they read is not in a cache.


def main():
    device = torch.device(sys.argv[1])
    if device.type == "cuda" and not torch.cuda.is_available():
        sys.exit("PyTorch sees no CUDA device")
    finish = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    name = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    print(json.dumps({"torch": torch.__version__, "device": name}), flush=True)
    shape, weights, x, call = None, [], None, 0
    for line in sys.stdin:
        size, batch, queue, turns = map(int, line.split())
        if shape != (size, batch):
            weights.clear()
            shape, bytes_of_one = (size, batch), 2 * size * size
            copies = min(64, max(1, COLD // bytes_of_one))
            half = dict(device=device, dtype=torch.float16)
            weights, x = [torch.randn(size, size, **half) for _ in range(copies)], torch.randn(batch, size, **half)
        seconds = []
        with torch.inference_mode():
            for _ in range(turns):
                finish()
                start = time.perf_counter()
                for _ in range(queue):
                    F.linear(x, weights[call % len(weights)])
                    call += 1
                finish()
                seconds.append((time.perf_counter() - start) / queue)
        print(*seconds, flush=True)


if __name__ == "__main__":
    main()
