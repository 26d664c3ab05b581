// Starts the worker that runs the model, and asks it. This part runs in the page.

import { Trouble } from "./files.js";

export class Classifier {
  // settings: the content of settings.json. report({ loaded, total }): a function that is called while the model loads.
  constructor(settings, report) {
    this.waiting = new Map();
    // The worker starts from a blob, because the page's Content-Security-Policy holds only for such a worker. A worker
    // that starts from a file would have the policy of that file.
    const code = `import ${JSON.stringify(new URL("worker.js", import.meta.url).href)};`;
    const url = URL.createObjectURL(new Blob([code], { type: "text/javascript" }));
    this.worker = new Worker(url, { type: "module" });
    this.worker.addEventListener("message", ({ data }) => this.#receive(data));
    this.worker.addEventListener("error", () => {
      const trouble = new Trouble("This browser could not start the scripts of this page. Try a newer browser.");
      for (const { reject } of this.waiting.values()) reject(trouble);
    });
    // Resolves to { engine }, "webgpu" or "wasm".
    this.ready = this.#ask("load", { settings, base: document.baseURI }, report);
  }

  // blob: an image file. Resolves to the result of the worker's `classify`.
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
