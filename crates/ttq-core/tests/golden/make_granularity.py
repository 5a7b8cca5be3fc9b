"""Reference trajectories for every pair of granularities, in float64 (plain Python, no packages).

Two ternary weights, trained by gradient descent on a squared error:

    h = tanh(x W1^T)    W1: [out, in, k, k], output channels along axis 0, as a matrix [out, in k k]
    y = h W2            W2: [in, out], output channels along axis 1
    L = mean (y - target)^2

    delta = t max|w| of a threshold group
    q     = W_p where w > delta, -W_n where w < -delta, else 0, with the scales of a scale group
    W     = exp(rho);  rho starts at the logarithm of the mean magnitude of each side
    dL/dw     = g (W_p / s | 1 | W_n / s), s = (W_p + W_n) / 2
    dL/drho_p = W_p sum of g over w > delta,  dL/drho_n = -W_n sum of g over w < -delta

Run:  python make_granularity.py     (writes granularity.json beside itself)
"""
import json, math, pathlib, random

random.seed(20261128)
T, RATE, STEPS = 0.3, 0.1, 20
SHAPES = [[4, 3, 2, 2], [4, 3]]
AXES = [0, 1]
N = 5


def channel(layer, flat):
    shape, axis = SHAPES[layer], AXES[layer]
    return flat // math.prod(shape[axis + 1:]) % shape[axis]


def groups(layer, granularity):
    n, channels = math.prod(SHAPES[layer]), SHAPES[layer][AXES[layer]]
    if granularity == "tensor":
        return [list(range(n))]
    return [[i for i in range(n) if channel(layer, i) == c] for c in range(channels)]


def codes_of(layer, w, granularity):
    codes = [0] * len(w)
    for group in groups(layer, granularity):
        delta = T * max(abs(w[i]) for i in group)
        for i in group:
            codes[i] = (w[i] > delta) - (w[i] < -delta)
    return codes


def initial(layer, w, threshold, scales):
    codes = codes_of(layer, w, threshold)
    rho = []
    for group in groups(layer, scales):
        sides = [[abs(w[i]) for i in group if codes[i] == side] for side in (1, -1)]
        both = sides[0] + sides[1] or [abs(w[i]) for i in group]
        rho.append([math.log(sum(side or both) / len(side or both)) for side in sides])
    return rho


def quantize(layer, w, rho, threshold, scales):
    codes, q = codes_of(layer, w, threshold), [0.0] * len(w)
    for group, (p, n) in zip(groups(layer, scales), rho):
        for i in group:
            q[i] = (0.0, math.exp(p), -math.exp(n))[codes[i]]
    return codes, q


def gradients(layer, g, codes, rho, scales):
    of_w, of_rho = [0.0] * len(g), []
    for group, (p, n) in zip(groups(layer, scales), rho):
        w_p, w_n = math.exp(p), math.exp(n)
        s = (w_p + w_n) / 2
        for i in group:
            of_w[i] = g[i] * (1.0, w_p / s, w_n / s)[codes[i]]
        of_rho.append([w_p * sum(g[i] for i in group if codes[i] == 1),
                       -w_n * sum(g[i] for i in group if codes[i] == -1)])
    return of_w, of_rho


def loss_and_gradients(x, target, q1, q2):
    (outputs, inputs), (_, classes) = (4, 12), (4, 3)
    h = [[math.tanh(sum(row[j] * q1[o * inputs + j] for j in range(inputs))) for o in range(outputs)] for row in x]
    y = [[sum(row[o] * q2[o * classes + c] for o in range(outputs)) for c in range(classes)] for row in h]
    d = [[2 * (y[n][c] - target[n][c]) / (N * classes) for c in range(classes)] for n in range(N)]
    loss = sum((y[n][c] - target[n][c]) ** 2 for n in range(N) for c in range(classes)) / (N * classes)
    g2 = [sum(h[n][o] * d[n][c] for n in range(N)) for o in range(outputs) for c in range(classes)]
    dh = [[sum(d[n][c] * q2[o * classes + c] for c in range(classes)) * (1 - h[n][o] ** 2) for o in range(outputs)]
          for n in range(N)]
    g1 = [sum(dh[n][o] * x[n][j] for n in range(N)) for o in range(outputs) for j in range(inputs)]
    return loss, g1, g2


def flat(pairs):
    return [value for pair in pairs for value in pair]


def case(threshold, scales, start, x, target):
    w = [list(values) for values in start]
    rho = [initial(layer, w[layer], threshold, scales) for layer in (0, 1)]
    steps = []
    for _ in range(STEPS):
        parts = [quantize(layer, w[layer], rho[layer], threshold, scales) for layer in (0, 1)]
        loss, *g = loss_and_gradients(x, target, parts[0][1], parts[1][1])
        for layer in (0, 1):
            of_w, of_rho = gradients(layer, g[layer], parts[layer][0], rho[layer], scales)
            w[layer] = [value - RATE * grad for value, grad in zip(w[layer], of_w)]
            rho[layer] = [[r - RATE * grad for r, grad in zip(pair, grads)]
                          for pair, grads in zip(rho[layer], of_rho)]
        steps.append(dict(loss=loss, rho=[flat(pairs) for pairs in rho]))
    return dict(threshold_granularity=threshold, scale_granularity=scales, steps=steps, final=w)


def main():
    start = [[random.gauss(0, 0.5) for _ in range(math.prod(shape))] for shape in SHAPES]
    x = [[random.gauss(0, 1) for _ in range(12)] for _ in range(N)]
    target = [[random.gauss(0, 1) for _ in range(3)] for _ in range(N)]
    cases = [case(t, s, start, x, target) for t in ("tensor", "channel") for s in ("tensor", "channel")]
    golden = dict(fraction=T, rate=RATE, shapes=SHAPES, axes=AXES, start=start, x=flat(x), target=flat(target), cases=cases)
    (pathlib.Path(__file__).parent / "granularity.json").write_text(json.dumps(golden) + "\n")


main()
