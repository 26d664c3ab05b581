"""Fine-tuning: the recipe of a `HyperRule` as one call of `model.fit`."""

import contextlib
import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops

from keras_bit.counts import check_whole
from keras_bit.network.model import BiTModel
from keras_bit.network.plain_weights import quantization_of
from keras_bit.recipes.hyperrule import HyperRule
from keras_bit.recipes.optimizers import optimizer
from keras_bit.recipes.recipe import Recipe
from keras_bit.training import choices, distilling, distribution, feeding
from keras_bit.training.objective import Objective
from keras_bit.training.preparing import prepared
from keras_bit.training.watch import Watch, give_result, watch_of

if TYPE_CHECKING:
    import tensorflow as tf

EVALUATIONS = 20  # epochs of a recipe by default, if one pass over the images is shorter


def fine_tune(
    model: BiTModel,
    train: "tf.data.Dataset | keras.utils.PyDataset",
    validation: "tf.data.Dataset | keras.utils.PyDataset | None" = None,
    *,
    rule: HyperRule | None = None,
    recipe: Recipe | None = None,
    teacher: BiTModel | None = None,
    steps_per_epoch: int | None = None,
    gradient_accumulation_steps: int = 1,
    initial_epoch: int = 0,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    jit_compile: bool | str = "auto",
    verbose: int | str = "auto",
) -> keras.callbacks.History:
    """Compiles a model and fits it for the `rule.total_steps` steps of a rule or a recipe.

    It does the same as `model.compile(rule.optimizer(), ...)` and `model.fit(train.repeat(), ...)`. It does not resize,
    crop, flip or mix images. `image_dataset(..., training=True)` does that, with the same `rule` or `recipe`.

    The loss depends on `model.config.problem_type`, as in transformers:

    * one of several classes (`None`, `"single_label_classification"`): whole numbers `(batch,)`, or rows that sum to 1
      as MixUp makes them `(batch, classes)`; cross-entropy; `accuracy`, and `top_5_accuracy` from six classes on;
    * several classes at once (`"multi_label_classification"`): rows of 0 and 1 `(batch, classes)`; binary
      cross-entropy, its mean over all classes; `binary_accuracy`, and `auc`, the mean area under the classes'
      precision-recall curves;
    * numbers (`"regression"`, or no problem type and one output): `(batch,)` or `(batch, outputs)`, whole numbers as
      floats; mean squared error; `mean_absolute_error`.

    Numbers may have any range. While the model trains, the unit of each number is its standard deviation, and 0 is its
    mean. The loss of the history is in these units, and callbacks see a model that predicts in them. The error of the
    history is in the numbers' own unit, and so are the model's predictions before and after. A new head of zeros begins
    by predicting the mean. `image_dataset` notes mean and deviation (`number_units`). For other data they are measured
    on the first 1,024 labels. Numbers are not converted if the head has LoRA, is quantized or has no bias, or if
    several processes train on data that notes no deviation.

    On several machines the model is made in the scope of `MultiWorkerMirroredStrategy`, or under `keras.distribution`
    with `auto_shard_dataset=False`. Then `train` is this worker's part of every batch, as
    `image_dataset(..., shard=...)` makes it, and `validation` is the same on all workers.

    There is one difference from transformers: without a problem type, rows are mixed labels of one class, not several
    classes.

    Args:
        model: a model of keras_bit with its head. Frozen layers stay frozen (`freeze`). Its classes get the names of
            those of `train` (`model.config.id2label`).
        train: a `tf.data.Dataset`, or a `keras.utils.PyDataset`, of float32 images `(batch, height, width, channels)`
            and labels; with a teacher, of such images with any labels or none. A finite one is repeated.
        validation: data of the same form with labels, which is evaluated after each epoch. Its whole numbers become
            rows if `train` has rows. `None`, the default, evaluates nothing.
        rule: a `HyperRule`, which gives the optimizer and the number of steps. Pass it or `recipe`.
        recipe: a `Recipe` instead of `rule`: a rule with further choices. With `lora` the model then has Keras' LoRA
            layers, which `save_pretrained` and `fuse` merge.
        teacher: a model with the same classes. Its answers to the images of each batch are learned instead of the
            labels (Kullback-Leibler divergence at `recipe.temperature`). The labels of `train` are not used, so it
            may hold images without labels too (`image_dataset(["labeled", "others"], label_mode="unlabeled", ...)`);
            the history has no training accuracy. The teacher is used in inference form (`fuse`) and does not change;
            its answers are not stored. `None`, the default, learns the labels.
        steps_per_epoch: steps between two evaluations (rows of the history). `None`, the default, is one pass over
            `train`, but at least a twentieth of all steps.
        gradient_accumulation_steps: batches of `train` per step, with `rule.batch_size / gradient_accumulation_steps`
            images each. Default 1.
        initial_epoch: the number of the epoch to continue with, counted from 0, the default. The caller restores
            weights, the optimizer's state and the data for it, as `keras-bit finetune` does.
        callbacks: callbacks of Keras. A `keras_bit.training.watch.Watch` among them replaces the one of the recipe.
            Default none.
        jit_compile: whether XLA compiles the steps, for `model.compile`: `True`, `False`, or `"auto"`, the default,
            with which Keras decides.
        verbose: how Keras shows progress, for `model.fit`: 0 is silent, 1 is a bar, 2 is a line per epoch. `"auto"`,
            the default, is a bar in most cases.

    Returns:
        Keras' `History`, whose epochs are `steps_per_epoch` long.

    Raises:
        ValueError: an argument is not as described above, or contradicts the data set, the model or another argument; a
            data set is empty; the head and the labels do not fit; or a label is not one of the head's classes (in a
            graph this is `tf.errors.InvalidArgumentError`).
        FloatingPointError: the loss became NaN or infinite, in training or in validation; the message names the step.

    Checked against transformers 5.23 with torch's SGD, step by step, and against google-research/big_transfer
    `bit_pytorch/train.py`.
    """
    recipe = choices.one_of(rule, recipe)
    rule = recipe.rule
    _check(model, rule, gradient_accumulation_steps, initial_epoch, steps_per_epoch)
    choices.check_batches(rule, train, gradient_accumulation_steps)
    choices.check_temperature(recipe, teacher is not None)
    if teacher is not None:
        distilling.check_teacher(teacher, model, recipe)
    with distilling.gives_logits(model) if teacher is not None else contextlib.nullcontext():
        ready, validation, found = prepared(model, recipe, train, validation, teacher)
        if steps_per_epoch is None:
            one_pass = (feeding.known_length(train) or 0) // gradient_accumulation_steps
            steps_per_epoch = min(rule.total_steps, max(one_pass, rule.total_steps // EVALUATIONS, 1))
        steps = _Steps(rule.total_steps, steps_per_epoch, gradient_accumulation_steps)
        fitted = model if teacher is None else distilling.student_of(model, teacher, recipe.temperature)
        with contextlib.nullcontext() if found.units is None else found.units.inside(model):
            history = _fit(
                fitted,
                ready,
                validation,
                found,
                recipe,
                steps,
                initial_epoch,
                callbacks,
                jit_compile=jit_compile,
                verbose=verbose,
            )
    # The head returns probabilities again, or numbers in their own unit.
    if teacher is not None:
        model.compile(fitted.optimizer, **distilling.of_probabilities(found))
    elif found.units is not None:
        _compile_for_numbers(model)
    return history


def _compile_for_numbers(model: BiTModel) -> None:
    """Compiles a trained model again, so that `model.evaluate` takes numbers in their own unit.

    On several devices another model with its layers was compiled, and this one was not.
    """
    fitted = getattr(model, "optimizer", None)
    if fitted is not None:
        with distribution.scope_of(model):
            model.compile(fitted, loss="mean_squared_error", metrics=["mean_absolute_error"])


def _fit(
    model: BiTModel,
    train: Any,
    validation: Any,
    found: Objective,
    recipe: Recipe,
    steps: "_Steps",
    initial_epoch: int,
    callbacks: Sequence[keras.callbacks.Callback],
    *,
    jit_compile: bool | str,
    verbose: int | str,
) -> keras.callbacks.History:
    """Compiles and fits a model on data sets from `prepared`."""
    stages = model.config.stage_names
    validation_steps = None
    strategy = distribution.strategy_of(model)
    if strategy is not None:
        model = distribution.fittable(model)
    if distribution.has_processes(strategy):
        validation_steps = None if validation is None else feeding.known_length(validation)
        train, validation = (distribution.own_part(strategy, data) for data in (train, validation))
        jit_compile = False  # XLA has no such collectives on CPUs

    with distribution.scope_of(model):
        chosen = optimizer(recipe, stages, steps.batches_per_step)
        model.compile(chosen, loss=found.loss, metrics=found.metrics, jit_compile=jit_compile)
    guard = _Guard(steps, validates=validation is not None)
    watch = next((callback for callback in callbacks if isinstance(callback, Watch)), None) or watch_of(recipe)
    own: list[keras.callbacks.Callback] = [guard, _Stop(steps)]
    # The order matters: the watch must see the averaged weights at the end of an evaluation.
    own += [watch] if watch is not None else []
    own += [keras.callbacks.SwapEMAWeights()] if recipe.ema is not None else []
    history = model.fit(
        train,
        shuffle=False,  # for arrays only; a data set has its own order
        validation_data=validation,
        validation_steps=validation_steps,
        epochs=steps.epochs,
        initial_epoch=initial_epoch,
        steps_per_epoch=steps.per_epoch * steps.batches_per_step,
        # The guard comes first, so that later callbacks, such as one that saves weights, see only a finite loss.
        callbacks=[*own, *(callback for callback in callbacks if callback is not watch)],
        verbose=verbose,
    )
    if guard.seen_nothing:  # Keras only warns at the end
        raise feeding.no_batch("train")
    give_result(model, watch)
    return history


@dataclasses.dataclass(frozen=True)
class _Steps:
    """The steps of a recipe, counted in Keras' epochs and batches.

    Args:
        total: the number of steps of the recipe.
        per_epoch: the number of steps between two evaluations.
        batches_per_step: batches per step, whose gradients are accumulated.
    """

    total: int
    per_epoch: int
    batches_per_step: int

    @property
    def epochs(self) -> int:
        return math.ceil(self.total / self.per_epoch)

    def done(self, epoch: int, batches: int) -> int:
        """Returns how many steps are done after this many batches of an epoch; epochs count from 0."""
        return min(epoch * self.per_epoch + batches // self.batches_per_step, self.total)


def _check(
    model: keras.Model, rule: HyperRule, accumulated: int, initial_epoch: int, steps_per_epoch: int | None
) -> None:
    """Refuses arguments that `fine_tune` does not accept."""
    if not isinstance(model, BiTModel) or "predictions" not in {layer.name for layer in model.layers}:
        raise ValueError(
            "`model` must be a model that keras_bit built, with its head, got "
            f"{'one without the layer predictions' if isinstance(model, BiTModel) else type(model).__name__}. Use "
            "include_top=True and `classes=`, or name your own Dense head 'predictions'. Train other models with "
            "`model.compile(rule.optimizer(), ...)` and `model.fit`."
        )
    head = model.get_layer("predictions")
    if quantization_of(head) and not head.lora_enabled:
        raise ValueError(
            f"`model` must have a trainable head, got a quantized one ({quantization_of(head)}). Fine-tune the model "
            "before `quantize`, or call `enable_lora` of its layer 'predictions'."
        )
    check_whole("gradient_accumulation_steps", accumulated)
    check_whole("initial_epoch", initial_epoch, least=0)
    if steps_per_epoch is not None:
        check_whole("steps_per_epoch", steps_per_epoch)
    if accumulated > 1 and distribution.strategy_of(model) is not None:
        raise ValueError(
            f"`gradient_accumulation_steps` must be 1 under a tf.distribute strategy, got {accumulated}: Keras cannot "
            "sum gradients over batches and over devices. Use more devices, or smaller batches."
        )
    if rule.batch_size % accumulated:
        raise ValueError(
            f"`gradient_accumulation_steps` must divide the rule's batch_size {rule.batch_size}, got {accumulated}."
        )


class _Guard(keras.callbacks.Callback):
    """Stops when the loss becomes NaN or infinite, in training or in validation."""

    def __init__(self, steps: _Steps, validates: bool) -> None:
        super().__init__()
        self.steps = steps
        self.validates = validates
        self.epoch = 0
        self.seen_nothing = False

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.epoch = epoch
        self.seen_nothing = True

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self.seen_nothing = False
        loss = (logs or {}).get("loss")
        if loss is not None and not np.isfinite(ops.convert_to_numpy(loss)):
            step = self.steps.done(self.epoch, batch) + 1
            rate = float(ops.convert_to_numpy(self.model.optimizer.learning_rate))
            raise FloatingPointError(
                f"The loss became {float(loss)} at step {step}, at a learning rate of {rate:.3g}. Lower the learning "
                "rate, or check the images and labels of that step. These weights are useless."
            )

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if not self.validates or self.seen_nothing:
            return
        loss = (logs or {}).get("val_loss")
        if loss is None:
            raise feeding.no_batch("validation")
        if not np.isfinite(ops.convert_to_numpy(loss)):
            step = self.steps.done(epoch + 1, 0)
            raise FloatingPointError(
                f"The loss of the validation is {float(loss)} after step {step}. Lower the learning rate, or check the "
                "images and labels of the validation."
            )


class _Stop(keras.callbacks.Callback):
    """Stops after the last step, which may be inside an epoch."""

    def __init__(self, steps: _Steps) -> None:
        super().__init__()
        self.steps = steps
        self.epoch = 0

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.epoch = epoch

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if self.steps.done(self.epoch, batch + 1) == self.steps.total:
            self.model.stop_training = True
