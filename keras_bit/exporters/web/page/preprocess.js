// Makes the model's input from the pixels of an image, with the steps of keras_bit's processor and exactly its values.
//
// `processor` is an object of settings.json: do_resize, size, resample, do_center_crop, crop_size, do_rescale,
// rescale_factor, do_normalize, image_mean, image_std; and vertical_first, the order of the Pillow that exported.

import { resize } from "./resize.js";

export const CHANNELS = 3;

// Returns the width and height that an image is resized to, by the rule of transformers for `size`.
export function resizedSize({ width, height }, processor) {
  const { size } = processor;
  if (!processor.do_resize) return { width, height };
  if (!("shortest_edge" in size)) return { width: size.width, height: size.height };
  const short = size.shortest_edge;
  if (width <= height) return { width: short, height: Math.trunc((short * height) / width) };
  return { width: Math.trunc((short * width) / height), height: short };
}

// Returns the part of the resized image that the model sees. It begins below 0 if the image is smaller than the crop.
export function crop(resized, processor) {
  if (!processor.do_center_crop) return { left: 0, top: 0, ...resized };
  const { width, height } = processor.crop_size;
  return {
    left: Math.floor((resized.width - width) / 2),
    top: Math.floor((resized.height - height) / 2),
    width,
    height,
  };
}

// Returns the part of the original image that the model sees: { left, top, width, height } in its pixels.
export function seen(size, processor) {
  const resized = resizedSize(size, processor);
  const cut = crop(resized, processor);
  const across = size.width / resized.width;
  const down = size.height / resized.height;
  return { left: cut.left * across, top: cut.top * down, width: cut.width * across, height: cut.height * down };
}

// Returns the preprocessed values of 0 to 255 in a channel.
function tableOf(processor, channel) {
  const of = (option) => Math.fround(Array.isArray(option) ? option[channel] : option);
  const mean = of(processor.image_mean);
  const deviation = of(processor.image_std);
  return Float32Array.from({ length: 256 }, (_, value) => {
    if (processor.do_rescale) value = Math.fround(value * processor.rescale_factor);
    return processor.do_normalize ? Math.fround(Math.fround(value - mean) / deviation) : value;
  });
}

// pixels: a Uint8Array of (height, width, 3). Returns a Float32Array of (height, width, 3) of the crop.
export function preprocess(pixels, size, processor) {
  const resized = resizedSize(size, processor);
  const cut = crop(resized, processor);
  const left = Math.max(cut.left, 0);
  const top = Math.max(cut.top, 0);
  const window = {
    left,
    top,
    width: Math.min(cut.left + cut.width, resized.width) - left,
    height: Math.min(cut.top + cut.height, resized.height) - top,
  };
  const part = processor.do_resize
    ? resize(pixels, size, resized, processor.resample, window, processor.vertical_first)
    : cutOut(pixels, size, window);

  const tables = [0, 1, 2].map((channel) => tableOf(processor, channel));
  const result = new Float32Array(cut.width * cut.height * CHANNELS);
  // Outside of the image the crop is black, and black is rescaled and normalized like every value.
  for (let place = 0; place < result.length; place++) result[place] = tables[place % CHANNELS][0];
  for (let y = 0; y < window.height; y++) {
    let source = y * window.width * CHANNELS;
    let place = ((y + top - cut.top) * cut.width + left - cut.left) * CHANNELS;
    for (let x = 0; x < window.width; x++) {
      for (const table of tables) result[place++] = table[part[source++]];
    }
  }
  return result;
}

function cutOut(pixels, size, window) {
  const result = new Uint8Array(window.width * window.height * CHANNELS);
  for (let y = 0; y < window.height; y++) {
    const start = ((y + window.top) * size.width + window.left) * CHANNELS;
    result.set(pixels.subarray(start, start + window.width * CHANNELS), y * window.width * CHANNELS);
  }
  return result;
}
