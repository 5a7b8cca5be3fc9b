"""Seconds per training step in PyTorch: the same ResNet, batch, loss and optimizer as `cargo xtask bench train`.

Steps in full precision and ternary steps (one autograd.Function per layer, exact gradients) alternate. With --loop, the ternary network is
trained as in the PyTorch port of the paper: its weights are ternary, and latent weights and scales are stored outside of the model. After the
backward pass, a loop over the layers splits the gradients, reads the scales, steps three optimizers and ternarizes again. Prints one line of
JSON:
    {"torch": ..., "threads": ..., "full_precision": [seconds, ...], "ternary": [seconds, ...]}

    python benchmarks/train_torch.py --depth 20 --batch 128 --steps 11 --threads 2
    python benchmarks/train_torch.py --depth 20 --batch 128 --steps 11 --threads 2 --device cuda --amp --channels-last
"""

import argparse
import json
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


class Conv(nn.Conv2d):
    def __init__(self, inputs, outputs, size, stride=1, ternary=False):
        super().__init__(inputs, outputs, size, stride, size // 2, bias=False)
        self.scales = nn.Parameter(torch.full((2,), self.weight.abs().mean().item())) if ternary else None

    def forward(self, x):
        weight = self.weight if self.scales is None else Ternarize.apply(self.weight, self.scales)
        return F.conv2d(x, weight, None, self.stride, self.padding)


class Block(nn.Module):
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
                blocks.append(Block(channels, outputs, 2 if stage and not index else 1, ternary))
                channels = outputs
        self.blocks, self.classes = nn.Sequential(*blocks), nn.Linear(channels, 10)

    def forward(self, x):
        x = self.blocks(F.relu(self.norm(self.stem(x))))
        return self.classes(x.mean((2, 3)))


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


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--depth", type=int, default=20)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=11)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--amp", action="store_true", help="bfloat16 in the forward pass, by autocast")
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--loop", action="store_true", help="train ternary weights as in the port")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(1)
    device = torch.device(options.device)
    layout = torch.channels_last if options.channels_last else torch.contiguous_format
    images = torch.randn(options.batch, 3, 32, 32, device=device).contiguous(memory_format=layout)
    targets = torch.randint(0, 10, (options.batch,), device=device)
    finish = torch.cuda.synchronize if options.device == "cuda" else lambda: None

    def stepper(ternary):
        in_loop = ternary and options.loop
        model = ResNet(options.depth, ternary and not in_loop).to(device).to(memory_format=layout)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=2e-4)
        if in_loop:
            optimizer = Loop(model)

        def step():
            start = time.perf_counter()
            with torch.autocast(options.device, dtype=torch.bfloat16, enabled=options.amp):
                loss = F.cross_entropy(model(images), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            finish()
            return time.perf_counter() - start

        return step

    steppers = {"full_precision": stepper(False), "ternary": stepper(True)}
    seconds = {name: [] for name in steppers}
    for index in range(options.steps + 2):
        for name, step in steppers.items():
            elapsed = step()
            if index >= 2:  # The first two steps are for warm-up.
                seconds[name].append(elapsed)
    print(json.dumps({"torch": torch.__version__, "threads": options.threads, **seconds}))


if __name__ == "__main__":
    main()
