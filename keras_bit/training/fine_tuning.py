"""Fine-tuning: the recipe of a `HyperRule` as one call of `model.fit`."""

import math
import numbers
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from keras_bit.hyperrule import HyperRule
from keras_bit.network.model import BiTModel
from keras_bit.training import distribution

EMPTY = (
    "`{name}` must have at least one batch, got an empty data set. Where its batches are made with drop_remainder, "
    "they may be larger than the data."
)
EVALUATIONS = 20  # how many epochs a recipe has by default, where one pass over the images is shorter


class Objective(NamedTuple):
    """What is minimised and what is shown."""

    loss: keras.losses.Loss
    metrics: list[keras.metrics.Metric]
    one_hot: bool  # whether labels are rows with a number per class, of one class each or mixed


def fine_tune(
    model: BiTModel,
    train: Any,
    validation: Any = None,
    *,
    rule: HyperRule,
    steps_per_epoch: int | None = None,
    gradient_accumulation_steps: int = 1,
    initial_epoch: int = 0,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    jit_compile: bool | str = "auto",
    verbose: int | str = "auto",
) -> keras.callbacks.History:
    """Compiles a model and fits it for the `rule.total_steps` steps of the recipe.

    The same as `model.compile(rule.optimizer(), ...)` and `model.fit(train.repeat(), ...)` by hand. It resizes, crops,
    flips and mixes nothing: that is done by `image_dataset(..., training=True, rule=rule)`.

    The loss follows `model.config.problem_type` as in transformers; from labels to loss and metrics:

    * one of several classes (`None`, `"single_label_classification"`): whole numbers `(batch,)`, or rows that sum to 1
      as MixUp makes them `(batch, classes)`; cross-entropy; `accuracy`, and `top_5_accuracy` from six classes on;
    * several classes at once (`"multi_label_classification"`): rows of 0 and 1 `(batch, classes)`; binary
      cross-entropy, its mean over all classes; `binary_accuracy`, and `auc`, the mean area under the classes'
      precision-recall curves;
    * a number (`"regression"`, or no problem type and one output): float `(batch,)`, or `(batch, outputs)`; mean
      squared error; `mean_absolute_error`.

    On several machines (a model made in the scope of `MultiWorkerMirroredStrategy`, or under `keras.distribution` with
    `auto_shard_dataset=False`) `train` is this worker's part of every batch, `image_dataset(..., shard=...)`, and
    `validation` the same on all.

    The one difference from transformers: rows without a problem type are of one class, mixed, not of several.

    Args:
        model: a model of keras_bit with its head. Layers that are not trainable stay as they are (`freeze`).
        train: a `tf.data.Dataset` of float32 images `(batch, height, width, channels)` and labels. One that ends is
            repeated.
        validation: the same, or `None`; evaluated after each epoch. Whole numbers become rows where `train` has rows.
        rule: gives the optimizer and the number of steps.
        steps_per_epoch: steps between two evaluations, and rows of the history. By default one pass over `train`, but
            not less than a twentieth of all.
        gradient_accumulation_steps: batches of `train` that make up a step, of
            `rule.batch_size / gradient_accumulation_steps` images each.
        initial_epoch: the epoch to go on with, as in `model.fit`. The caller brings weights, the optimizer's state and
            data to that point: `keras-bit finetune` does.
        callbacks: of Keras.
        jit_compile: as in `model.compile`.
        verbose: as in `model.fit`.

    Returns:
        Keras' `History`, whose epochs are `steps_per_epoch` long.

    Raises:
        ValueError: an argument is not what is described above, a data set is empty, the head and the labels do not
            belong together, or a label is none of the head's classes (then it is `tf.errors.InvalidArgumentError`, from
            the graph).
        FloatingPointError: the loss became NaN or infinite, in training or in validation. It says at which step.

    Checked against transformers 5.23 with torch's SGD, step by step, and against google-research/big_transfer
    `bit_pytorch/train.py`.
    """
    _check(model, rule, gradient_accumulation_steps, initial_epoch, steps_per_epoch)
    labels = [
        _label_spec(data, name) for data, name in ((train, "train"), (validation, "validation")) if data is not None
    ]
    with distribution.scope_of(model):
        found = objective(model, labels)
    endless = int(train.cardinality()) == -1
    batches = -1 if endless else int(train.cardinality())
    checked = _with_labels(train, model.config.num_labels, found)
    if not endless:
        checked = checked.repeat()
    if validation is not None:
        validation = _with_labels(validation, model.config.num_labels, found)

    total = rule.total_steps
    if steps_per_epoch is None:
        steps_per_epoch = min(total, max(batches // gradient_accumulation_steps, total // EVALUATIONS, 1))
    validation_steps = None
    strategy = distribution.strategy_of(model)
    if strategy is not None:
        with distribution.scope_of(model):
            model = distribution.DistributedModel(model.inputs, model.outputs[0], name=model.name)
    if strategy is not None and distribution.has_processes(strategy):
        validation_steps = _known_length(validation)
        # As a function, or TensorFlow divides the batches, which are this worker's part already.
        checked, validation = (
            None if data is None else strategy.distribute_datasets_from_function(lambda _, data=data: data)
            for data in (checked, validation)
        )
        jit_compile = False  # XLA has no such collectives on CPUs
    with distribution.scope_of(model):
        model.compile(
            rule.optimizer(gradient_accumulation_steps), loss=found.loss, metrics=found.metrics, jit_compile=jit_compile
        )
    guard = _Guard(total, steps_per_epoch, gradient_accumulation_steps, validation is not None)
    history = model.fit(
        checked,
        shuffle=False,  # of arrays; a data set is in its own order
        validation_data=validation,
        validation_steps=validation_steps,
        epochs=math.ceil(total / steps_per_epoch),
        initial_epoch=initial_epoch,
        steps_per_epoch=steps_per_epoch * gradient_accumulation_steps,
        # The guard first: what comes after it, as a file of the weights, is then of a finite loss.
        callbacks=[
            guard,
            _Stop(total, steps_per_epoch, gradient_accumulation_steps),
            *callbacks,
        ],
        verbose=verbose,
    )
    if guard.seen_nothing:  # Keras ends with a warning
        raise ValueError(EMPTY.format(name="train"))
    return history


def objective(model: BiTModel, labels: Sequence[Any]) -> Objective:
    """Loss and metrics for a model and the `tf.TensorSpec`s of the labels that it will get."""
    kind = problem_type(model)
    head = model.get_layer("predictions")
    expected = {"single_label_classification": "softmax", "multi_label_classification": "sigmoid", "regression": None}
    activation = None if head.activation is keras.activations.linear else head.activation.__name__
    if activation not in (expected[kind], None):
        raise ValueError(
            f"`model` must have a head that gives {expected[kind] or 'plain numbers'} or logits for {kind}, got "
            f"{activation}. Pass classifier_activation='auto' or None, or another `problem_type`."
        )
    logits = activation is None
    count = model.config.num_labels
    rows = [label.shape.rank == 2 for label in labels]
    for label, is_row in zip(labels, rows, strict=True):
        whole = label.dtype.is_integer or label.dtype.is_bool
        width = label.shape[-1] if is_row else None
        fits = {
            "single_label_classification": is_row or label.dtype.is_integer,
            "multi_label_classification": is_row,
            "regression": not whole and (is_row or count == 1),
        }[kind]
        if label.shape.rank not in (1, 2) or not fits or width not in (None, count):
            wanted = {
                "single_label_classification": f"whole numbers (batch,) or rows (batch, {count})",
                "multi_label_classification": f"rows of 0 and 1 (batch, {count})",
                "regression": "floats " + ("(batch,)" if count == 1 else f"(batch, {count})"),
            }[kind]
            raise ValueError(
                f"Labels must be {wanted}, for {kind} with {count} outputs, got {label.dtype.name} {label.shape}. Load "
                "the model with `classes=` for another number of them."
            )
    if kind == "regression":
        return Objective(keras.losses.MeanSquaredError(), [keras.metrics.MeanAbsoluteError()], False)
    if kind == "multi_label_classification":
        # The metric knows no logits: 0 is a probability of one half.
        metrics = [
            keras.metrics.BinaryAccuracy("binary_accuracy", threshold=0.0 if logits else 0.5),
            keras.metrics.AUC(curve="PR", name="auc", multi_label=True, num_labels=count, from_logits=logits),
        ]
        return Objective(keras.losses.BinaryCrossentropy(from_logits=logits), metrics, False)
    if any(rows):
        loss = keras.losses.CategoricalCrossentropy(from_logits=logits)
        accuracy, top = keras.metrics.CategoricalAccuracy, keras.metrics.TopKCategoricalAccuracy
    else:
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=logits)
        accuracy, top = keras.metrics.SparseCategoricalAccuracy, keras.metrics.SparseTopKCategoricalAccuracy
    # TensorFlow has no top-k of float64.
    ranked = count > 5 and head.compute_dtype != "float64"
    metrics = [accuracy("accuracy"), *([top(5, "top_5_accuracy")] if ranked else [])]
    return Objective(loss, metrics, any(rows))


def problem_type(model: BiTModel) -> str:
    """The model's, or the one that transformers takes it for."""
    one = model.config.num_labels == 1
    return model.config.problem_type or ("regression" if one else "single_label_classification")


def _check(model: Any, rule: Any, accumulated: Any, initial_epoch: Any, steps_per_epoch: Any) -> None:
    if not isinstance(model, BiTModel) or "predictions" not in {layer.name for layer in model.layers}:
        raise ValueError(
            "`model` must be a model that keras_bit built, with its head, got "
            f"{'one without the layer predictions' if isinstance(model, BiTModel) else type(model).__name__}. Use "
            "include_top=True and `classes=`; other models are trained by `model.compile(rule.optimizer(), ...)` and "
            "`model.fit`."
        )
    if not isinstance(rule, HyperRule):
        raise ValueError(f"`rule` must be a keras_bit.HyperRule, got {type(rule).__name__}.")
    numbers_from = {"gradient_accumulation_steps": (accumulated, 1), "initial_epoch": (initial_epoch, 0)}
    if steps_per_epoch is not None:
        numbers_from["steps_per_epoch"] = (steps_per_epoch, 1)
    for name, (value, least) in numbers_from.items():
        if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
            raise ValueError(f"`{name}` must be a whole number of at least {least}, got {value!r}.")
    if accumulated > 1 and distribution.strategy_of(model) is not None:
        raise ValueError(
            f"`gradient_accumulation_steps` must be 1 under a tf.distribute strategy, got {accumulated}: Keras cannot "
            "sum gradients over batches and over devices. Use more devices, or smaller batches."
        )
    if rule.batch_size % accumulated:
        raise ValueError(
            f"`gradient_accumulation_steps` must divide the rule's batch_size {rule.batch_size}, got {accumulated}."
        )


def _label_spec(data: Any, name: str) -> Any:
    spec = getattr(data, "element_spec", None)
    if not isinstance(spec, tuple) or len(spec) not in (2, 3) or not hasattr(data, "cardinality"):
        got = type(data).__name__ if spec is None else spec
        raise ValueError(
            f"`{name}` must be a tf.data.Dataset of (images, labels), as `image_dataset` gives it, got {got}. Arrays "
            "become one by `tf.data.Dataset.from_tensor_slices((images, labels)).batch(batch_size)`."
        )
    if spec[0].shape.rank != 4:
        raise ValueError(
            f"`{name}` must give batches of images (batch, height, width, channels), got {spec[0].shape}. "
            "Batch it: `batch(batch_size)`."
        )
    if int(data.cardinality()) == 0:
        raise ValueError(EMPTY.format(name=name) + " Without a validation pass None." * (name == "validation"))
    return spec[1]


def _known_length(data: Any) -> int | None:
    length = -1 if data is None else int(data.cardinality())
    return length if length >= 0 else None


def _with_labels(data: Any, classes: int, found: Objective) -> Any:
    """The data with labels as the loss takes them; numbers that cannot be theirs end it with an error."""
    import tensorflow as tf

    spec = data.element_spec[1]
    several = isinstance(found.loss, keras.losses.BinaryCrossentropy)
    if not several and not (spec.dtype.is_integer and spec.shape.rank == 1):
        return data

    def convert(images: Any, labels: Any, *weights: Any) -> tuple[Any, ...]:
        # Some losses answer such a label with NaN, others with the loss of another class.
        if several:
            message = "Labels of several classes must be rows of numbers in [0, 1], got:"
            rows = tf.cast(labels, tf.float32)
            wrong = ~((rows >= 0) & (rows <= 1))
        else:
            message = f"Labels are none of the {classes} classes that the head of the model has, [0, {classes}):"
            wrong = (labels < 0) | (labels >= classes)
        inside = tf.debugging.Assert(~tf.reduce_any(wrong), [message, labels[wrong]])
        with tf.control_dependencies([inside]):
            return images, tf.one_hot(labels, classes) if found.one_hot else tf.identity(labels), *weights

    converted = data.map(convert, tf.data.AUTOTUNE)
    count = int(data.cardinality())
    # Without it Keras says that its input ran out.
    return converted.apply(tf.data.experimental.assert_cardinality(count)) if count >= 0 else converted


class _Guard(keras.callbacks.Callback):
    """Ends training when the loss is no number any more, here or in validation, and knows whether there was one."""

    def __init__(self, total_steps: int, steps_per_epoch: int, batches_per_step: int, validates: bool) -> None:
        super().__init__()
        self.total_steps = total_steps
        self.steps_per_epoch = steps_per_epoch
        self.batches_per_step = batches_per_step
        self.validates = validates
        self.epoch = 0
        self.seen_nothing = False

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epoch = epoch
        self.seen_nothing = True

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.seen_nothing = False
        loss = (logs or {}).get("loss")
        if loss is not None and not np.isfinite(ops.convert_to_numpy(loss)):
            step = self.epoch * self.steps_per_epoch + batch // self.batches_per_step + 1
            rate = float(ops.convert_to_numpy(self.model.optimizer.learning_rate))
            raise FloatingPointError(
                f"The loss became {float(loss)} at step {step}, at a learning rate of {rate:.3g}. Lower "
                "the learning rate, or look at the images and labels of that step; these weights are of no use."
            )

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if not self.validates or self.seen_nothing:
            return
        loss = (logs or {}).get("val_loss")
        if loss is None:
            raise ValueError(EMPTY.format(name="validation") + " Without a validation pass None.")
        if not np.isfinite(ops.convert_to_numpy(loss)):
            step = min((epoch + 1) * self.steps_per_epoch, self.total_steps)
            raise FloatingPointError(
                f"The loss of the validation is {float(loss)} after step {step}. Lower the learning rate, or look at "
                "the images and labels of the validation."
            )


class _Stop(keras.callbacks.Callback):
    """Ends training after the last step, which may not be the last of an epoch."""

    def __init__(self, total_steps: int, steps_per_epoch: int, batches_per_step: int) -> None:
        super().__init__()
        self.total = total_steps * batches_per_step
        self.epoch_length = steps_per_epoch * batches_per_step
        self.before = 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.before = epoch * self.epoch_length

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self.before + batch + 1 >= self.total:
            self.model.stop_training = True
