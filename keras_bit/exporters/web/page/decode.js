// Decodes an image file to the pixels that Pillow gives: without color management and without alpha, turned upright by
// the orientation tag.

import { Trouble } from "./files.js";
import { takenOut, turned } from "./orientation.js";

const MOST_PIXELS = 178956970; // the largest image that Pillow reads: twice its MAX_IMAGE_PIXELS
const STRIP = 2 ** 22; // pixels that are read at a time, because canvases of phones are small

// blob: the file. orientation: "upright" or "ignore".
//
// Returns { pixels, width, height, bitmap, orientation }. `pixels` is a Uint8Array of (height, width, 3), upright.
// `bitmap` is an ImageBitmap that is not turned yet, and `orientation`, the value of the tag, says how to turn it.
export async function decode(blob, orientation) {
  const bytes = new Uint8Array(await blob.arrayBuffer());
  if (!bytes.length) throw new Trouble("this file is empty. Choose another one.");
  refuseDeepGray(bytes);
  const file = takenOut(bytes);
  let bitmap;
  try {
    bitmap = await createImageBitmap(new Blob(file.parts, { type: blob.type }), {
      colorSpaceConversion: "none",
      premultiplyAlpha: "none",
    });
  } catch {
    throw new Trouble(
      "this browser cannot read it as an image. The file is damaged, or of a kind that the browser does not know. " +
        "Choose a JPEG, PNG, WebP, GIF or BMP file.",
    );
  }
  const { width, height } = bitmap;
  if (width * height > MOST_PIXELS) {
    const most = MOST_PIXELS.toLocaleString("en");
    throw new Trouble(`this image has ${width}×${height} px, more than the ${most} that can be read. Make it smaller.`);
  }
  const turn = orientation === "upright" ? file.orientation : 1;
  return { ...turned(read(bitmap), width, height, turn), bitmap, orientation: turn };
}

// Pillow would make all values above 255 white, so keras_bit refuses such files, too.
function refuseDeepGray(bytes) {
  const [depth, kind] = [bytes[24], bytes[25]];
  if (bytes[0] === 0x89 && bytes[1] === 0x50 && depth === 16 && kind === 0) {
    throw new Trouble("this is a gray PNG of 16 bits per pixel. Save it with 8 bits.");
  }
}

function read(bitmap) {
  const { width, height } = bitmap;
  const pixels = new Uint8Array(width * height * 3);
  const rows = Math.max(Math.min(Math.floor(STRIP / width), height), 1);
  const canvas = new OffscreenCanvas(width, rows);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  for (let top = 0; top < height; top += rows) {
    const count = Math.min(rows, height - top);
    context.clearRect(0, 0, width, rows);
    context.drawImage(bitmap, 0, top, width, count, 0, 0, width, count);
    const { data } = context.getImageData(0, 0, width, count);
    // A canvas multiplies colors by alpha, which loses colors that cannot be computed back.
    if (!copyOpaque(data, pixels, 3 * top * width)) return withoutAlpha(bitmap);
  }
  return pixels;
}

// Copies the colors of RGBA `data` to `pixels` from `start` on, and returns whether all pixels are opaque.
function copyOpaque(data, pixels, start) {
  let alphas = 255;
  for (let source = 0, place = start; source < data.length; source += 4) {
    pixels[place++] = data[source];
    pixels[place++] = data[source + 1];
    pixels[place++] = data[source + 2];
    alphas &= data[source + 3];
  }
  return alphas === 255;
}

// Returns the colors as they are stored, without their alpha: WebGL does not multiply the colors by it.
function withoutAlpha(bitmap) {
  const { width, height } = bitmap;
  const gl = new OffscreenCanvas(1, 1).getContext("webgl");
  if (!gl || Math.max(width, height) > gl.getParameter(gl.MAX_TEXTURE_SIZE)) {
    throw new Trouble(
      "this image has transparent parts, and this browser cannot read their colors, because " +
        `${gl ? "the image is too large" : "it has no WebGL"}. Save the image without transparency.`,
    );
  }
  gl.pixelStorei(gl.UNPACK_PREMULTIPLY_ALPHA_WEBGL, false);
  gl.pixelStorei(gl.UNPACK_COLORSPACE_CONVERSION_WEBGL, gl.NONE);
  gl.bindTexture(gl.TEXTURE_2D, gl.createTexture());
  gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, gl.RGBA, gl.UNSIGNED_BYTE, bitmap);
  gl.bindFramebuffer(gl.FRAMEBUFFER, gl.createFramebuffer());
  const texture = gl.getParameter(gl.TEXTURE_BINDING_2D);
  gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, texture, 0);
  const data = new Uint8Array(4 * width * height);
  gl.readPixels(0, 0, width, height, gl.RGBA, gl.UNSIGNED_BYTE, data);
  gl.getExtension("WEBGL_lose_context")?.loseContext();
  const pixels = new Uint8Array(width * height * 3);
  copyOpaque(data, pixels, 0);
  return pixels;
}
