"""Trains tests/checkpoints/bit-tiny-cifar10 with transformers' own BitForImageClassification.

The result is the small *real* checkpoint of this repository: PyTorch weights in transformers' layout, with its
processor and label names, with which tests and demo go from a checkpoint to a label. It needs torch and transformers
(the extra `reference`) and takes about 45 minutes on two cores. If it is killed, the next call resumes.

    python tests/checkpoints/train_bit_tiny_cifar10.py CIFAR --out tests/checkpoints/bit-tiny-cifar10

CIFAR is a folder or a .tar.xz that holds `train/<class>/*` and `test/<class>/*`.
"""

import argparse
import io
import math
import os
import platform
import shutil
import tarfile
import time
from pathlib import Path

import numpy as np
import torch
import transformers
from PIL import Image
from torch.nn import functional
from tqdm import tqdm
from transformers import BitConfig, BitForImageClassification, BitImageProcessorPil

BATCH_SIZE = 128
PEAK_LEARNING_RATE = 0.15  # SGD with Nesterov momentum 0.9; reached after the warm-up, then a cosine down to zero
WARMUP_EPOCHS = 2
WEIGHT_DECAY = 5e-4
TEST_SIZE = 64  # px; the stem divides by four at once, so 32 px images are enlarged first
# (epochs, px): BiT pools globally and has no batch statistics, so most of the training can run on smaller images.
PHASES = ((18, 48), (8, TEST_SIZE))


def read_cifar(source: Path) -> dict[str, list[tuple[str, bytes]]]:
    """Reads a folder or a tar file and returns `{"train": [(class, file bytes)...], "test": [...]}`."""
    splits: dict[str, list[tuple[str, bytes]]] = {"train": [], "test": []}
    if source.is_dir():
        files = ((path.relative_to(source), path.read_bytes()) for path in sorted(source.rglob("*.jpg")))
        for name, content in tqdm(files, desc="read", unit="file"):
            splits[name.parts[0]].append((name.parts[1], content))
        return splits
    with tarfile.open(source) as archive:
        for member in tqdm(archive, desc="read", unit="file"):
            if member.isfile():
                split, label = Path(member.name).parts[-3:-1]
                splits[split].append((label, archive.extractfile(member).read()))
    return splits


def build_model(labels: list[str]) -> BitForImageClassification:
    config = BitConfig(
        embedding_size=32,
        hidden_sizes=[128, 256, 512],
        depths=[2, 2, 2],
        num_groups=8,  # every width and its quarter must divide by it
        id2label=dict(enumerate(labels)),
        label2id={label: index for index, label in enumerate(labels)},
    )
    return BitForImageClassification(config)


def build_processor() -> BitImageProcessorPil:
    """Returns a processor with the settings of google/bit-50 at this checkpoint's size."""
    return BitImageProcessorPil(
        size={"shortest_edge": TEST_SIZE},
        crop_size={"height": TEST_SIZE, "width": TEST_SIZE},
        resample=Image.Resampling.BILINEAR,
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.5, 0.5, 0.5],
    )


def augment(images: torch.Tensor, px: int, generator: torch.Generator) -> torch.Tensor:
    """Shifts images by up to 4 px, flips half of them and cuts out 8x8 px; then scales them to [-1, 1] at px x px."""
    count = len(images)
    padded = functional.pad(images.float() / 127.5 - 1.0, (4, 4, 4, 4))
    rows = torch.randint(0, 9, (count, 1), generator=generator) + torch.arange(32)
    columns = torch.randint(0, 9, (count, 1), generator=generator) + torch.arange(32)
    flipped = torch.rand(count, 1, generator=generator) < 0.5
    columns = torch.where(flipped, columns.flip(1), columns)
    batch = torch.arange(count)[:, None, None]
    # The advanced indices stand around the channel slice, so channels come out last.
    cropped = padded[batch, :, rows[:, :, None], columns[:, None, :]]
    top, left = torch.randint(-4, 29, (2, count, 1), generator=generator)
    line = torch.arange(32)
    hole_rows = (line >= top) & (line < top + 8)
    hole_columns = (line >= left) & (line < left + 8)
    cropped[hole_rows[:, :, None] & hole_columns[:, None, :]] = 0.0
    cropped = cropped.permute(0, 3, 1, 2)
    enlarged = functional.interpolate(cropped, size=(px, px), mode="bilinear", align_corners=False)
    return enlarged.contiguous(memory_format=torch.channels_last)


def learning_rate(epoch: float, epochs: int) -> float:
    if epoch < WARMUP_EPOCHS:
        return PEAK_LEARNING_RATE * epoch / WARMUP_EPOCHS
    return PEAK_LEARNING_RATE * 0.5 * (1 + math.cos(math.pi * (epoch - WARMUP_EPOCHS) / (epochs - WARMUP_EPOCHS)))


def decode(files: list[tuple[str, bytes]]) -> list[Image.Image]:
    return [Image.open(io.BytesIO(content)).convert("RGB") for _, content in files]


