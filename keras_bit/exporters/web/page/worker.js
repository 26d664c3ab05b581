// Decodes, preprocesses and classifies images in a worker, so that the page stays responsive.

import { decode } from "./decode.js";
import { Trouble } from "./files.js";
import { Network } from "./network.js";
import { preprocess } from "./preprocess.js";

let network;

const tasks = {
  async load({ settings, base }, id) {
    network = await Network.load(settings, base, (progress) => postMessage({ id, progress }));
    return { engine: network.engine };
  },

  async classify({ blob }) {
    const { processor } = network.settings;
    const started = performance.now();
    const { pixels, width, height, bitmap, orientation } = await decode(blob, processor.orientation);
    const decoded = performance.now();
    const input = preprocess(pixels, { width, height }, processor);
    const prepared = performance.now();
    const answer = await network.run(input);
    const milliseconds = {
      decoding: decoded - started,
      preprocessing: prepared - decoded,
      network: performance.now() - prepared,
    };
    return { ...answer, width, height, bitmap, orientation, milliseconds };
  },
};

addEventListener("message", async ({ data: { id, task, ...given } }) => {
  try {
    const result = await tasks[task](given, id);
    postMessage({ id, result }, result.bitmap ? [result.bitmap] : []);
  } catch (error) {
    const reason = error?.message ?? error;
    const message =
      error instanceof Trouble ? reason : `Your browser reported an error: ${reason}. Try another browser.`;
    postMessage({ id, trouble: message });
  }
});
