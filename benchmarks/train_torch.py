"""Seconds per training step in PyTorch: the same networks, batches, loss and optimizer as `cargo xtask bench train`.

Steps in full precision and ternary steps (one autograd.Function per layer, exact gradients) alternate. With --loop, the ternary ResNet is
trained as in the PyTorch port of the paper: its weights are ternary, and latent weights and scales are stored outside of the model. After the
backward pass, a loop over the layers splits the gradients, reads the scales, steps three optimizers and ternarizes again.

First prints a line of JSON, {"torch": ..., "parameters": ..., "ternary_weights": ...}. Then reads lines, each a number of steps, and answers each
with a line {"full_precision": [seconds, ...], "ternary": [seconds, ...], "peak_memory": bytes}.

    echo 11 | python benchmarks/train_torch.py --network resnet --layers 20 --batch 128 --threads 2
    echo 11 | python benchmarks/train_torch.py --network gpt --layers 6 --batch 16 --threads 2 --compile
"""

import argparse
import json
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn


class Ternarize(torch.autograd.Function):
    """Ternarizes to {-W_n, 0, +W_p} with a threshold of 0.05 times the largest magnitude."""

    @staticmethod
    def forward(ctx, latent, scales):
        delta = 0.05 * latent.abs().max()
        positive, negative = latent > delta, latent < -delta
        ctx.save_for_backward(positive, negative, scales)
        return positive * scales[0] - negative * scales[1]

    @staticmethod
    def backward(ctx, grad):
        positive, negative, scales = ctx.saved_tensors
        zero = ~(positive | negative)
        to_scales = torch.stack([(grad * positive).sum(), -(grad * negative).sum()])
        return grad * (positive * scales[0] + negative * scales[1] + zero), to_scales


def ternary_scales(weight):
    return nn.Parameter(torch.full((2,), weight.abs().mean().item()))


