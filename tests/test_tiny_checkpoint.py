"""Tests the small real checkpoint: its contents, and that keras_bit gives the answers of transformers."""

import io
import json
import re
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import DATA
from keras_bit import BitImageProcessor, from_pretrained

TINY = Path(__file__).parent / "checkpoints" / "bit-tiny-cifar10"
CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def test_the_checkpoint_takes_at_most_4_megabytes():
    assert sum(file.stat().st_size for file in TINY.iterdir()) <= 4_000_000


def test_it_holds_what_transformers_saves_and_names_its_classes():
    names = {file.name for file in TINY.iterdir()}
    assert names == {"README.md", "config.json", "golden.npz", "model.safetensors", "preprocessor_config.json"}
    config = json.loads((TINY / "config.json").read_text())
    assert config["architectures"] == ["BitForImageClassification"]
    assert [config["id2label"][str(index)] for index in range(10)] == CLASSES


def card_figures() -> tuple[int, float]:
    """Returns the right answers of 10,000 and the accuracy that the card has."""
    card = (TINY / "README.md").read_text()
    correct = int(re.search(r"\*\*.*?([\d,]+) of 10,000", card)[1].replace(",", ""))
    return correct, float(re.search(r"type: accuracy, value: ([\d.]+)", card)[1])


def test_the_card_says_one_accuracy_and_it_is_at_least_80_percent():
    correct, accuracy = card_figures()
    assert accuracy == correct / 10_000
    assert accuracy >= 0.80


@pytest.fixture(scope="module")
def photographs() -> tuple[list[Image.Image], np.ndarray]:
    with tarfile.open(DATA / "cifar10.tar.xz") as archive:
        members = sorted(
            (member for member in archive if member.isfile() and "/test/" in f"/{member.name}"), key=lambda m: m.name
        )
        images = [Image.open(io.BytesIO(archive.extractfile(member).read())).convert("RGB") for member in members]
    return images, np.array([CLASSES.index(Path(member.name).parent.name) for member in members])


@pytest.fixture(scope="module")
def keras_logits(photographs) -> np.ndarray:
    images, _ = photographs
    model = from_pretrained(TINY, classifier_activation=None)
    processor = BitImageProcessor.from_pretrained(TINY)
    return np.concatenate(
        [model.predict_on_batch(processor(images[start : start + 500])) for start in range(0, len(images), 500)]
    )


@pytest.mark.data
@pytest.mark.slow
def test_the_accuracy_is_the_cards_to_within_one_image(photographs, keras_logits):
    _, targets = photographs
    assert len(targets) == 10_000
    correct = int((keras_logits.argmax(1) == targets).sum())
    print(f"keras_bit: {correct} of 10,000 right; card (transformers): {card_figures()[0]}")
    assert abs(correct - card_figures()[0]) <= 1


@pytest.mark.live
@pytest.mark.data
@pytest.mark.slow
def test_transformers_itself_has_the_same_logits_on_the_test_images(photographs, keras_logits):
    import torch
    from transformers import BitForImageClassification, BitImageProcessorPil

    images = photographs[0][::5]  # in all batches of Keras; transformers takes a minute for all
    keras_logits = keras_logits[::5]
    model = BitForImageClassification.from_pretrained(TINY).eval()
    processor = BitImageProcessorPil.from_pretrained(TINY)
    theirs = []
    with torch.no_grad():
        for start in range(0, len(images), 500):
            inputs = processor(images[start : start + 500], return_tensors="pt")
            theirs.append(model(inputs["pixel_values"]).logits.numpy())
    theirs = np.concatenate(theirs)
    difference = np.abs(keras_logits - theirs).max() / np.abs(theirs).max()
    agreeing = int((keras_logits.argmax(1) == theirs.argmax(1)).sum())
    print(f"{len(images):,} images: logits differ by {difference:.1e} relative, {agreeing} answers agree")
    assert difference <= 1e-4  # float32 through 19 convolutions; measured some 1e-6
    assert agreeing >= len(images) - 1  # a tie within rounding may fall either way
