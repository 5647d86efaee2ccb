// The decoder: the steps of decoder.py as loops over arrays of floats.

function bytesOf(base64) {
  const letters = atob(base64);  // By a loop: `from` takes seconds.
  const bytes = new Uint8Array(letters.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = letters.charCodeAt(i);
  return bytes;
}

// Float16 as float32, by a table of all values: older browsers have no
// Float16Array.
function floatsOf16(base64) {
  const table = new Float32Array(65536);
  for (let bits = 0; bits < table.length; bits++) {
    const sign = bits & 0x8000 ? -1 : 1;
    const exponent = (bits >> 10) & 31;
    const fraction = bits & 1023;
    table[bits] = sign * (
      exponent === 0 ? fraction * 2 ** -24
        : exponent === 31 ? (fraction ? NaN : Infinity)
          : (1024 + fraction) * 2 ** (exponent - 25));
  }
  const halves = new Uint16Array(bytesOf(base64).buffer);
  const floats = new Float32Array(halves.length);
  for (let i = 0; i < floats.length; i++) floats[i] = table[halves[i]];
  return floats;
}

const sigmoid = (x) => 1 / (1 + Math.exp(-x));

const ACTIVATIONS = {
  tanh: Math.tanh,
  relu: (x) => Math.max(x, 0),
  gelu: (x) => 0.5 * x * (1 + Math.tanh(
    Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))),
  silu: (x) => x * sigmoid(x),
  softplus: (x) => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x))),
};

function dense(x, step, kernel, bias) {
  const y = bias.slice();
  for (let i = 0; i < step.in; i++) {
    const row = i * step.out;
    for (let o = 0; o < step.out; o++) y[o] += x[i] * kernel[row + o];
  }
  return y;
}

// A group norm over the pixels and channels of each group.
function norm(x, step, scale, bias) {
  const { channels, groups } = step;
  const size = channels / groups;
  const count = (x.length / channels) * size;
  const y = new Float32Array(x.length);
  for (let first = 0; first < channels; first += size) {
    let sum = 0;
    let squares = 0;
    for (let p = first; p < x.length; p += channels) {
      for (let c = 0; c < size; c++) {
        sum += x[p + c];
        squares += x[p + c] ** 2;
      }
    }
    const mean = sum / count;
    const variance = Math.max(squares / count - mean ** 2, 0);
    const factor = 1 / Math.sqrt(variance + 1e-6);
    for (let p = first; p < x.length; p += channels) {
      for (let c = 0; c < size; c++) {
        y[p + c] = (x[p + c] - mean) * factor * scale[first + c]
          + bias[first + c];
      }
    }
  }
  return y;
}

// A transposed convolution, 4x4 and stride 2: every pixel adds a patch.
function upsample(x, step, kernel, bias) {
  const { height, width, in: inputs, out: outputs } = step;
  const line = 2 * width * outputs;
  const y = new Float32Array(2 * height * line);
  for (let p = 0; p < y.length; p += outputs) y.set(bias, p);
  for (let i = 0; i < height; i++) {
    for (let a = 0; a < 4; a++) {
      const row = 2 * i - 1 + a;
      if (row < 0 || row >= 2 * height) continue;
      for (let b = 0; b < 4; b++) {
        for (let j = 0; j < width; j++) {
          const column = 2 * j - 1 + b;
          if (column < 0 || column >= 2 * width) continue;
          addPixel(
            y, row * line + column * outputs, outputs, x,
            (i * width + j) * inputs, inputs, kernel,
            (a * 4 + b) * inputs * outputs);
        }
      }
    }
  }
  return y;
}

// y[start + o] += sum over i of x[from + i] kernel[at + i * outputs + o]. Four
// inputs at a time, so that y is read and written a quarter as often.
function addPixel(y, start, outputs, x, from, inputs, kernel, at) {
  let i = 0;
  for (; i + 4 <= inputs; i += 4) {
    const [x0, x1, x2, x3] = [
      x[from + i], x[from + i + 1], x[from + i + 2], x[from + i + 3]];
    const k0 = at + i * outputs;
    const k1 = k0 + outputs;
    const k2 = k1 + outputs;
    const k3 = k2 + outputs;
    for (let o = 0; o < outputs; o++) {
      y[start + o] += x0 * kernel[k0 + o] + x1 * kernel[k1 + o]
        + x2 * kernel[k2 + o] + x3 * kernel[k3 + o];
    }
  }
  for (; i < inputs; i++) {
    for (let o = 0; o < outputs; o++) {
      y[start + o] += x[from + i] * kernel[at + i * outputs + o];
    }
  }
}

const LAYERS = {
  dense: [dense, (s) => [s.in * s.out, s.out]],
  norm: [norm, (s) => [s.channels, s.channels]],
  upsample: [upsample, (s) => [16 * s.in * s.out, s.out]],
};

// A function from a joined code to the mean of every pixel, as numbers of
// which those from 0 to 1 are seen.
function makeDecoder(block) {
  const weights = floatsOf16(block.weights);
  let used = 0;
  const run = block.steps.map((step) => {
    if (!(step.kind in LAYERS)) return (x) => x.map(ACTIVATIONS[step.kind]);
    const [layer, sizes] = LAYERS[step.kind];
    const own = sizes(step).map((size) => {
      used += size;
      return weights.subarray(used - size, used);
    });
    return (x) => layer(x, step, ...own);
  });
  if (block.output === 'sigmoid') run.push((x) => x.map(sigmoid));
  return (code) => run.reduce((x, step) => step(x), Float32Array.from(code));
}