class Conv(nn.Conv2d):
    def __init__(self, inputs, outputs, size, stride=1, ternary=False):
        super().__init__(inputs, outputs, size, stride, size // 2, bias=False)
        self.scales = ternary_scales(self.weight) if ternary else None

    def forward(self, x):
        weight = self.weight if self.scales is None else Ternarize.apply(self.weight, self.scales)
        return F.conv2d(x, weight, None, self.stride, self.padding)


class Linear(nn.Linear):
    def __init__(self, inputs, outputs, ternary):
        super().__init__(inputs, outputs)
        self.scales = ternary_scales(self.weight) if ternary else None

    def forward(self, x):
        weight = self.weight if self.scales is None else Ternarize.apply(self.weight, self.scales)
        return F.linear(x, weight, self.bias)


class ResidualBlock(nn.Module):
    def __init__(self, inputs, outputs, stride, ternary):
        super().__init__()
        self.conv1, self.norm1 = Conv(inputs, outputs, 3, stride, ternary), nn.BatchNorm2d(outputs)
        self.conv2, self.norm2 = Conv(outputs, outputs, 3, 1, ternary), nn.BatchNorm2d(outputs)
        changes = stride != 1 or inputs != outputs
        self.shortcut = Conv(inputs, outputs, 1, stride, ternary) if changes else nn.Identity()

    def forward(self, x):
        y = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        return F.relu(y + self.shortcut(x))


class ResNet(nn.Module):
    def __init__(self, depth, ternary):
        super().__init__()
        self.stem, self.norm = Conv(3, 16, 3), nn.BatchNorm2d(16)
        blocks, channels = [], 16
        for stage, outputs in enumerate((16, 32, 64)):
            for index in range((depth - 2) // 6):
                blocks.append(ResidualBlock(channels, outputs, 2 if stage and not index else 1, ternary))
                channels = outputs
        self.blocks, self.classes = nn.Sequential(*blocks), nn.Linear(channels, 10)

    def forward(self, x):
        x = self.blocks(F.relu(self.norm(self.stem(x))))
        return self.classes(x.mean((2, 3)))


class Mlp(nn.Sequential):
    def __init__(self, layers, ternary):
        super().__init__(Linear(784, 1024, ternary), nn.ReLU(), Linear(1024, 1024, ternary), nn.ReLU(), nn.Linear(1024, 10))


class EncoderLayer(nn.Module):
    """Burn's TransformerEncoderLayer. Queries, keys and values are one product, as in nn.MultiheadAttention."""

    def __init__(self, features, heads, norm_first, causal, ternary):
        super().__init__()
        self.heads, self.norm_first, self.causal = heads, norm_first, causal
        self.qkv, self.output = Linear(features, 3 * features, ternary), Linear(features, features, ternary)
        self.inner, self.outer = Linear(features, 4 * features, ternary), Linear(4 * features, features, ternary)
        self.norm1, self.norm2 = nn.LayerNorm(features), nn.LayerNorm(features)

    def attention(self, x):
        n, tokens, features = x.shape
        q, k, v = self.qkv(x).view(n, tokens, 3, self.heads, features // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        x = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.output(x.transpose(1, 2).reshape(n, tokens, features))

    def feed_forward(self, x):
        return self.outer(F.gelu(self.inner(x)))

    def forward(self, x):
        if self.norm_first:
            x = x + self.attention(self.norm1(x))
            return x + self.feed_forward(self.norm2(x))
        x = self.norm1(x + self.attention(x))
        return self.norm2(x + self.feed_forward(x))


class Transformer(nn.Module):
    def __init__(self, layers, ternary):
        super().__init__()
        self.layers = nn.Sequential(*(EncoderLayer(128, 4, False, False, ternary) for _ in range(layers)))
        self.classes = nn.Linear(128, 10)

    def forward(self, x):
        return self.classes(self.layers(x).mean(1))


class Gpt(nn.Module):
    def __init__(self, layers, ternary):
        super().__init__()
        self.bytes, self.positions = nn.Embedding(256, 256), nn.Embedding(128, 256)
        self.layers = nn.Sequential(*(EncoderLayer(256, 8, True, True, ternary) for _ in range(layers)))
        self.norm, self.next = nn.LayerNorm(256), nn.Linear(256, 256, bias=False)

    def forward(self, bytes):
        x = self.bytes(bytes) + self.positions(torch.arange(bytes.shape[1], device=bytes.device))
        return self.next(self.norm(self.layers(x))).flatten(0, 1)


def random_batch(network, n):
    if network == "gpt":
        return torch.randint(0, 256, (n, 128)), torch.randint(0, 256, (n * 128,))
    shape = {"resnet": (3, 32, 32), "mlp": (784,), "transformer": (64, 128)}[network]
    return torch.randn(n, *shape), torch.randint(0, 10, (n,))


NETWORKS = {"resnet": ResNet, "mlp": Mlp, "transformer": Transformer, "gpt": Gpt}


class Loop:
    """Ternary training as in the port, with the exact sign of the gradient of W_n. Latent weights and scales are outside of the model."""

    def __init__(self, model):
        convolutions = [conv.weight for block in model.blocks for conv in block.modules() if isinstance(conv, Conv)]
        self.weights = convolutions
        self.latents = [nn.Parameter(weight.data.clone()) for weight in convolutions]
        self.scales = [nn.Parameter(torch.ones(2, device=weight.device)) for weight in convolutions]
        ternary = {id(weight) for weight in convolutions}
        rest = [parameter for parameter in model.parameters() if id(parameter) not in ternary]
        groups = ((rest, 2e-4), (self.latents, 2e-4), (self.scales, 0))
        self.optimizers = [torch.optim.SGD(group, lr=0.01, momentum=0.9, weight_decay=decay) for group, decay in groups]
        self.ternarize()

    def zero_grad(self):
        for optimizer in self.optimizers:
            optimizer.zero_grad()

    def step(self):
        for weight, latent, scales in zip(self.weights, self.latents, self.scales):
            w_pos, w_neg = float(scales.data[0]), float(scales.data[1])
            grad, positive, negative = weight.grad.data, *self.sides(latent)
            zero = torch.ones_like(latent.data) - positive - negative
            latent.grad = w_pos * positive * grad + w_neg * negative * grad + zero * grad
            sums = [float((positive * grad).sum()), -float((negative * grad).sum())]
            scales.grad = torch.tensor(sums, device=scales.device)
            weight.grad.data.zero_()
        for optimizer in self.optimizers:
            optimizer.step()
        self.ternarize()

    def ternarize(self):
        for weight, latent, scales in zip(self.weights, self.latents, self.scales):
            positive, negative = self.sides(latent)
            weight.data = float(scales.data[0]) * positive - float(scales.data[1]) * negative

    @staticmethod
    def sides(latent):
        delta = 0.05 * latent.data.abs().max()
        return (latent.data > delta).float(), (latent.data < -delta).float()


def peak_memory():
    """Largest resident set of this process since `reset_peak_memory`, in bytes; None outside of Linux."""
    try:
        with open("/proc/self/status") as status:
            return next(1024 * int(line.split()[1]) for line in status if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        return None


def reset_peak_memory():
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError:
        pass


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", choices=NETWORKS, default="resnet")
    parser.add_argument("--layers", type=int, default=20, help="depth of the ResNet, encoder layers of the transformers")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--amp", action="store_true", help="bfloat16 in the forward pass, by autocast")
    parser.add_argument("--channels-last", action="store_true", help="memory format of the ResNet")
    parser.add_argument("--compile", action="store_true", help="torch.compile network and loss")
    parser.add_argument("--loop", action="store_true", help="train ternary weights as in the port")
    parser.add_argument("--processor-time", action="store_true", help="measure the time of the processor, not of the clock")
    options = parser.parse_args()
    now = time.process_time if options.processor_time else time.perf_counter
    torch.set_num_threads(options.threads)
    torch.manual_seed(1)
    device = torch.device(options.device)
    channels_last = options.channels_last and options.network == "resnet"
    layout = torch.channels_last if channels_last else torch.contiguous_format
    inputs, targets = (tensor.to(device) for tensor in random_batch(options.network, options.batch))
    if channels_last:
        inputs = inputs.contiguous(memory_format=layout)
    finish = torch.cuda.synchronize if options.device == "cuda" else lambda: None
    create = lambda ternary: NETWORKS[options.network](options.layers, ternary).to(device).to(memory_format=layout)

    def stepper(ternary):
        in_loop = ternary and options.loop
        model = create(ternary and not in_loop)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=2e-4, fused=True)
        if in_loop:
            optimizer = Loop(model)

        def loss_of(inputs, targets):
            return F.cross_entropy(model(inputs), targets)

        if options.compile:
            loss_of = torch.compile(loss_of)

        def step():
            start = now()
            with torch.autocast(options.device, dtype=torch.bfloat16, enabled=options.amp):
                loss = loss_of(inputs, targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            finish()
            return now() - start

        return step

    steppers = {"full_precision": stepper(False), "ternary": stepper(True)}

    def steps(count):
        seconds = {name: [] for name in steppers}
        for _ in range(count):
            for name, step in steppers.items():
                seconds[name].append(step())
        return seconds

    def answer(**values):
        print(json.dumps(values), flush=True)

    steps(WARM_UP)
    floats = [tensor.numel() for tensor in create(False).state_dict().values() if tensor.is_floating_point()]
    ternary = [module.weight.numel() for module in create(True).modules() if getattr(module, "scales", None) is not None]
    reset_peak_memory()
    answer(torch=torch.__version__, parameters=sum(floats), ternary_weights=sum(ternary))
    for line in sys.stdin:
        # The first step finds data of another process in the caches.
        seconds = {name: times[1:] for name, times in steps(int(line) + 1).items()}
        answer(**seconds, peak_memory=peak_memory())


WARM_UP = 2  # Untimed steps of each kind before the first answer.

if __name__ == "__main__":
    main()