def train(model: BitForImageClassification, images: torch.Tensor, targets: torch.Tensor, state_file: Path, seed: int):
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.SGD(
        [
            {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": WEIGHT_DECAY},
            {"params": [p for p in model.parameters() if p.ndim == 1], "weight_decay": 0.0},
        ],
        lr=0.0,
        momentum=0.9,
        nesterov=True,
    )
    sizes = [px for epochs, px in PHASES for _ in range(epochs)]
    steps = len(images) // BATCH_SIZE
    first = 0
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        generator.set_state(state["generator"])
        first = state["epoch"]
        print(f"goes on from epoch {first} of {len(sizes)} ({state_file})", flush=True)
    model.train()
    for epoch in range(first, len(sizes)):
        order = torch.randperm(len(images), generator=generator)
        loss_sum = torch.zeros(())
        hits = torch.zeros(())
        progress = tqdm(range(steps), desc=f"epoch {epoch + 1}/{len(sizes)} at {sizes[epoch]} px", mininterval=5)
        for step in progress:
            picked = order[step * BATCH_SIZE : (step + 1) * BATCH_SIZE]
            logits = model(augment(images[picked], sizes[epoch], generator)).logits
            loss = functional.cross_entropy(logits, targets[picked])
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(epoch + step / steps, len(sizes))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss_sum += loss.detach()
            hits += (logits.detach().argmax(1) == targets[picked]).sum()
        print(
            f"epoch {epoch + 1}: loss {loss_sum / steps:.4f}, accuracy {hits / steps / BATCH_SIZE:.4f} (augmented)",
            flush=True,
        )
        if not torch.isfinite(loss_sum):
            raise SystemExit(f"the loss is not finite in epoch {epoch + 1}; nothing was written")
        beside = state_file.with_suffix(".partial")
        torch.save(
            {
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "generator": generator.get_state(),
                "epoch": epoch + 1,
            },
            beside,
        )
        os.replace(beside, state_file)


@torch.no_grad()
def count_correct(model, processor, images: list[Image.Image], targets: torch.Tensor) -> int:
    model.eval()
    correct = 0
    for start in tqdm(range(0, len(images), 500), desc="test", unit="batch"):
        pixel_values = processor(images[start : start + 500], return_tensors="pt")["pixel_values"]
        predicted = model(pixel_values.contiguous(memory_format=torch.channels_last)).logits.argmax(1)
        correct += int((predicted == targets[start : start + 500]).sum())
    return correct


def model_card(correct: int, count: int, parameters: int) -> str:
    accuracy = correct / count
    px = TEST_SIZE
    epochs = " and ".join(f"{count} epochs at {size} px" for count, size in PHASES)
    return f"""---
license: apache-2.0
library_name: transformers
tags: [image-classification, bit]
datasets: [cifar10]
model-index:
- name: bit-tiny-cifar10
  results:
  - task: {{type: image-classification}}
    dataset: {{name: CIFAR-10, type: cifar10, split: test}}
    metrics: [{{type: accuracy, value: {accuracy:.4f}}}]
---
# bit-tiny-cifar10

A small BiT (ResNetV2 with group normalization and weight standardization) trained from scratch on CIFAR-10 with
transformers' `BitForImageClassification`. It exists to test and show keras_bit with real, trained PyTorch weights. It
is not a model for production.

* **It answers {correct:,} of {count:,} test images correctly ({accuracy:.2%} top-1)**, with one view of each image,
  preprocessed by `BitImageProcessorPil` with the `preprocessor_config.json` of this directory.
* {parameters:,} parameters, float32; 3 stages of 2 blocks, widths 128, 256, 512, 8 groups; input {px}x{px} px.
* Training: SGD with Nesterov momentum, batch {BATCH_SIZE}, {epochs}, peak rate {PEAK_LEARNING_RATE}, weight decay
  {WEIGHT_DECAY}; 4 px shifts, horizontal flips, 8x8 cut-out.
* Made by `tests/checkpoints/train_bit_tiny_cifar10.py` with torch {torch.__version__.split("+")[0]}, transformers
  {transformers.__version__}, Python {platform.python_version()}.
* It knows ten classes, from 32 px images enlarged to {TEST_SIZE} px. For any other image it still answers one of these.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cifar", type=Path, help="folder or .tar.xz with train/<class>/ and test/<class>/")
    parser.add_argument("--out", type=Path, required=True, help="directory to write (replaced when training is done)")
    parser.add_argument("--state", type=Path, help="file to resume from (default: OUT.state.pt; removed at the end)")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    out: Path = arguments.out
    state_file = arguments.state or out.with_name(out.name + ".state.pt")

    torch.manual_seed(arguments.seed)
    splits = read_cifar(arguments.cifar)
    labels = sorted({label for label, _ in splits["train"]})
    index = {label: i for i, label in enumerate(labels)}
    images = torch.from_numpy(np.stack([np.asarray(p) for p in decode(splits["train"])])).permute(0, 3, 1, 2)
    targets = torch.tensor([index[label] for label, _ in splits["train"]])
    model = build_model(labels).to(memory_format=torch.channels_last)
    processor = build_processor()

    started = time.time()
    train(model, images, targets, state_file, arguments.seed)
    test_targets = torch.tensor([index[label] for label, _ in splits["test"]])
    correct = count_correct(model, processor, decode(splits["test"]), test_targets)
    print(f"{correct} of {len(test_targets)} right after {(time.time() - started) / 60:.0f} minutes", flush=True)

    beside = out.with_name(out.name + ".partial")
    shutil.rmtree(beside, ignore_errors=True)
    model.to(memory_format=torch.contiguous_format).save_pretrained(beside)
    processor.save_pretrained(beside)
    card = model_card(correct, len(test_targets), sum(p.numel() for p in model.parameters()))
    (beside / "README.md").write_text(card, encoding="utf-8")
    shutil.rmtree(out, ignore_errors=True)
    os.replace(beside, out)
    state_file.unlink(missing_ok=True)
    print(f"wrote {out}; its golden file: python -m convert {out} --write-golden {out / 'golden.npz'}")


if __name__ == "__main__":
    main()
