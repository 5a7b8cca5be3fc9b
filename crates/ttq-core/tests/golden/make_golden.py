"""Reference values for trained ternary quantization, written with PyTorch in float32/float64.

Everything here follows the definitions in the paper, with the exact sign of dL/dw_n:
    delta   = t * max|w|
    ternary = w_p where w > delta, -w_n where w < -delta, else 0
    dL/dw   = g * (w_p | 1 | w_n)           (scaled straight-through gradient, delta held constant)
    dL/dw_p = sum of g over w > delta
    dL/dw_n = -sum of g over w < -delta     (exact derivative; the printed equation lacks the minus)

Run:  python make_golden.py     (needs torch; writes *.json beside itself)
"""
import json, math, pathlib
import torch
import torch.nn.functional as F

HERE = pathlib.Path(__file__).parent
torch.manual_seed(20261123)


def masks(w, delta):
    return (w > delta), (w < -delta)


def ternary(w, w_p, w_n, delta):
    a, b = masks(w, delta)
    return a.to(w.dtype) * w_p - b.to(w.dtype) * w_n


def grads(g, w, w_p, w_n, delta):
    a, b = masks(w, delta)
    scale = torch.ones_like(w)
    scale[a] = w_p
    scale[b] = w_n
    return g * scale, g[a].sum(), -g[b].sum()


def case(name, w, t, w_p, w_n, g=None):
    w = torch.as_tensor(w, dtype=torch.float32)
    g = torch.randn_like(w) if g is None else torch.as_tensor(g, dtype=torch.float32)
    delta = t * w.abs().max()
    q = ternary(w, w_p, w_n, delta)
    gw, gp, gn = grads(g, w, w_p, w_n, delta)
    a, b = masks(w, delta)
    codes = a.int() - b.int()
    return dict(
        name=name, shape=list(w.shape), t=t, w_p=w_p, w_n=w_n, latent=w.flatten().tolist(),
        delta=float(delta), codes=codes.flatten().tolist(), ternary=q.flatten().tolist(),
        sparsity=float((codes == 0).double().mean()), upstream=g.flatten().tolist(),
        grad_latent=gw.flatten().tolist(), grad_w_p=float(gp), grad_w_n=float(gn),
    )


def quantize_cases():
    c = []
    c.append(case("two-by-three, both signs", [[0.73, 0.01, -0.5], [-0.03, 0.2, -0.82]], 0.05, 0.73, 0.82))
    c.append(case("weights exactly at the threshold are zero", [1.0, 0.5, -0.5, 0.25, -1.0, 0.75], 0.5, 1.25, 0.75))
    c.append(case("all zero", torch.zeros(2, 3), 0.05, 1.0, 1.0))
    c.append(case("single element", [[-0.3]], 0.05, 1.0, 2.0))
    c.append(case("positive only", [0.1, 0.2, 0.9, 0.04], 0.05, 0.5, 0.25))
    c.append(case("negative only", [-0.1, -0.2, -0.9, -0.04], 0.05, 0.5, 0.25))
    c.append(case("t is zero: only exact zeros stay zero", [0.0, 1e-20, -1e-20, 1.0], 0.0, 1.0, 3.0))
    c.append(case("t is one: everything is zero", [0.5, -1.0, 1.0], 1.0, 1.0, 1.0))
    c.append(case("tiny magnitudes", torch.randn(4, 5) * 1e-30, 0.15, 0.3, 0.4))
    c.append(case("huge magnitudes", torch.randn(4, 5) * 1e30, 0.15, 0.3, 0.4))
    c.append(case("convolution kernel", torch.randn(8, 4, 3, 3) * 0.1, 0.05, 0.11, 0.07))
    c.append(case("convolution kernel, sparse", torch.randn(8, 4, 3, 3) * 0.1, 0.3, 0.9, 1.1))
    c.append(case("linear", torch.randn(17, 33), 0.05, 1.0, 1.0))
    c.append(case("unequal scales", torch.randn(3, 7), 0.2, 2.5, 0.125))
    return c


def thresholds():
    w = torch.randn(6, 4, 3, 3) * 0.2
    n = w.numel()
    out = dict(shape=list(w.shape), latent=w.flatten().tolist(), rules=[])
    for t in (0.05, 0.15):
        out["rules"].append(dict(rule="max", factor=t, delta=float(t * w.abs().max())))
    for f in (0.7, 0.5):
        out["rules"].append(dict(rule="mean", factor=f, delta=float(f * w.abs().mean())))
    for r in (0.3, 0.5, 0.9):
        # r*n smallest magnitudes become zero; delta is the largest magnitude that is zeroed
        k = math.floor(r * n + 0.5)
        s = w.abs().flatten().sort().values
        out["rules"].append(dict(rule="sparsity", target=r, zeros=k, delta=float(s[k - 1])))
    for rule in out["rules"]:
        d = rule["delta"]
        a, b = w > d, w < -d
        rule["zeros"] = int((~(a | b)).sum())
        # least-squares optimal scales for fixed codes: the mean magnitude of each side
        rule["w_p_mean"] = float(w[a].mean())
        rule["w_n_mean"] = float(-w[b].mean())
        # one shared scale (TWN)
        rule["alpha"] = float(w.abs()[a | b].mean())
    return out


