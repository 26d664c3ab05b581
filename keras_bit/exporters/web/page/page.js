// The page takes an image in one of five ways, and shows its classes and their maps.

import { Classifier } from "./classifier.js";
import { Trouble, json } from "./files.js";
import { interpolated, paint, strongest } from "./heat_map.js";
import { transformation } from "./orientation.js";
import { crop, resizedSize, seen } from "./preprocess.js";

const SIDE = 448; // CSS px, the longer side of the image
const ENGINES = { webgpu: "WebGPU", wasm: "WebAssembly" };

const element = (id) => document.getElementById(id);
const percent = (score) => `${(100 * score).toFixed(1)}%`;
const megabytes = (bytes) => (bytes / 1e6).toFixed(1);

let settings, labels, classifier;
let turn = 0; // counts the images, so that the answer about an older one is not shown
let shown; // { name, result }

async function start() {
  [settings, labels] = await Promise.all([json("settings.json"), json("labels.json")]);
  say("Loading the model.");
  classifier = new Classifier(settings, ({ loaded, total }) => {
    element("progress").hidden = false;
    element("progress").max = total;
    element("progress").value = loaded;
    // The progress is not written to the status, because a screen reader would read each change aloud.
    element("about").textContent = `The model: ${megabytes(loaded)} of ${megabytes(total)} MB`;
  });
  const { engine } = await classifier.ready;
  element("progress").hidden = true;
  tellAbout(engine);
  if (turn === 0) say("The model is ready. Choose an image.");
}

function tellAbout(engine, milliseconds) {
  const { model, runtime } = settings;
  const parts = [
    `${model.name}, ${megabytes(model.bytes)} MB (weights in ${model.weights})`,
    `${runtime.name} ${runtime.version} on ${ENGINES[engine]}`,
  ];
  if (milliseconds) {
    const all = Object.values(milliseconds).reduce((sum, one) => sum + one);
    parts.push(`this image took ${Math.round(all)} ms, the network ${Math.round(milliseconds.network)}`);
  }
  element("about").textContent = parts.join(" · ");
}

function say(sentence) {
  element("status").textContent = sentence;
}

function complain(error) {
  if (!(error instanceof Trouble)) console.error(error);
  element("progress").hidden = true;
  say("");
  element("trouble").textContent =
    error instanceof Trouble ? error.message : `The page failed: ${error.message ?? error}. Load it again.`;
}

async function classify(file) {
  const mine = ++turn;
  const name = file.name || "The image";
  element("trouble").textContent = "";
  say(`Looking at ${name}.`);
  try {
    await started;
    const result = await classifier.classify(file);
    if (mine !== turn) return;
    shown = { name, result };
    showClasses();
    showPicture();
    element("result").hidden = false;
    tellAbout((await classifier.ready).engine, result.milliseconds);
    const answers = result.classes.map((number) => `${labels[number]} ${percent(result.scores[number])}`);
    say(`${name}: ${answers[0]}.${answers.length > 1 ? ` Then ${answers.slice(1).join("; ")}.` : ""}`);
  } catch (error) {
    if (mine !== turn) return;
    element("result").hidden = true;
    complain(error instanceof Trouble ? new Trouble(`${name}: ${error.message}`) : error);
  }
}

function showClasses() {
  const rows = shown.result.classes.map((number, rank) => {
    const score = shown.result.scores[number];
    const radio = Object.assign(document.createElement("input"), {
      type: "radio",
      name: "class",
      value: rank,
      checked: rank === 0,
    });
    radio.addEventListener("change", showPicture);
    const part = (kind, text) => {
      const made = document.createElement("span");
      made.className = kind;
      made.textContent = text;
      return made;
    };
    const track = part("track", "");
    const bar = part("bar", "");
    bar.style.width = `${100 * score}%`;
    track.append(bar);
    const row = document.createElement("label");
    row.className = "class";
    row.append(radio, part("name", labels[number]), part("share", percent(score)), track);
    return row;
  });
  element("classes").replaceChildren(...rows);
}

// The rank of the class that the person chose.
const chosen = () => Number(document.querySelector("input[name=class]:checked").value);

function showPicture() {
  const { bitmap, orientation, width, height, classes, maps } = shown.result;
  const { processor } = settings;
  const part = seen({ width, height }, processor);
  const scale = (SIDE * Math.min(devicePixelRatio, 2)) / Math.max(part.width, part.height);
  const canvas = element("picture");
  canvas.width = Math.max(Math.round(part.width * scale), 1);
  canvas.height = Math.max(Math.round(part.height * scale), 1);
  canvas.style.width = `${Math.round((SIDE * part.width) / Math.max(part.width, part.height))}px`;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "black"; // if the image is smaller than the crop, the model sees black around it
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.imageSmoothingQuality = "high";
  context.setTransform(scale, 0, 0, scale, -part.left * scale, -part.top * scale);
  context.transform(...transformation(orientation, bitmap.width, bitmap.height));
  context.drawImage(bitmap, 0, 0);
  context.resetTransform();

  const rank = chosen();
  const label = labels[classes[rank]];
  const withMap = element("show-map").checked;
  if (withMap) {
    const map = { ...maps, data: maps.data.subarray(rank * maps.height * maps.width) };
    const input = crop(resizedSize({ width, height }, processor), processor);
    const heat = interpolated(map, canvas, input, settings.model.map);
    const pixels = context.getImageData(0, 0, canvas.width, canvas.height);
    paint(pixels, heat);
    context.putImageData(pixels, 0, 0);
    const most = strongest(heat).toPrecision(3);
    element("least").textContent = `−${most} against`;
    element("most").textContent = `for +${most}`;
  }
  element("scale").hidden = !withMap;
  canvas.setAttribute("aria-label", withMap ? `${shown.name}, with the places of ${label} in color` : shown.name);
  element("caption").textContent = `${withMap ? `In color: ${label}. ` : ""}${caption(part, width, height)}`;
}

function caption(part, width, height) {
  const [across, down] = [part.width, part.height].map(Math.round);
  if (across === width && down === height) return `The whole image, ${width}×${height} px.`;
  return `The model sees the middle ${across}×${down} px of ${width}×${height} px.`;
}

function take(files, otherwise) {
  if (files.length) classify(files[0]);
  else complain(new Trouble(otherwise));
}

for (const [button, input] of [
  ["drop", "file"],
  ["photograph", "camera"],
]) {
  element(button).addEventListener("click", () => element(input).click());
  element(input).addEventListener("change", ({ target }) => {
    if (target.files.length) classify(target.files[0]);
    target.value = ""; // the same file may be chosen again
  });
}

addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dragging");
});
addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("dragging");
});
addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dragging");
  take(event.dataTransfer.files, "What you dropped is not a file. Save the image first, and drop its file.");
});
addEventListener("paste", (event) =>
  take(event.clipboardData.files, "The clipboard holds no image. Copy an image, and paste it again."),
);
element("show-map").addEventListener("change", showPicture);

const started = start();
started.catch(complain);
