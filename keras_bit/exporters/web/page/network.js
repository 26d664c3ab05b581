// The model in onnxruntime-web: on WebGPU if there is one, else on WebAssembly.

import { Trouble, bytes, checked } from "./files.js";

const MOST_THREADS = 4;

async function engines() {
  const adapter = await navigator.gpu?.requestAdapter().catch(() => null);
  return adapter ? ["webgpu", "wasm"] : ["wasm"];
}

// The library, from a script and a binary that have the hashes of the table in settings.json.
async function library(runtime, engine, base) {
  const { script, binary } = runtime.engines[engine];
  const address = new URL(runtime.address, base);
  const [code, wasmBinary] = await Promise.all(
    [script, binary].map(({ name, integrity }) => checked(new URL(name, address).href, integrity)),
  );
  // Not from the address again: what is run are the bytes that were checked.
  const url = URL.createObjectURL(new Blob([code], { type: "text/javascript" }));
  const { env, InferenceSession, Tensor } = await import(url);
  env.wasm.wasmBinary = wasmBinary;
  // Several threads share memory, which browsers give only to pages with special headers.
  env.wasm.numThreads = globalThis.crossOriginIsolated ? Math.min(navigator.hardwareConcurrency, MOST_THREADS) : 1;
  env.logLevel = "error";
  return { InferenceSession, Tensor };
}

export class Network {
  // settings: settings.json. base: the page's address. report({ loaded, total }) is called as the model is loaded.
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
          // Weights of 8 bits become float32 once, and not in every run.
          extra: { session: { disable_quant_qdq: "1" } },
        });
        const network = new Network(settings, engine, session, Tensor);
        // What a graphics processor cannot do is found out here.
        if (engine === "webgpu") await network.run(network.blank());
        return network;
      } catch (error) {
        trouble = error;
      }
    }
    if (trouble instanceof Trouble) throw trouble;
    throw new Trouble(`The model could not be started in this browser: ${trouble?.message ?? trouble}`);
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

  // pixels: Float32Array, (height, width, 3). Returns the scores of all classes, the best classes in order, and their
  // maps, (best, height, width), which say how much each place adds to the class's logit.
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
