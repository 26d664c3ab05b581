"""Makes the first call of Keras' steps faster for every model of keras_bit, with smaller graphs."""

import contextlib
from typing import Any

import keras
import numpy as np

from keras_bit.network import tracing

KERAS_BATCH_SIZE = 32  # images; the default of `predict`


class QuickSteps:
    """A mixin for a `keras.Model`, which comes before it in the list of bases.

    It is not a model itself, because Keras makes the bases of a functional model functional. A base that another kind
    of model shares would then become functional there too.
    """

    def make_train_function(self, force: bool = False) -> Any:
        """Builds the optimizer's variables, and then calls Keras' method.

        Keras lets the optimizer create its variables in the first step. TensorFlow traces a function twice if it
        creates variables, which delays that step.
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
        """Predicts as Keras does, but builds no `tf.data` pipeline for an array of one batch.

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
        """Predicts a batch as Keras does, in a smaller graph."""
        with tracing.step():
            return super().predict_step(*args, **kwargs)  # type: ignore[misc]

    def test_step(self, *args: Any, **kwargs: Any) -> Any:
        """Evaluates a batch as Keras does, in a smaller graph."""
        with tracing.step():
            return super().test_step(*args, **kwargs)  # type: ignore[misc]


def _is_one_batch(model: keras.Model, x: Any, batch_size: int | None) -> bool:
    """Returns whether `x` is an array or a TensorFlow tensor that Keras would pass to the model unchanged."""
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
        strategy = getattr(model, "distribute_strategy", None)  # only models under TensorFlow have one
        with contextlib.nullcontext() if strategy is None else strategy.scope():
            model.optimizer.build(model.trainable_variables)
