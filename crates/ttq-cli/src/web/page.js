// The page: a canvas, the answer of the network, and pictures of its weights. The worker computes.

/** @typedef {{ name: string, shape: number[], codes: Int8Array }} Weight */
/** @typedef {{ shape: number[], classes: number, bytes: number, config: string, weights: Weight[], simd: boolean }} Loaded */
/** @typedef {{ classes?: string[], mean?: number[], std?: number[] }} Config */
/** @typedef {[number, number][]} Stroke */

const element = (/** @type {string} */ id) => /** @type {any} */ (document.getElementById(id));
const paper = /** @type {HTMLCanvasElement} */ (element("paper"));
const seen = /** @type {HTMLCanvasElement} */ (element("input"));
const worker = new Worker(URL.createObjectURL(new Blob([element("worker").textContent], { type: "text/javascript" })));
/** @type {Map<number, { resolve: (result: any) => void, reject: (error: Error) => void }>} */
const waiting = new Map();
let questions = 0;

/**
 * Asks the worker.
 * @param {string} command @param {object} message @returns {Promise<any>}
 */
function ask(command, message) {
  const id = questions++;
  worker.postMessage({ id, command, ...message });
  return new Promise((resolve, reject) => waiting.set(id, { resolve, reject }));
}
worker.onmessage = ({ data: { id, result, error } }) => {
  const { resolve, reject } = /** @type {any} */ (waiting.get(id));
  waiting.delete(id);
  if (error === undefined) resolve(result);
  else reject(Error(error));
};

/** @param {string} [sentence] */
function show(sentence) {
  element("error").hidden = !sentence;
  element("error").textContent = sentence || "";
}

/** @type {Loaded | undefined} */
let network;
/** @type {Config} */
let config = {};
/** The channels, height and width of the input, if it is an image that can be drawn. @type {[number, number, number] | undefined} */
let image;
/** Pen strokes, in parts of the canvas. @type {Stroke[]} */
let strokes = [];
/** Position of the pen of the keyboard, and whether it is down. */
let pen = { x: 0.5, y: 0.5, down: false, shown: false };

/** @param {Uint8Array} file @param {string} name @param {number[]} [expected] */
async function use(file, name, expected) {
  network = /** @type {Loaded} */ (await ask("load", { file, expected }));
  try {
    config = JSON.parse(network.config) || {};
  } catch {
    config = {};
  }
  const { shape, classes, weights } = network;
  const [channels, height, width] = shape.length === 3 ? shape : [1, ...shape];
  image = shape.length < 4 && shape.length > 1 && (channels === 1 || channels === 3) ? [channels, height, width] : undefined;
  if (image) {
    [seen.width, seen.height] = [width, height];
    paper.height = Math.round((paper.width * height) / width);
  }
  paper.toggleAttribute("aria-disabled", !image);
  const ternary = weights.reduce((sum, { codes }) => sum + codes.length, 0);
  element("facts").textContent =
    `${name}: ${network.bytes.toLocaleString("en")} bytes, ${ternary.toLocaleString("en")} ternary weights, ` +
    `input [${shape.join(", ")}], ${classes} outputs` + (image ? "" : "; this input is no image that can be drawn");
  element("weights").replaceChildren(...weights.map(picture));
  if (!weights.length) element("weights").textContent = "This network has no ternary weights.";
  answer(undefined);
  draw();
  update();
}

/** @param {Uint8Array} bytes @param {string} name @param {number[]} [expected] */
const tryOpen = (bytes, name, expected) =>
  use(bytes, name, expected).then(() => show(), (error) => show(`${name}: ${error.message}`));

/** Draws the strokes on the canvas. */
function draw() {
  const context = /** @type {CanvasRenderingContext2D} */ (paper.getContext("2d"));
  context.clearRect(0, 0, paper.width, paper.height);
  trace(context, (x, y) => [x * paper.width, y * paper.height], paper.width / 13);
  if (pen.shown) {
    context.strokeStyle = pen.down ? "#6cb2ff" : "#8a929c";
    context.lineWidth = 4;
    context.strokeRect(pen.x * paper.width - 14, pen.y * paper.height - 14, 28, 28);
  }
}

/** @param {CanvasRenderingContext2D} context @param {(x: number, y: number) => [number, number]} place @param {number} width */
function trace(context, place, width) {
  context.strokeStyle = "#fff";
  context.lineWidth = width;
  context.lineCap = context.lineJoin = "round";
  for (const stroke of strokes) {
    context.beginPath();
    context.moveTo(...place(...stroke[0]));
    for (const point of stroke) context.lineTo(...place(...point));
    context.stroke();
  }
}

/**
 * Returns the input of the network. A small gray image is as the digits of MNIST: 20 of 28 pixels high or wide, its centre of mass in the
 * middle.
 * @param {[number, number, number]} image @returns {Float32Array}
 */
