// Runs the page's own modules on what a test has written: `node web_steps.mjs FOLDER`, where the page is FOLDER/page.
//
// FOLDER/cases.json is a list of { kind, ... }; what comes out of case number N is in FOLDER/N.out.

import fs from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";

const folder = process.argv[2];
const load = (name) => import(pathToFileURL(path.join(folder, "page", name)).href);
const { preprocess } = await load("preprocess.js");
const { interpolated } = await load("heat_map.js");
const { takenOut, turned } = await load("orientation.js");
const contents = (name) => new Uint8Array(fs.readFileSync(path.join(folder, name)));

const kinds = {
  preprocess: ({ pixels, width, height, processor }) => preprocess(contents(pixels), { width, height }, processor),
  turned: ({ pixels, width, height, orientation }) => turned(contents(pixels), width, height, orientation).pixels,
  takenOut({ file }) {
    const { orientation, parts } = takenOut(contents(file));
    return Buffer.concat([Buffer.from([orientation]), ...parts]);
  },
  interpolated({ map, height, width, drawn, input, geometry }) {
    const data = new Float32Array(contents(map).buffer);
    return interpolated({ data, height, width }, drawn, input, geometry);
  },
};

JSON.parse(fs.readFileSync(path.join(folder, "cases.json"))).forEach((one, number) => {
  const result = kinds[one.kind](one);
  fs.writeFileSync(path.join(folder, `${number}.out`), new Uint8Array(result.buffer, result.byteOffset, result.byteLength));
});
