"use strict";
// The network of stbp/paper/quantized.py, spike for spike: the same random numbers, the same float32 arithmetic.

// The upper and lower half of the 64-bit product of two words of 32 bits.
function multiply(a, b) {
  const a0 = a & 0xffff, a1 = a >>> 16, b0 = b & 0xffff, b1 = b >>> 16;
  const middle = a1 * b0 + ((a0 * b0) >>> 16); // below 2^32
  const rest = a0 * b1 + (middle & 0xffff); // below 2^32
  return [(a1 * b1 + (middle >>> 16) + (rest >>> 16)) >>> 0, Math.imul(a, b) >>> 0];
}

// Philox 4x32 with 10 rounds: four words of counter, two of key.
function philox(c0, c1, c2, c3, k0, k1) {
  for (let round = 0; round < 10; round++) {
    const [high0, low0] = multiply(c0, 0xd2511f53), [high1, low1] = multiply(c2, 0xcd9e8d57);
    [c0, c1, c2, c3] = [(high1 ^ c1 ^ k0) >>> 0, low1, (high0 ^ c3 ^ k1) >>> 0, low0];
    k0 = (k0 + 0x9e3779b9) >>> 0;
    k1 = (k1 + 0xbb67ae85) >>> 0;
  }
  return [c0, c1, c2, c3];
}

// Indices of the pixels that fire in each of T steps; a pixel of 255 always does.
function encode(image, T, seed, sample) {
  const steps = Array.from({ length: T }, () => []);
  image.forEach((value, pixel) => {
    const level = Math.ceil(Math.fround(value / 255) * 2 ** 24);
    if (level === 0) return;
    for (let t = 0; t < T; t += 4) {
      philox(pixel, t >>> 2, sample, 0, seed, 0).forEach((word, i) => {
        if (t + i < T && word >>> 8 < level) steps[t + i].push(pixel);
      });
    }
  });
  return steps;
}

// One step of a layer: whole numbers are added up, so their order does not matter.
function advance(layer, net, spikes) {
  const fired = [], { weight, inputs } = layer;
  for (let n = 0, row = 0; n < layer.u.length; n++, row += inputs) {
    let sum = layer.bias[n];
    for (const i of spikes) sum += weight[row + i];
    const kept = Math.fround(layer.u[n] * (layer.o[n] ? net.keep1 : net.keep0));
    layer.u[n] = kept + sum * layer.step[n]; // u is a Float32Array: this rounds
    layer.o[n] = layer.u[n] >= net.threshold ? 1 : 0;
    if (layer.o[n]) fired.push(n);
  }
  return fired;
}

// Bytes in base64 become the weights; the numbers of the neuron are rounded to float32 once.
function unpack(packed) {
  const [threshold, keep0, keep1] = [packed.threshold, packed.keep0, packed.keep1].map(Math.fround);
  const layers = packed.layers.map((layer) => {
    const bytes = atob(layer.weight);
    const weight = Int8Array.from({ length: bytes.length }, (_, i) => bytes.charCodeAt(i));
    return { weight, inputs: layer.inputs, bias: layer.bias, step: layer.exponent.map((e) => 2 ** -e) };
  });
  return { ...packed, threshold, keep0, keep1, layers };
}

// The layers of a network before the first step: potentials and spikes are zero.
function atRest(net) {
  return net.layers.map((layer) => ({
    ...layer, u: new Float32Array(layer.bias.length), o: new Uint8Array(layer.bias.length),
  }));
}

// Spikes of one image (bytes 0..255) through all layers: for each step, indices of what fired in input and layers.
function run(net, image, sample) {
  const layers = atRest(net);
  return encode(image, net.T, net.seed, sample).map((input) => {
    const fired = [input];
    for (const layer of layers) fired.push(advance(layer, net, fired[fired.length - 1]));
    return fired;
  });
}

// Strokes, lists of points [x, y] in any unit, as MNIST's digits are: fitted into 20 x 20 pixels, put into 28 x 28 by
// their centre of mass. Bytes 0..255, row by row; the pen is equally wide however small the drawing is.
function normalise(strokes, size = 28, box = 20, pen = 1.15, smallest = 0.12) {
  const points = strokes.flat(), image = new Uint8Array(size * size);
  if (points.length === 0) return image;
  const [xs, ys] = [points.map((p) => p[0]), points.map((p) => p[1])];
  const [left, right, top, bottom] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  const scale = (box - 2 * pen) / Math.max(right - left, bottom - top, smallest);
  let [dx, dy] = [size / 2 - (scale * (left + right)) / 2, size / 2 - (scale * (top + bottom)) / 2];
  for (let pass = 0; pass < 2; pass++) {
    let mass = 0, mx = 0, my = 0;
    for (let y = 0; y < size; y++) {
      for (let x = 0; x < size; x++) {
        let nearest = Infinity;
        for (const stroke of strokes) {
          stroke.forEach((point, i) => {
            const [ax, ay] = [point[0] * scale + dx, point[1] * scale + dy];
            const [bx, by] = [stroke[Math.max(0, i - 1)][0] * scale + dx, stroke[Math.max(0, i - 1)][1] * scale + dy];
            const length = (bx - ax) ** 2 + (by - ay) ** 2;
            const along = length && ((x + 0.5 - ax) * (bx - ax) + (y + 0.5 - ay) * (by - ay)) / length;
            const share = Math.min(1, Math.max(0, along));
            nearest = Math.min(nearest, Math.hypot(ax + share * (bx - ax) - x - 0.5, ay + share * (by - ay) - y - 0.5));
          });
        }
        const ink = Math.round(255 * Math.min(1, Math.max(0, pen + 0.5 - nearest)));
        image[y * size + x] = ink;
        mass += ink;
        mx += ink * (x + 0.5);
        my += ink * (y + 0.5);
      }
    }
    dx += size / 2 - mx / mass;
    dy += size / 2 - my / mass;
  }
  return image;
}
