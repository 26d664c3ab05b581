"""What every model of this package does in Keras' steps: start them sooner, and build less for them."""

import contextlib
from typing import Any

import keras
import numpy as np

from keras_bit.network import tracing

KERAS_BATCH_SIZE = 32  # images; the default of `predict`


class QuickSteps:
    """Mixed into a `keras.Model`, before it in the list of bases.

    It is not a model itself: Keras turns the bases of a functional model into functional ones, and a base that is
    shared with a model of another kind would become one there, too.
    """

    def make_train_function(self, force: bool = False) -> Any:
        """As Keras' own, after the optimizer has its variables.

        TensorFlow traces a function that makes variables twice, and the first step is where Keras lets the optimizer
        make them: that was a third of R50x1's wait.
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
        """As Keras' own, which builds a `tf.data` pipeline in every call; an array of one batch does not need it.

        The pipeline takes as long as R50x1 takes for an image.
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
        """As Keras' own, in a graph that is smaller."""
        with tracing.step():
            return super().predict_step(*args, **kwargs)  # type: ignore[misc]

    def test_step(self, *args: Any, **kwargs: Any) -> Any:
        """As Keras' own, in a graph that is smaller."""
        with tracing.step():
            return super().test_step(*args, **kwargs)  # type: ignore[misc]


def _is_one_batch(model: keras.Model, x: Any, batch_size: int | None) -> bool:
    """Whether `x` is an array, or a tensor of TensorFlow, that Keras would give to the model as it is."""
    if keras.backend.backend() != "tensorflow" or not (isinstance(x, np.ndarray) or keras.ops.is_tensor(x)):
        return False
    if model.steps_per_execution != 1 or model.distribute_strategy.num_replicas_in_sync != 1:
        return False
    size = KERAS_BATCH_SIZE if batch_size is None else batch_size
    return isinstance(size, int) and x.ndim == 4 and 0 < len(x) <= size and _type_in_a_pipeline(x) is not None


def _type_in_a_pipeline(x: Any) -> str | None:
    """What Keras' pipelines make of an array's type: all floating point becomes `keras.config.floatx()`."""
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
