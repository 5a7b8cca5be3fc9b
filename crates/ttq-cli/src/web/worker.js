// The worker of the page: unpacks the module, loads networks and runs them.

/** @typedef {{ shape: number[], classes: number, bytes: number, config: string, weights: Weight[], simd: boolean }} Loaded */
/** @typedef {{ name: string, shape: number[], codes: Int8Array }} Weight */

/**
 * Decodes text: a character is 7 bits, the lowest first. Four of them are escaped.
 * @param {string} text @param {number} length @returns {Uint8Array}
 */
function decode(text, length) {
  const bytes = new Uint8Array(length);
  for (let i = 0, at = 0, bits = 0, buffer = 0; at < length; i++) {
    let digit = text.charCodeAt(i);
    if (digit === 127) digit = [0, 13, 60, 127][text.charCodeAt(++i) - 48];
    buffer |= digit << bits;
    bits += 7;
    if (bits < 8) continue;
    bytes[at++] = buffer;
    buffer >>>= 8;
    bits -= 8;
  }
  return bytes;
}

/**
 * Decompresses the first bytes of a raw LZMA stream with lc = 3, lp = 0 and pb = 0.
 * @param {Uint8Array} packed @param {number} length @returns {Uint8Array<ArrayBuffer>}
 */
function unpack(packed, length) {
  const bytes = new Uint8Array(length);
  const LENGTHS = 274, SLOTS = 64;
  // Literals; then, for each of 12 states: match, repeated, which distance (4); lengths; distances.
  const LITERALS = 0, MATCH = 8 * 768, REPEATED = MATCH + 12, WHICH = REPEATED + 12, FIRST = WHICH + 48;
  const AGAIN = FIRST + LENGTHS, SLOT = AGAIN + LENGTHS, NEAR = SLOT + 4 * SLOTS, ALIGN = NEAR + 128;
  const chances = new Uint16Array(ALIGN + 16).fill(1024);
  let at = 5, range = 0xffffffff, code = new DataView(packed.buffer, packed.byteOffset).getUint32(1);
  const normalize = () => {
    if (range < 0x1000000) {
      range *= 256;
      code = code * 256 + packed[at++];
    }
  };
  const bit = (/** @type {number} */ index) => {
    normalize();
    const bound = (range >>> 11) * chances[index];
    if (code < bound) {
      range = bound;
      chances[index] += (2048 - chances[index]) >> 5;
      return 0;
    }
    range -= bound;
    code -= bound;
    chances[index] -= chances[index] >> 5;
    return 1;
  };
  const tree = (/** @type {number} */ first, /** @type {number} */ bits) => {
    let node = 1;
    for (let i = 0; i < bits; i++) node = 2 * node + bit(first + node);
    return node - (1 << bits);
  };
  const reversed = (/** @type {number} */ first, /** @type {number} */ bits) => {
    let node = 1, value = 0;
    for (let i = 0; i < bits; i++) {
      const next = bit(first + node);
      node = 2 * node + next;
      value |= next << i;
    }
    return value;
  };
  const lengthAt = (/** @type {number} */ first) => {
    if (!bit(first)) return 2 + tree(first + 2, 3);
    return bit(first + 1) ? 18 + tree(first + 18, 8) : 10 + tree(first + 10, 3);
  };
  const distanceOf = (/** @type {number} */ run) => {
    const slot = tree(SLOT + SLOTS * Math.min(run - 2, 3), 6);
    if (slot < 4) return slot;
    const bits = (slot >> 1) - 1, high = (2 | (slot & 1)) << bits;
    if (slot < 14) return high + reversed(NEAR + high - slot, bits);
    let middle = 0;
    for (let i = 4; i < bits; i++) {
      normalize();
      range = range / 2 >>> 0;
      const one = code >= range ? 1 : 0;
      if (one) code -= range;
      middle = 2 * middle + one;
    }
    return high + 16 * middle + reversed(ALIGN, 4);
  };
  /** @type {number[]} */
  let distances = [0, 0, 0, 0];
  for (let to = 0, state = 0; to < length;) {
    if (!bit(MATCH + state)) {
      const first = LITERALS + 768 * (to ? bytes[to - 1] >> 5 : 0);
      let node = 1;
      if (state >= 7) {
        let match = bytes[to - distances[0] - 1], same = true;
        while (node < 256 && same) {
          const expected = (match >> 7) & 1, next = bit(first + 256 * (1 + expected) + node);
          node = 2 * node + next;
          match <<= 1;
          same = next === expected;
        }
      }
      while (node < 256) node = 2 * node + bit(first + node);
      bytes[to++] = node;
      state = state < 4 ? 0 : state - (state < 10 ? 3 : 6);
      continue;
    }
    let run = 0;
    if (!bit(REPEATED + state)) {
      run = lengthAt(FIRST);
      distances = [distanceOf(run), distances[0], distances[1], distances[2]];
      state = state < 7 ? 7 : 10;
    } else {
      const which = WHICH + 4 * state;
      if (!bit(which)) {
        if (!bit(which + 3)) run = 1;
      } else {
        const index = !bit(which + 1) ? 1 : bit(which + 2) ? 3 : 2;
        distances.unshift(distances.splice(index, 1)[0]);
      }
      state = run ? (state < 7 ? 9 : 11) : state < 7 ? 8 : 11;
      run ||= lengthAt(AGAIN);
    }
    for (let end = Math.min(to + run, length); to < end; to++) bytes[to] = bytes[to - distances[0] - 1];
  }
  return bytes;
}

