// Draws a class activation map over the picture, as the command `keras-bit explain` does.

const OPAQUE = 0.7; // how much of the strongest color lies over the gray picture
const DARK = 50; // black and white become these values, because colors cannot be seen on black
const LIGHT = 230;
const AGAINST = [20, 80, 200]; // blue and red, because many people cannot tell green and red apart
const FOR = [225, 30, 10];

// Divides `size` pixels of the model's input into `count` pixels. Returns for each the position of the map before it,
// the position after it, and its distance from the first, as a share of the distance between both.
function between(count, size, positions, { stride, first }) {
  return Array.from({ length: count }, (_, index) => {
    const place = ((index + 0.5) * size) / count - 0.5;
    const position = Math.min(Math.max((place - first) / stride, 0), positions - 1);
    const before = Math.min(Math.floor(position), positions - 1);
    return [before, Math.min(before + 1, positions - 1), position - before];
  });
}

// Returns the map for each pixel of the drawn picture: linear between its positions, constant beyond the outermost.
//
// map: { data, height, width }. drawn: { height, width } of the picture on the page. input: { height, width } of the
// model's input. geometry: { stride, first }, the distance of the map's positions and the place of the first, in pixels
// of the input. Returns a Float32Array of (drawn.height, drawn.width).
export function interpolated(map, drawn, input, geometry) {
  const rows = between(drawn.height, input.height, map.height, geometry);
  const columns = between(drawn.width, input.width, map.width, geometry);
  const result = new Float32Array(drawn.height * drawn.width);
  let place = 0;
  for (const [above, below, down] of rows) {
    const line = Array.from(
      { length: map.width },
      (_, x) => map.data[above * map.width + x] * (1 - down) + map.data[below * map.width + x] * down,
    );
    for (const [left, right, across] of columns) result[place++] = line[left] * (1 - across) + line[right] * across;
  }
  return result;
}

export const strongest = (heat) => heat.reduce((most, value) => Math.max(most, Math.abs(value)), 0);

// Colors the pixels of an ImageData. `heat` has a value for each pixel.
export function paint({ data }, heat) {
  const most = strongest(heat) || 1;
  for (let pixel = 0; pixel < heat.length; pixel++) {
    const place = 4 * pixel;
    const light = (0.299 * data[place] + 0.587 * data[place + 1] + 0.114 * data[place + 2]) / 255;
    const gray = DARK + light * (LIGHT - DARK);
    const share = heat[pixel] / most;
    const strength = OPAQUE * Math.abs(share);
    const color = share < 0 ? AGAINST : FOR;
    for (let channel = 0; channel < 3; channel++) {
      data[place + channel] = gray * (1 - strength) + color[channel] * strength;
    }
  }
}
