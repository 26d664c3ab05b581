"""Faster starts of Keras' steps for every model of keras_bit, with smaller graphs."""

import contextlib
from typing import Any

import keras
import numpy as np

from keras_bit.network import tracing

KERAS_BATCH_SIZE = 32  # images; the default of `predict`


class QuickSteps:
    """Mixed into a `keras.Model`, before it in the list of bases.

    It is not a model itself, because Keras turns the bases of a functional model into functional ones, and a base that
    another kind of model shares would be turned there too.
    """

    def make_train_function(self, force: bool = False) -> Any:
        """Builds the optimizer's variables, then does as Keras.

        Keras lets the optimizer create its variables in the first step. TensorFlow traces a function that creates
        variables twice, which delays that step.
        """
        build_optimizer(self)
        return super().make_train_function(force)  # type: ignore[misc]

    def predict(
        self,
        x: Any,
        batch_size: int | None = None,
        verbose: Any = "auto",
        steps: int | None = None,
        callbacks: Any = None,
    ) -> Any:
        """Does as Keras, but builds no `tf.data` pipeline for an array of one batch.

        Building the pipeline would take about as long as one image.
        """
        if steps is None and callbacks is None and _is_one_batch(self, x, batch_size):
            shown = keras.callbacks.CallbackList(
                add_progbar=verbose != 0, verbose=verbose, epochs=1, steps=1, model=self
            )
            shown.on_predict_begin()
            shown.on_predict_batch_begin(0)
            x = keras.ops.convert_to_tensor(x, dtype=_type_in_a_pipeline(x))
            outputs = self.predict_on_batch(x)  # type: ignore[attr-defined]
            shown.on_predict_batch_end(0, {"outputs": outputs})
            shown.on_predict_end()
            return outputs
        return super().predict(  # type: ignore[misc]
            x, batch_size=batch_size, verbose=verbose, steps=steps, callbacks=callbacks
        )

    def predict_step(self, *args: Any, **kwargs: Any) -> Any:
        """Does as Keras, in a smaller graph."""
        with tracing.step():
            return super().predict_step(*args, **kwargs)  # type: ignore[misc]

    def test_step(self, *args: Any, **kwargs: Any) -> Any:
        """Does as Keras, in a smaller graph."""
        with tracing.step():
            return super().test_step(*args, **kwargs)  # type: ignore[misc]


def _is_one_batch(model: keras.Model, x: Any, batch_size: int | None) -> bool:
    """Whether `x` is an array or a TensorFlow tensor that Keras would pass to the model unchanged."""
    if keras.backend.backend() != "tensorflow" or not (isinstance(x, np.ndarray) or keras.ops.is_tensor(x)):
        return False
    if model.steps_per_execution != 1 or model.distribute_strategy.num_replicas_in_sync != 1:
        return False
    size = KERAS_BATCH_SIZE if batch_size is None else batch_size
    return isinstance(size, int) and x.ndim == 4 and 0 < len(x) <= size and _type_in_a_pipeline(x) is not None


def _type_in_a_pipeline(x: Any) -> str | None:
    """Returns the dtype that Keras' pipelines give an array: every float becomes `keras.config.floatx()`."""
    name = keras.backend.standardize_dtype(x.dtype) if keras.ops.is_tensor(x) or x.dtype.kind in "iuf" else ""
    if "float" in name:
        return keras.config.floatx()
    return name if "int" in name else None


def build_optimizer(model: keras.Model) -> None:
    """Gives the optimizer of a compiled model its variables."""
    if model.optimizer is not None and not model.optimizer.built:
        strategy = getattr(model, "distribute_strategy", None)  # TensorFlow's
        with contextlib.nullcontext() if strategy is None else strategy.scope():
            model.optimizer.build(model.trainable_variables)
