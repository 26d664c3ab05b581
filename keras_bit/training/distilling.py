"""Distillation: a student learns its teacher's answers to the same images."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import keras
from keras import ops

from keras_bit.network.model import BiTModel
from keras_bit.network.transforms import fuse
from keras_bit.network.weights import HEAD
from keras_bit.recipes.recipe import Recipe
from keras_bit.training import distribution
from keras_bit.training.objective import ONE, Objective, problem_type


def check_teacher(teacher: keras.Model, model: BiTModel, recipe: Recipe) -> None:
    """Refuses a teacher that cannot teach this model, and choices about labels, which are not used.

    Raises:
        ValueError: the teacher is not a keras_bit model, has other classes or another problem type, or does not give
            probabilities; or the recipe weights or smooths labels, or is for several devices.
    """
    if not isinstance(teacher, BiTModel) or HEAD not in {layer.name for layer in teacher.layers}:
        got = "one without the layer predictions" if isinstance(teacher, BiTModel) else type(teacher).__name__
        raise ValueError(f"`teacher` must be a model of keras_bit with its head, got {got}.")
    for name, one in (("model", model), ("teacher", teacher)):
        if (kind := problem_type(one)) != ONE:
            raise ValueError(f"`{name}` must predict one of several classes for distillation, got {kind}.")
    if model.config.num_labels != teacher.config.num_labels:
        raise ValueError(
            f"`teacher` must have the classes of `model`, got {teacher.config.num_labels} for "
            f"{model.config.num_labels}."
        )
    # If the classes of a model have no names, only their number can be compared.
    named = [one.config.id2label or {} for one in (model, teacher) if one.config.has_named_labels]
    differing = [number for number in named[0] if named[0][number] != named[1].get(number)] if len(named) == 2 else []
    if differing:
        own, other = (labels.get(differing[0]) for labels in named)
        raise ValueError(
            f"`teacher` must have the classes of `model` in their order, got {len(differing)} others: {other!r} where "
            f"`model` has {own!r}. Give the classes in the teacher's order (`class_names`)."
        )
    if model.config.num_channels != teacher.config.num_channels:
        raise ValueError(
            f"`teacher` must take images of {model.config.num_channels} channels, as `model`, got one for "
            f"{teacher.config.num_channels}."
        )
    check_recipe(recipe)
    if distribution.strategy_of(model) is not None:
        raise ValueError("`teacher` must be None under a tf.distribute strategy. Train on one device.")


def check_recipe(recipe: Recipe) -> None:
    """Refuses choices that concern labels, because training by a teacher does not use labels.

    Raises:
        ValueError: the recipe has one.
    """
    for name in ("class_weight", "label_smoothing"):
        if getattr(recipe, name):
            raise ValueError(
                f"`{name}` must be left out with a teacher, got {getattr(recipe, name)!r}: labels are not used."
            )


@contextlib.contextmanager
def gives_logits(model: BiTModel) -> Iterator[None]:
    """A context in which the head has no activation, because a probability that rounds to 0 has no logarithm."""
    head = model.get_layer(HEAD)
    before, head.activation = head.activation, keras.activations.linear
    try:
        yield
    finally:
        head.activation = before


def student_of(model: BiTModel, teacher: BiTModel, temperature: float) -> "Student":
    """Wraps a model that gives logits, for training by a teacher."""
    return Student(model, logits_of(teacher), temperature)


def of_probabilities(found: Objective) -> dict[str, Any]:
    """Returns the loss and the metrics of an objective for logits in their form for probabilities, for `compile`."""
    loss = type(found.loss).from_config(found.loss.get_config() | {"from_logits": False})
    return {"loss": loss, "metrics": [type(one).from_config(one.get_config()) for one in found.metrics]}


def logits_of(teacher: BiTModel) -> Callable[[Any], Any]:
    """Returns a function from images `(batch, height, width, channels)` to a teacher's logits.

    It uses a copy of the teacher that is fused and never trained. It is a function and not a model, because Keras would
    count a model's weights as the student's.
    """
    copy = fuse(teacher)
    copy.trainable = False
    copy.get_layer(HEAD).activation = keras.activations.linear

    def answer(images: Any) -> Any:
        return ops.stop_gradient(ops.cast(copy(images, training=False), "float32"))

    return answer


def divergence(wanted: Any, given: Any, temperature: float) -> Any:
    """Returns the Kullback-Leibler divergence of softened answers times the squared temperature, the mean over images.

    `T * T * sum(p * (log p - log q))` with `p = softmax(wanted / T)` and `q = softmax(given / T)`. The square keeps the
    size of the gradients.

    Args:
        wanted, given: logits `(batch, classes)`.
        temperature: T, above 0; 1 takes the answers as they are.

    Sources: Hinton et al. 2015, "Distilling the Knowledge in a Neural Network"; Beyer et al. 2022, "Knowledge
    distillation: A good teacher is patient and consistent". Checked against torch's `kl_div`.
    """
    wanted, given = (ops.log_softmax(ops.cast(logits, "float32") / temperature) for logits in (wanted, given))
    return temperature**2 * ops.mean(ops.sum(ops.exp(wanted) * (wanted - given), axis=-1))


class Student(BiTModel):
    """A model's layers and weights, trained on a teacher's answers and validated with labels.

    The teacher sees the same images as the student: cropped, flipped and mixed. The training's labels are not used.

    Args:
        model: gives logits.
        answer: the result of `logits_of` for the teacher.
        temperature: the temperature of `divergence`.
    """

    def __init__(self, model: BiTModel, answer: Callable[[Any], Any], temperature: float) -> None:
        super().__init__(model.inputs, model.outputs[0], name=model.name)
        self.training_forward = model.training_forward  # of `rematerialize`
        self._answer, self._temperature, self._is_taught = answer, temperature, False

    # Python runs the following methods only while a step is traced.

    def train_step(self, *arguments: Any, **keywords: Any) -> Any:
        self._is_taught = True
        return super().train_step(*arguments, **keywords)

    def test_step(self, *arguments: Any, **keywords: Any) -> Any:
        self._is_taught = False
        return super().test_step(*arguments, **keywords)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        if not self._is_taught:
            return super().compute_loss(x, y, y_pred, sample_weight, training)
        return divergence(self._answer(x), y_pred, self._temperature)

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict[str, Any]:
        if not self._is_taught:
            return super().compute_metrics(x, y, y_pred, sample_weight)
        return self.get_metrics_result()

    def get_metrics_result(self) -> dict[str, Any]:
        """Returns all metrics with labels, and only the loss without them."""
        if not self._is_taught:
            return super().get_metrics_result()
        (loss,) = (metric for metric in self.metrics if metric.name == "loss")
        return {"loss": loss.result()}
