// Runs the model in onnxruntime-web: on WebGPU if the browser has it, else on WebAssembly.

import { Trouble, bytes, checked } from "./files.js";

const MOST_THREADS = 4;

async function engines() {
  const adapter = await navigator.gpu?.requestAdapter().catch(() => null);
  return adapter ? ["webgpu", "wasm"] : ["wasm"];
}

// Loads onnxruntime-web: a script and a binary, whose hashes must be those in settings.json.
async function library(runtime, engine, base) {
  const { script, binary } = runtime.engines[engine];
  const address = new URL(runtime.address, base);
  const [code, wasmBinary] = await Promise.all(
    [script, binary].map(({ name, integrity }) => checked(new URL(name, address).href, integrity)),
  );
  // The script is imported from a blob, so that the bytes that were checked are those that run.
  const url = URL.createObjectURL(new Blob([code], { type: "text/javascript" }));
  const { env, InferenceSession, Tensor } = await import(url);
  env.wasm.wasmBinary = wasmBinary;
  // Several threads share memory, which browsers give only to pages with special headers.
  env.wasm.numThreads = globalThis.crossOriginIsolated ? Math.min(navigator.hardwareConcurrency, MOST_THREADS) : 1;
  env.logLevel = "error";
  return { InferenceSession, Tensor };
}

export class Network {
  // settings: the content of settings.json. base: the address of the page. report({ loaded, total }): a function that
  // is called while the model loads.
  static async load(settings, base, report) {
    const { file, bytes: total } = settings.model;
    const model = await bytes(new URL(file, base).href, total, (loaded) => report({ loaded, total }));
    let trouble;
    for (const engine of await engines()) {
      try {
        const { InferenceSession, Tensor } = await library(settings.runtime, engine, base);
        const session = await InferenceSession.create(model, {
          executionProviders: [engine],
          logSeverityLevel: 3,
          // Converts weights of 8 bits to float32 once, not in every run.
          extra: { session: { disable_quant_qdq: "1" } },
        });
        const network = new Network(settings, engine, session, Tensor);
        // If the graphics processor cannot run the model, this run fails, and the next engine is tried.
        if (engine === "webgpu") await network.run(network.blank());
        return network;
      } catch (error) {
        trouble = error;
      }
    }
    if (trouble instanceof Trouble) throw trouble;
    const reason = trouble?.message ?? trouble;
    throw new Trouble(`The model could not be started in this browser: ${reason}. Try another browser.`);
  }

  constructor(settings, engine, session, Tensor) {
    Object.assign(this, { settings, engine, session, Tensor });
    const { crop_size, do_center_crop, size } = settings.processor;
    const { height, width } = do_center_crop ? crop_size : size;
    this.shape = [1, height, width, 3];
  }

  blank() {
    return new Float32Array(this.shape.reduce((all, side) => all * side));
  }

  // pixels: a Float32Array of (height, width, 3), preprocessed. Returns the scores of all classes, the best classes in
  // order, and their maps, (best classes, height, width): how much each place adds to the logit of the class.
  async run(pixels) {
    const outputs = await this.session.run({ pixel_values: new this.Tensor("float32", pixels, this.shape) });
    const { classes, maps } = outputs;
    return {
      scores: outputs[this.settings.model.scores].data,
      classes: Array.from(classes.data),
      maps: { data: maps.data, height: maps.dims[2], width: maps.dims[3] },
    };
  }
}