class Ternarize(torch.autograd.Function):
    @staticmethod
    def forward(ctx, w, w_p, w_n, t):
        delta = t * w.abs().max()
        ctx.save_for_backward(w, w_p, w_n, delta)
        return ternary(w, w_p, w_n, delta)

    @staticmethod
    def backward(ctx, g):
        w, w_p, w_n, delta = ctx.saved_tensors
        gw, gp, gn = grads(g, w, w_p, w_n, delta)
        return gw, gp, gn, None


def trajectory():
    """A small CNN trained for 40 steps: conv (full precision) - BN - ReLU - conv (ternary) - BN - ReLU
    - conv 1x1 (ternary) - global average pool - linear (full precision). Inputs are fixed."""
    torch.manual_seed(7)
    d = torch.float32
    P = dict(
        conv1=torch.randn(6, 1, 3, 3) * 0.4, bn1_w=torch.ones(6), bn1_b=torch.zeros(6),
        conv2=torch.randn(8, 6, 3, 3) * 0.15, bn2_w=torch.ones(8), bn2_b=torch.zeros(8),
        conv3=torch.randn(12, 8, 1, 1) * 0.3,
        fc_w=torch.randn(10, 12) * 0.3, fc_b=torch.zeros(10),
    )
    S = dict(conv2_w_p=torch.tensor(1.0), conv2_w_n=torch.tensor(1.0), conv3_w_p=torch.tensor(0.8), conv3_w_n=torch.tensor(1.2))
    init = {k: v.clone() for k, v in {**P, **S}.items()}
    for v in list(P.values()) + list(S.values()):
        v.requires_grad_(True)
    lr, momentum, wd, t = 0.05, 0.9, 2e-4, 0.05
    groups = [dict(params=[P["conv1"], P["conv2"], P["conv3"], P["fc_w"]], weight_decay=wd),
              dict(params=[P["bn1_w"], P["bn1_b"], P["bn2_w"], P["bn2_b"], P["fc_b"]] + list(S.values()), weight_decay=0.0)]
    opt = torch.optim.SGD(groups, lr=lr, momentum=momentum)
    x = torch.randn(4, 16, 1, 10, 10, dtype=d)  # 4 batches of 16, cycled
    y = torch.randint(0, 10, (4, 16))
    rm1, rv1, rm2, rv2 = torch.zeros(6), torch.ones(6), torch.zeros(8), torch.ones(8)
    steps = []
    for i in range(40):
        xb, yb = x[i % 4], y[i % 4]
        opt.zero_grad()
        q2 = Ternarize.apply(P["conv2"], S["conv2_w_p"], S["conv2_w_n"], t)
        q3 = Ternarize.apply(P["conv3"], S["conv3_w_p"], S["conv3_w_n"], t)
        h = F.relu(F.batch_norm(F.conv2d(xb, P["conv1"], padding=1), rm1, rv1, P["bn1_w"], P["bn1_b"], True, 0.1, 1e-5))
        h = F.relu(F.batch_norm(F.conv2d(h, q2, padding=1, stride=2), rm2, rv2, P["bn2_w"], P["bn2_b"], True, 0.1, 1e-5))
        h = F.conv2d(h, q3)
        logits = F.linear(h.mean((2, 3)), P["fc_w"], P["fc_b"])
        loss = F.cross_entropy(logits, yb)
        loss.backward()
        opt.step()
        steps.append(dict(step=i, loss=float(loss.detach()), **{k: float(v.detach()) for k, v in S.items()},
                          conv2_sparsity=float((q2 == 0).double().mean()), conv3_sparsity=float((q3 == 0).double().mean())))
    return dict(
        model="conv1 3x3 pad 1 (full precision), BN, ReLU, conv2 3x3 stride 2 pad 1 (ternary), BN, ReLU, conv3 1x1 (ternary), mean over space, linear (full precision, weight is [out, in])",
        optimizer=dict(kind="sgd", lr=lr, momentum=momentum, dampening=0.0, nesterov=False, weight_decay_on="conv1 conv2 conv3 fc_w", weight_decay=wd),
        batch_norm=dict(momentum=0.1, eps=1e-5), threshold=dict(rule="max", factor=t),
        init={k: dict(shape=list(v.shape), values=v.flatten().tolist()) for k, v in init.items()},
        inputs=dict(shape=list(x.shape), values=x.flatten().tolist()), targets=y.tolist(),
        steps=steps,
        final={k: dict(shape=list(v.shape), values=v.detach().flatten().tolist()) for k, v in {**P, **S}.items()},
        final_bn=dict(mean1=rm1.tolist(), var1=rv1.tolist(), mean2=rm2.tolist(), var2=rv2.tolist()),
    )


def dump(name, obj):
    (HERE / name).write_text(json.dumps(obj))
    print(name, (HERE / name).stat().st_size, "bytes")


if __name__ == "__main__":
    dump("quantize.json", quantize_cases())
    dump("thresholds.json", thresholds())
    dump("trajectory.json", trajectory())
