"""Products of a linear layer in float16 in PyTorch (on a GPU: cuBLAS), for the comparison in `gpu packed`.

First prints a line of JSON, {"torch": ..., "device": ...}. Then reads lines of four numbers: size, batch, queue and count. The answer to
each is a line with a list of `count` numbers, each the mean seconds per call of `queue` calls in a row with one synchronization at their end.

    echo 4096 1 64 5 | python benchmarks/product_torch.py cuda
"""

import json
import sys
import time

import torch
import torch.nn.functional as F

COLD_BYTES = 256 << 20  # Total bytes of the copies of a weight, larger than the caches.


def main():
    device = torch.device(sys.argv[1])
    if device.type == "cuda" and not torch.cuda.is_available():
        sys.exit("PyTorch sees no CUDA device")
    finish = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    name = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    print(json.dumps({"torch": torch.__version__, "device": name}), flush=True)
    shape, weights, x, call = None, [], None, 0
    for line in sys.stdin:
        size, batch, queue, count = map(int, line.split())
        if shape != (size, batch):
            weights.clear()
            shape, bytes_of_one = (size, batch), 2 * size * size
            copies = min(64, max(1, COLD_BYTES // bytes_of_one))
            half = dict(device=device, dtype=torch.float16)
            weights, x = [torch.randn(size, size, **half) for _ in range(copies)], torch.randn(batch, size, **half)
        seconds = []
        with torch.inference_mode():
            for _ in range(count):
                finish()
                start = time.perf_counter()
                for _ in range(queue):
                    F.linear(x, weights[call % len(weights)])
                    call += 1
                finish()
                seconds.append((time.perf_counter() - start) / queue)
        print(json.dumps(seconds), flush=True)


if __name__ == "__main__":
    main()
