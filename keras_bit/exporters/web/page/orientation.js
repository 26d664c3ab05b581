// Reads and removes the orientation tag of Exif in JPEG, PNG and WebP files. Browsers follow the tag in some of these
// formats only, and have no way to ignore it.

const ORIENTATION = 0x0112; // the tag's number
const SHORT = 3; // its type: 16 bits
const EXIF = "Exif\0\0"; // what begins the block in JPEG, and may begin it in WebP

const textAt = (bytes, start, length) => String.fromCharCode(...bytes.subarray(start, start + length));

// Yields the Exif blocks of a file: { start, end } from the TIFF header to the end of the block, and for PNG also
// `chunk`, the { start, end } of the chunk that holds it.
function* blocks(bytes, view) {
  if (view.getUint16(0) === 0xffd8) {
    // JPEG: segments of a marker, 2 bytes, and a length, which counts itself.
    for (let place = 2; view.getUint8(place) === 0xff && view.getUint8(place + 1) !== 0xda; ) {
      const length = view.getUint16(place + 2);
      if (view.getUint8(place + 1) === 0xe1 && textAt(bytes, place + 4, EXIF.length) === EXIF) {
        yield { start: place + 4 + EXIF.length, end: place + 2 + length };
      }
      place += 2 + length;
    }
  } else if (textAt(bytes, 1, 3) === "PNG") {
    // Chunks of a length, a name, the content, and a checksum of 4 bytes.
    for (let place = 8; textAt(bytes, place + 4, 4) !== "IEND"; ) {
      const length = view.getUint32(place);
      if (textAt(bytes, place + 4, 4) === "eXIf") {
        yield { start: place + 8, end: place + 8 + length, chunk: { start: place, end: place + 12 + length } };
      }
      place += 12 + length;
    }
  } else if (textAt(bytes, 0, 4) === "RIFF" && textAt(bytes, 8, 4) === "WEBP") {
    // Chunks of a name, a length, and the content, which is filled up to an even length.
    for (let place = 12; ; ) {
      const length = view.getUint32(place + 4, true);
      if (textAt(bytes, place, 4) === "EXIF") {
        const header = textAt(bytes, place + 8, EXIF.length) === EXIF ? EXIF.length : 0;
        yield { start: place + 8 + header, end: place + 8 + length };
      }
      place += 8 + length + (length % 2);
    }
  }
}

// Returns the place of the tag's value in a block, and its byte order; null if the block has no such tag.
function valueIn(view, { start, end }) {
  const block = new DataView(view.buffer, start, end - start);
  const little = block.getUint16(0) === 0x4949; // "II", else "MM"
  const directory = block.getUint32(4, little);
  const count = block.getUint16(directory, little);
  for (let entry = directory + 2; entry < directory + 2 + 12 * count; entry += 12) {
    const isTag = block.getUint16(entry, little) === ORIENTATION;
    const isOneNumber = block.getUint16(entry + 2, little) === SHORT && block.getUint32(entry + 4, little) === 1;
    if (isTag && isOneNumber) return { place: start + entry + 8, little };
  }
  return null;
}

// Returns { orientation, parts }: the value of the tag, 1 to 8, and the file in parts, without the tag, so that no
// browser follows it. If the tag is damaged or not 1 to 8, the value is 1.
//
// bytes: Uint8Array, which may be changed.
export function takenOut(bytes) {
  const view = new DataView(bytes.buffer);
  let orientation = 1;
  let chunk;
  try {
    for (const block of blocks(bytes, view)) {
      const found = valueIn(view, block);
      if (!found) continue;
      const value = view.getUint16(found.place, found.little);
      if (value >= 1 && value <= 8) orientation = value;
      if (block.chunk) ({ chunk } = block);
      else view.setUint16(found.place, 1, found.little);
      break;
    }
  } catch (error) {
    if (!(error instanceof RangeError)) throw error; // beyond the end of the file or the block
  }
  const parts = chunk ? [bytes.subarray(0, chunk.start), bytes.subarray(chunk.end)] : [bytes];
  return { orientation, parts };
}

// By the tag's value: whether rows and columns change places, and which of them then run backwards.
const TURNS = {
  1: [false, false, false],
  2: [false, true, false],
  3: [false, true, true],
  4: [false, false, true],
  5: [true, false, false],
  6: [true, true, false],
  7: [true, true, true],
  8: [true, false, true],
};

// Returns the transformation for a canvas of the turned picture, so that drawing the stored picture at (0, 0) turns it.
export function transformation(orientation, width, height) {
  const [swapped, mirrored, upended] = TURNS[orientation];
  const across = mirrored ? -1 : 1;
  const down = upended ? -1 : 1;
  const [turnedWidth, turnedHeight] = swapped ? [height, width] : [width, height];
  const left = mirrored ? turnedWidth : 0;
  const top = upended ? turnedHeight : 0;
  return swapped ? [0, down, across, 0, left, top] : [across, 0, 0, down, left, top];
}

// Turns pixels, a Uint8Array of (height, width, 3), upright. Returns { pixels, width, height }.
export function turned(pixels, width, height, orientation) {
  if (orientation === 1) return { pixels, width, height };
  const [swapped, mirrored, upended] = TURNS[orientation];
  const [turnedWidth, turnedHeight] = swapped ? [height, width] : [width, height];
  const result = new Uint8Array(pixels.length);
  let place = 0;
  for (let y = 0; y < turnedHeight; y++) {
    const row = upended ? turnedHeight - 1 - y : y;
    for (let x = 0; x < turnedWidth; x++) {
      const column = mirrored ? turnedWidth - 1 - x : x;
      let source = 3 * (swapped ? column * width + row : row * width + column);
      result[place++] = pixels[source++];
      result[place++] = pixels[source++];
      result[place++] = pixels[source];
    }
  }
  return { pixels: result, width: turnedWidth, height: turnedHeight };
}