function pixels([channels, height, width]) {
  const context = /** @type {CanvasRenderingContext2D} */ (seen.getContext("2d", { willReadFrequently: true }));
  const points = strokes.flat(), [xs, ys] = [0, 1].map((i) => points.map((point) => point[i]));
  const centred = channels === 1 && width === 28 && height === 28 && points.length > 0;
  let [scale, left, top] = [1, 0, 0];
  const paint = () => {
    context.clearRect(0, 0, width, height);
    trace(context, (x, y) => [(x - left) * scale * width, (y - top) * scale * height], centred ? 2.3 : width / 13);
    return context.getImageData(0, 0, width, height).data;
  };
  if (centred) {
    const [low, high] = [[Math.min(...xs), Math.min(...ys)], [Math.max(...xs), Math.max(...ys)]];
    scale = 17.7 / 28 / Math.max(high[0] - low[0], high[1] - low[1], 0.15);
    [left, top] = [0, 1].map((i) => (low[i] + high[i]) / 2 - 0.5 / scale);
    const data = paint();
    let [mass, x, y] = [1e-9, 0, 0];
    for (let i = 0; i < width * height; i++) {
      const alpha = data[4 * i + 3];
      [mass, x, y] = [mass + alpha, x + alpha * ((i % width) + 0.5), y + alpha * (Math.floor(i / width) + 0.5)];
    }
    [left, top] = [left + (x / mass / width - 0.5) / scale, top + (y / mass / height - 0.5) / scale];
  }
  const data = paint(), input = new Float32Array(channels * height * width);
  for (let c = 0; c < channels; c++) {
    const [mean, std] = [config.mean?.[c] ?? config.mean?.[0] ?? 0, config.std?.[c] ?? config.std?.[0] ?? 1];
    for (let i = 0; i < height * width; i++) input[c * height * width + i] = (data[4 * i + 3] / 255 - mean) / std;
  }
  return input;
}

let busy = false, stale = false;
/** Runs the network on the drawing; if it changes meanwhile, once more. */
async function update() {
  if (busy || !network || !image) {
    stale = busy;
    return;
  }
  busy = true;
  do {
    stale = false;
    const input = pixels(image), empty = !strokes.length, { classes } = network;
    try {
      const { output, microseconds } = await ask("run", { input });
      if (output.length === classes) answer(empty ? undefined : output, microseconds);
    } catch (error) {
      show(/** @type {Error} */ (error).message);
    }
  } while (stale);
  busy = false;
}

/**
 * Shows the largest outputs, in the order of the classes if there are ten or fewer.
 * @param {Float32Array | undefined} drawn @param {number} [microseconds]
 */
function answer(drawn, microseconds) {
  const output = drawn ?? new Float32Array(network?.classes ?? 0), total = output.reduce((sum, y) => sum + y, 0);
  const normalized = Math.abs(total - 1) < 1e-3 && output.every((y) => y >= 0 && y <= 1);
  const most = output.reduce((a, b) => Math.max(a, b), -Infinity);
  const powers = Array.from(output, (y) => (normalized ? y : Math.exp(y - most))), sum = powers.reduce((a, b) => a + b, 0);
  const all = powers.map((power, index) => ({ index, chance: drawn ? power / sum : 0 }));
  const sorted = [...all].sort((a, b) => b.chance - a.chance), largest = drawn && sorted[0];
  const name = (/** @type {number} */ i) => config.classes?.[i] ?? String(i), percent = (/** @type {number} */ x) => `${(100 * x).toFixed(1)} %`;
  const rows = (all.length > 10 ? sorted.slice(0, 10) : all).map(({ index, chance }) => {
    const row = document.createElement("li");
    row.innerHTML = '<span></span><div class="bar"><i></i></div><output></output>';
    row.classList.toggle("largest", index === largest?.index);
    /** @type {any} */ (row.children[0]).textContent = name(index);
    /** @type {any} */ (row.querySelector("i")).style.width = `${100 * chance}%`;
    /** @type {any} */ (row.children[2]).textContent = drawn ? percent(chance) : "–";
    return row;
  });
  element("bars").replaceChildren(...rows);
  element("answer").children[0].textContent = largest ? percent(largest.chance) : "";
  element("answer").children[1].textContent = largest ? name(largest.index) : "–";
  if (microseconds) {
    const kind = network?.simd ? "WebAssembly with SIMD" : "WebAssembly without SIMD";
    element("time").textContent = `${microseconds < 100 ? microseconds.toFixed(1) : Math.round(microseconds).toLocaleString("en")} µs per classification, ${kind}`;
  }
}

/** Number of codes of a weight that are shown, and of pixels of a picture. */
const MOST = 1 << 18, PIXELS = 1 << 20;

