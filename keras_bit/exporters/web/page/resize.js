// Resizes 8-bit images as Pillow does, with exactly its values.
//
// One pass resizes the width, another the height. An output value is a weighted sum of the input values around it. The
// weights are fixed-point numbers, and both passes round their values to 8 bits.
//
// Source: Pillow 13.0, src/libImaging/Resample.c, Geometry.c and src/PIL/Image.py. Checked against Pillow itself.

const FRACTIONAL_BITS = 22; // Pillow's PRECISION_BITS: 32 less 8 for the value and 2 for sums beyond its range
const CHANNELS = 3;

const sinc = (x) => (x === 0 ? 1 : Math.sin(x * Math.PI) / (x * Math.PI));

function bicubic(x) {
  x = Math.abs(x);
  if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
  return x < 2 ? (((x - 5) * x + 8) * x - 4) * -0.5 : 0;
}

function hamming(x) {
  x = Math.abs(x);
  // C's 0.54f and 0.46f are float32.
  return x < 1 ? sinc(x) * (Math.fround(0.54) + Math.fround(0.46) * Math.cos(x * Math.PI)) : 0;
}

// Pillow's number of a filter to the filter: its weight at a distance, and how far it reaches, in output pixels.
const NEAREST = 0;
const FILTERS = {
  1: { weight: (x) => (x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0), radius: 3 }, // Lanczos
  2: { weight: (x) => Math.max(1 - Math.abs(x), 0), radius: 1 }, // bilinear
  3: { weight: bicubic, radius: 2 },
  4: { weight: (x) => (x > -0.5 && x <= 0.5 ? 1 : 0), radius: 0.5 }, // box
  5: { weight: hamming, radius: 1 },
};

// Returns which pixels the outputs `first` to `first + count - 1` read, with their weights, if `size` pixels become
// `resized` in one direction.
function directionOf(size, resized, first, count, resample) {
  if (resample === NEAREST) return nearest(size, resized, first, count);
  const { weight, radius } = FILTERS[resample];
  const scale = size / resized;
  const stretch = Math.max(scale, 1);
  const support = radius * stretch;
  const taps = 2 * Math.ceil(support) + 1;
  const starts = new Int32Array(count);
  const lengths = new Int32Array(count);
  const weights = new Int32Array(count * taps);
  const row = new Float64Array(taps);
  for (let output = 0; output < count; output++) {
    const center = (first + output + 0.5) * scale;
    const start = Math.max(Math.trunc(center - support + 0.5), 0);
    const length = Math.min(Math.trunc(center + support + 0.5), size) - start;
    let total = 0;
    for (let tap = 0; tap < length; tap++) {
      row[tap] = weight((tap + start - center + 0.5) * (1 / stretch));
      total += row[tap];
    }
    for (let tap = 0; tap < length; tap++) {
      const units = (total === 0 ? row[tap] : row[tap] / total) * 2 ** FRACTIONAL_BITS;
      weights[output * taps + tap] = Math.trunc(units + (units < 0 ? -0.5 : 0.5));
    }
    starts[output] = start;
    lengths[output] = length;
  }
  return { starts, lengths, weights, taps };
}

function nearest(size, resized, first, count) {
  const starts = new Int32Array(count);
  const lengths = new Int32Array(count);
  const weights = new Int32Array(count).fill(2 ** FRACTIONAL_BITS);
  const step = size / resized;
  let place = step * 0.5; // Pillow adds up the steps one by one
  for (let output = 0; output < first + count; output++) {
    if (output >= first) {
      const start = Math.trunc(place);
      starts[output - first] = Math.min(start, size - 1);
      lengths[output - first] = start < size ? 1 : 0; // rounding puts a few outside of the image; they are black
    }
    place += step;
  }
  return { starts, lengths, weights, taps: 1 };
}

const clipped = (sum) => {
  const value = sum >> FRACTIONAL_BITS;
  return value < 0 ? 0 : value > 255 ? 255 : value;
};

function horizontally(pixels, width, height, direction) {
  const { starts, lengths, weights, taps } = direction;
  const count = starts.length;
  const result = new Uint8Array(count * height * CHANNELS);
  let place = 0;
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < count; x++) {
      let red = 2 ** (FRACTIONAL_BITS - 1);
      let green = red;
      let blue = red;
      let source = (y * width + starts[x]) * CHANNELS;
      for (let tap = x * taps, end = tap + lengths[x]; tap < end; tap++, source += CHANNELS) {
        red += pixels[source] * weights[tap];
        green += pixels[source + 1] * weights[tap];
        blue += pixels[source + 2] * weights[tap];
      }
      result[place++] = clipped(red);
      result[place++] = clipped(green);
      result[place++] = clipped(blue);
    }
  }
  return result;
}

function vertically(pixels, width, height, direction) {
  const { starts, lengths, weights, taps } = direction;
  const count = starts.length;
  const line = width * CHANNELS;
  const result = new Uint8Array(count * line);
  const sums = new Int32Array(line); // for a whole row, because the pixels of a row are next to each other in memory
  for (let y = 0; y < count; y++) {
    sums.fill(2 ** (FRACTIONAL_BITS - 1));
    for (let tap = 0; tap < lengths[y]; tap++) {
      const weight = weights[y * taps + tap];
      const source = (starts[y] + tap) * line;
      for (let x = 0; x < line; x++) sums[x] += pixels[source + x] * weight;
    }
    for (let x = 0; x < line; x++) result[y * line + x] = clipped(sums[x]);
  }
  return result;
}

// Some versions of Pillow resize the height of some images first, which rounds differently.
const VERTICAL_FIRST = {
  never: () => false,
  "very high": (size, resized) => size.height > resized.height && size.height > 100 * size.width,
  "where it saves": (size, resized) =>
    size.height > resized.height && size.height - resized.height > 2 * (size.width - resized.width),
};

// Returns the part `window` of Pillow's `Image.resize((resized.width, resized.height), resample)`.
//
// pixels: a Uint8Array of (height, width, 3). size, resized: { width, height }. window: { left, top, width, height }
// inside the resized image. order: a key of VERTICAL_FIRST. Returns a Uint8Array of (height, width, 3) of the window.
export function resize(pixels, size, resized, resample, window, order) {
  const columns = directionOf(size.width, resized.width, window.left, window.width, resample);
  const rows = directionOf(size.height, resized.height, window.top, window.height, resample);
  if (VERTICAL_FIRST[order](size, resized)) {
    return horizontally(vertically(pixels, size.width, size.height, rows), size.width, window.height, columns);
  }
  return vertically(horizontally(pixels, size.width, size.height, columns), window.width, size.height, rows);
}
