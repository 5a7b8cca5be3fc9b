"""The next bytes of the GPT of the suite `generate`, in PyTorch on CPUs.

    python generate_torch.py float32|bfloat16|int8 LAYERS WIDTH HEADS CONTEXT THREADS

int8 is dynamic quantization of the linear layers. First prints a line of JSON, {"version": .., "parameters": ..}. Then reads lines of three
numbers: bytes that were read before, bytes to read, and calls. The answer to each is a line with the seconds of the calls.
"""

import json
import os
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn

BYTES = 256


class Layer(nn.Module):
    """Burn's encoder layer with normalization first, whose keys and values are kept."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.attention_norm, self.feed_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        # One product for queries, keys and values is the fastest.
        self.qkv, self.output = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.inner, self.outer = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x, cached):
        n, new, width = x.shape
        heads = self.qkv(self.attention_norm(x)).view(n, new, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        query, key, value = heads
        if cached is not None:
            key, value = torch.cat([cached[0], key], 2), torch.cat([cached[1], value], 2)
        # A single byte sees all before it; several only come first.
        attended = F.scaled_dot_product_attention(query, key, value, is_causal=new > 1)
        x = x + self.output(attended.transpose(1, 2).reshape(n, new, width))
        return x + self.outer(F.gelu(self.inner(self.feed_norm(x)))), (key, value)


class Gpt(nn.Module):
    def __init__(self, layers, width, heads, context):
        super().__init__()
        self.bytes, self.positions = nn.Embedding(BYTES, width), nn.Embedding(context, width)
        self.layers = nn.ModuleList(Layer(width, heads) for _ in range(layers))
        self.norm, self.next = nn.LayerNorm(width), nn.Linear(width, BYTES, bias=False)

    def forward(self, bytes, before, cache):
        x = self.bytes(bytes) + self.positions(torch.arange(before, before + bytes.shape[1]))
        caches = []
        for layer, cached in zip(self.layers, cache):
            x, own = layer(x, cached)
            caches.append(own)
        return self.next(self.norm(x)), caches


def main():
    precision, *numbers = sys.argv[1:]
    layers, width, heads, context, threads = map(int, numbers)
    # One thread means one core, also for threads that a program starts on its own.
    os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:threads]))
    torch.set_num_threads(threads)
    gpt = Gpt(layers, width, heads, context).eval()
    parameters = sum(parameter.numel() for parameter in gpt.parameters())
    if precision == "bfloat16":
        gpt = gpt.to(torch.bfloat16)
    if precision == "int8":
        gpt = torch.ao.quantization.quantize_dynamic(gpt, {nn.Linear}, dtype=torch.qint8)
    print(json.dumps({"version": f"PyTorch {torch.__version__}", "parameters": parameters}), flush=True)
    with torch.inference_mode():
        for line in sys.stdin:
            before, new, calls = map(int, line.split())
            cache, seconds = [None] * layers, []
            if before:
                cache = gpt(torch.arange(before)[None], 0, cache)[1]
            bytes = torch.arange(before, before + new)[None]
            for _ in range(calls):
                start = time.perf_counter()
                gpt(bytes, before, cache)
                seconds.append(time.perf_counter() - start)
            print(json.dumps(seconds), flush=True)


if __name__ == "__main__":
    main()
