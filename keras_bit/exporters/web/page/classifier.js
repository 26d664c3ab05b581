// The page's end of the worker.

import { Trouble } from "./files.js";

export class Classifier {
  // settings: settings.json. report({ loaded, total }) is called as the model is loaded.
  constructor(settings, report) {
    this.waiting = new Map();
    // A worker from a file of its own would not be bound by the page's Content-Security-Policy; one from a blob is.
    const code = `import ${JSON.stringify(new URL("worker.js", import.meta.url).href)};`;
    const url = URL.createObjectURL(new Blob([code], { type: "text/javascript" }));
    this.worker = new Worker(url, { type: "module" });
    this.worker.addEventListener("message", ({ data }) => this.#receive(data));
    this.worker.addEventListener("error", () => {
      const trouble = new Trouble("The page's own scripts could not be started in this browser. Try a newer one.");
      for (const { reject } of this.waiting.values()) reject(trouble);
    });
    // Resolves to { engine }, "webgpu" or "wasm".
    this.ready = this.#ask("load", { settings, base: document.baseURI }, report);
  }

  // blob: an image file. Resolves to what the worker's `classify` returns.
  async classify(blob) {
    await this.ready;
    return this.#ask("classify", { blob });
  }

  #ask(task, given, report = () => {}) {
    const id = this.waiting.size ? Math.max(...this.waiting.keys()) + 1 : 0;
    return new Promise((resolve, reject) => {
      this.waiting.set(id, { resolve, reject, report });
      this.worker.postMessage({ id, task, ...given });
    });
  }

  #receive({ id, progress, result, trouble }) {
    const { resolve, reject, report } = this.waiting.get(id);
    if (progress) {
      report(progress);
      return;
    }
    this.waiting.delete(id);
    if (trouble === undefined) resolve(result);
    else reject(new Trouble(trouble));
  }
}