/** @type {WebAssembly.Module} */
let module;
/** @type {boolean} */
let simd;
/** @type {{ wasm: any, session: number, inputs: number, outputs: number } | undefined} */
let network;

/**
 * Compiles the module with vectors, or the other one if this browser has no vectors.
 * @param {{ text: string, packed: number, simd: number, scalar: number, portable: boolean }} modules
 */
function start({ text, packed, simd: first, scalar, portable }) {
  const bytes = decode(text, packed), vectors = unpack(bytes, first);
  simd = !portable && WebAssembly.validate(vectors);
  module = new WebAssembly.Module(simd ? vectors : unpack(bytes, first + scalar).subarray(first));
}

/** @param {any} wasm @param {number} address @param {number} length */
const textAt = (wasm, address, length) => new TextDecoder().decode(new Uint8Array(wasm.memory.buffer, address, length));

/**
 * Loads a file. The network before stays if it has an error.
 * @param {{ file: Uint8Array, expected?: number[], int8?: number }} message @returns {Loaded}
 */
function load({ file, expected, int8 = 0 }) {
  const wasm = /** @type {any} */ (new WebAssembly.Instance(module).exports);
  const session = wasm.ttq_open(file.length);
  if (!session) throw Error("the file is larger than the memory of this page");
  new Uint8Array(wasm.memory.buffer, wasm.ttq_file(session), file.length).set(file);
  const failed = wasm.ttq_load(session, int8);
  if (failed) throw Error(textAt(wasm, wasm.ttq_error(session), failed));
  const [shape, outputs] = [0, 1].map((output) => {
    const dims = [];
    for (let dim; (dim = wasm.ttq_dim(session, output, dims.length));) dims.push(dim);
    return dims;
  });
  if (expected && String(expected) !== String(shape)) {
    throw Error(`the input of this network is [${shape.join(", ")}], that of this page is [${expected.join(", ")}]`);
  }
  const size = (/** @type {number[]} */ dims) => dims.reduce((product, dim) => product * dim, 1);
  // The module has checked the header.
  const header = JSON.parse(new TextDecoder().decode(file.subarray(8, 8 + Number(new DataView(file.buffer, file.byteOffset).getBigUint64(0, true)))));
  const { weights: layouts, config } = JSON.parse(header.__metadata__["ttq-packed"]);
  const { values } = JSON.parse(header.__metadata__["ttq-network"]).graph;
  const names = values.map((/** @type {any} */ value) => value.constant).filter((/** @type {string} */ name) => Object.hasOwn(layouts, name));
  const weights = names.map((/** @type {string} */ name, /** @type {number} */ i) => {
    const count = wasm.ttq_unpack(session, i);
    return { name, shape: layouts[name].shape, codes: new Int8Array(wasm.memory.buffer, wasm.ttq_codes(session), count).slice() };
  });
  network = { wasm, session, inputs: size(shape), outputs: size(outputs) };
  return { shape, classes: network.outputs, bytes: file.length, config: config || "", weights, simd };
}

/**
 * Runs the network, again and again for some milliseconds: clocks of browsers are coarse.
 * @param {{ input: Float32Array, milliseconds?: number }} message @returns {{ output: Float32Array, microseconds: number }}
 */
function run({ input, milliseconds = 4 }) {
  if (!network) throw Error("no network is loaded: open a file first");
  const { wasm, session, inputs, outputs } = network;
  if (input.length !== inputs) throw Error(`the input has ${input.length} numbers, the network reads ${inputs}`);
  new Float32Array(wasm.memory.buffer, wasm.ttq_input(session), inputs).set(input);
  const begin = performance.now();
  let runs = 0, elapsed = 0;
  do {
    const failed = wasm.ttq_run(session);
    if (failed) throw Error(textAt(wasm, wasm.ttq_error(session), failed));
    runs++;
    elapsed = performance.now() - begin;
  } while (elapsed < milliseconds);
  const output = new Float32Array(wasm.memory.buffer, wasm.ttq_output(session), outputs).slice();
  return { output, microseconds: (1000 * elapsed) / runs };
}

/** @type {Record<string, (message: any) => any>} */
const commands = {
  start,
  unpack: ({ text, packed, length }) => unpack(decode(text, packed), length),
  load,
  run,
};

onmessage = ({ data }) => {
  try {
    postMessage({ id: data.id, result: commands[data.command](data) });
  } catch (error) {
    const stopped = error instanceof WebAssembly.RuntimeError || error instanceof RangeError;
    const text = stopped ? "the module stopped: the network needs more memory than this page has" : /** @type {Error} */ (error).message;
    if (stopped && data.command === "run") network = undefined;
    postMessage({ id: data.id, error: text });
  }
};