/** Draws the codes of a weight: the kernels of each pair of channels, or a matrix. @param {Weight} weight @returns {HTMLElement} */
function picture({ name, shape, codes }) {
  const [rows, columns, height, width] = shape.length === 4 ? shape : [shape[0], codes.length / shape[0] || 1, 1, 1];
  const gap = height * width > 1 ? 1 : 0, shown = Math.max(1, Math.min(rows, Math.floor(MOST / (columns * height * width))));
  // The longer side is horizontal.
  const turned = shown * height > columns * width;
  const [across, down] = turned ? [shown, columns] : [columns, shown];
  const size = [across * (width + gap) - gap, down * (height + gap) - gap], scale = Math.sqrt(PIXELS / size[0] / size[1]);
  const cell = Math.max(1, Math.min(6, Math.floor(scale)));
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [size[0] * cell, size[1] * cell];
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  ["minus", "zero", "accent"].map(color).forEach((color, code) => {
    context.fillStyle = color;
    for (let i = 0; i < shown * columns * height * width; i++) {
      if (codes[i] + 1 !== code) continue;
      const [x, y] = [i % width, Math.floor(i / width) % height];
      const [column, row] = [Math.floor(i / width / height) % columns, Math.floor(i / width / height / columns)];
      const [a, d] = turned ? [row, column] : [column, row];
      context.fillRect((a * (width + gap) + x) * cell, (d * (height + gap) + y) * cell, cell, cell);
    }
  });
  const figure = document.createElement("figure"), caption = document.createElement("figcaption");
  const zeros = codes.reduce((count, code) => count + (code ? 0 : 1), 0);
  const part = shown < rows ? `, the first ${shown} of ${rows}` : "";
  caption.textContent = `${name} [${shape.join(", ")}], ${((100 * zeros) / codes.length).toFixed(0)} % zeros${part}`;
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `the codes of ${name}`);
  figure.append(caption, canvas);
  return figure;
}

/** Returns a color of the present scheme. @param {string} name @returns {string} */
function color(name) {
  const probe = document.createElement("i");
  probe.style.color = `var(--${name})`;
  document.body.append(probe);
  const { color } = getComputedStyle(probe);
  probe.remove();
  return color;
}

function clear() {
  strokes = [];
  draw();
  update();
}

/** Whether there is a network that reads no image; what is drawn before one is loaded is classified later. */
const unusable = () => network && !image;
/** @param {PointerEvent} event @returns {[number, number]} */
const position = (event) => [event.offsetX / paper.clientWidth, event.offsetY / paper.clientHeight];
paper.addEventListener("pointerdown", (event) => {
  if (unusable() || event.button || !event.isPrimary) return;
  paper.setPointerCapture(event.pointerId);
  pen.shown = pen.down = false;
  strokes.push([position(event)]);
  draw();
  update();
});
paper.addEventListener("pointermove", (event) => {
  if (!strokes.length || !event.isPrimary || !paper.hasPointerCapture(event.pointerId)) return;
  strokes[strokes.length - 1].push(position(event));
  draw();
  update();
});
paper.addEventListener("keydown", (event) => {
  const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
  if (unusable() || (!step && ![" ", "Enter", "Escape"].includes(event.key))) return;
  event.preventDefault();
  if (event.key === "Escape") {
    pen.down = false;
    clear();
  } else if (step) {
    const limited = (/** @type {number} */ x) => Math.min(0.95, Math.max(0.05, x));
    [pen.x, pen.y, pen.shown] = [limited(pen.x + step[0] / 20), limited(pen.y + step[1] / 20), true];
    if (pen.down) strokes[strokes.length - 1].push([pen.x, pen.y]);
  } else {
    [pen.down, pen.shown] = [!pen.down, true];
    if (pen.down) strokes.push([[pen.x, pen.y]]);
  }
  draw();
  update();
});
paper.addEventListener("focus", () => {
  pen.shown = paper.matches(":focus-visible");
  draw();
});
paper.addEventListener("blur", () => {
  pen.shown = pen.down = false;
  draw();
});
element("clear").addEventListener("click", clear);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  if (network) element("weights").replaceChildren(...network.weights.map(picture));
});

const stored = element("network").dataset;
const first = ask("start", {
  text: element("modules").textContent,
  packed: +element("modules").dataset.packed,
  simd: +element("modules").dataset.simd,
  scalar: +element("modules").dataset.scalar,
  // For a comparison: the module without vectors.
  portable: location.hash === "#scalar",
}).then(() => ask("unpack", { text: element("network").textContent, packed: +stored.packed, length: +stored.length }));
first.then((file) => tryOpen(file, stored.name), (error) => show(`this browser cannot run the page: ${error.message}`));

element("file").addEventListener("change", async (/** @type {any} */ event) => {
  const [file] = event.target.files;
  event.target.value = "";
  if (!file) return;
  const bytes = new Uint8Array(await file.arrayBuffer());
  await first;
  await tryOpen(bytes, file.name, network?.shape);
  element("reset").hidden = false;
});
element("reset").addEventListener("click", async () => {
  element("reset").hidden = true;
  tryOpen(await first, stored.name);
});
