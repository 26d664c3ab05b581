"""The state to continue training from, in one file: weights, optimizer, random generators, and the log so far."""

import json
import reprlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import safetensors

from keras_bit.checkpoints import safetensors_file
from keras_bit.files import json_text, writing
from keras_bit.training.watch import Watch

GENERATOR = "torch_generator"
BEST = "best/"  # and a number: the weights of the best evaluation
Row = dict[str, float]  # of the log: `step` and the metrics there


class TrainingState(keras.callbacks.Callback):
    """Writes the state after each epoch, and restores it when training begins.

    If a run is killed, by any signal, the file holds the last complete epoch. Weights that are not finite are not
    written. The checksum of every tensor is compared when training continues.

    Args:
        file: a safetensors file; renamed into place.
        steps_per_epoch: the steps between two rows of the log.
        total_steps: the last step.
        rate_of: a function from a step, counted from 0, to its learning rate, for the log.
        writes: whether this process writes the file.
        watch: keeps the best weights and ends training early; it is stored in the file too.

    Attributes:
        rows: the log, a row per epoch, from the file and from this run.
        epoch: the epoch to continue with.
    """

    def __init__(
        self,
        file: Path,
        steps_per_epoch: int,
        total_steps: int,
        rate_of: Callable[[int], Any],
        writes: bool = True,
        watch: Watch | None = None,
    ) -> None:
        super().__init__()
        self.file = file
        self.steps_per_epoch = steps_per_epoch
        self.total_steps = total_steps
        self.rate_of = rate_of
        self.writes = writes
        self.watch = watch
        self.rows: list[Row] = []
        if file.exists():
            try:
                with safetensors.safe_open(file, framework="numpy") as stored:
                    self.rows = _rows(stored.metadata()["log"])
            except (safetensors.SafetensorError, TypeError, KeyError, ValueError) as error:
                raise ValueError(
                    f"The training state {str(file)!r} is damaged ({error}). Remove its directory to begin again."
                ) from None
        self.epoch = len(self.rows)
        if watch is not None and self.rows:
            watch.resume([row[watch.metric] for row in self.rows], None)
        self._generator: np.ndarray | None = None

    @property
    def step(self) -> int:
        """The number of steps done."""
        return min(self.epoch * self.steps_per_epoch, self.total_steps)

    def on_train_begin(self, logs: Any = None) -> None:
        if self.epoch:
            self.restore()

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        # The generator is restored only here, because PyTorch's data loader also draws from it when it starts.
        if self._generator is not None:
            import torch

            torch.set_rng_state(torch.from_numpy(self._generator))
            self._generator = None

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        step = min((epoch + 1) * self.steps_per_epoch, self.total_steps)
        rate = float(keras.ops.convert_to_numpy(self.rate_of(step - 1)))
        # Keras sorts the metrics by name. In the log, training comes before validation, and the loss before the others.
        measured = sorted(logs, key=lambda name: (name.startswith("val_"), not name.endswith("loss"), name))
        rows = [*self.rows, {"step": step, "learning_rate": rate, **{name: float(logs[name]) for name in measured}}]
        # The arrays must be contiguous: safetensors writes memory in order, and PyTorch's kernels are transposed views.
        values = {
            name: np.asarray(keras.ops.convert_to_numpy(variable), order="C")
            for name, variable in self._variables().items()
        }
        wrong = [name for name, value in values.items() if not np.isfinite(value.astype(np.float64)).all()]
        if wrong:
            raise FloatingPointError(
                f"After step {step} {len(wrong)} of {len(values)} variables hold NaN or infinity. Lower the learning "
                "rate. These weights are useless."
            )
        if self.writes:
            values |= _generator_state()
            if self.watch is not None and self.watch.best is not None:
                values |= {f"{BEST}{number}": np.asarray(value) for number, value in enumerate(self.watch.best)}
            with writing.replacing(self.file) as beside:
                safetensors_file.write(values, beside, {"log": json.dumps(rows)})
        self.rows, self.epoch = rows, epoch + 1

    def restore(self) -> None:
        """Restores the model and its optimizer from the file."""
        if not self.model.optimizer.built:  # `fit` would build it only in its first step
            self.model.optimizer.build(self.model.trainable_variables)
        variables = self._variables()
        values = self._read()
        self._generator = values.pop(GENERATOR, None)
        best = [values.pop(name) for name in sorted(filter(_is_best, values), key=_place)]
        if self.watch is not None and best:
            self.watch.best = best
        if {name: tuple(variable.shape) for name, variable in variables.items()} != {
            name: value.shape for name, value in values.items()
        }:
            raise ValueError(f"The training state {str(self.file)!r} belongs to another model or optimizer. Remove it.")
        for name, variable in variables.items():
            variable.assign(values[name])

    def _read(self) -> dict[str, np.ndarray]:
        values = {}
        name = "its header"
        try:
            for name, tensor in safetensors_file.open_tensors(self.file):
                values[name] = tensor.read()
        except Exception as error:
            raise ValueError(
                f"The training state {str(self.file)!r} is damaged ({name}: {error}). Remove its directory to begin "
                "again."
            ) from error
        return values

    def _variables(self) -> dict[str, Any]:
        """Returns the variables by place, because names of optimizers and generators depend on earlier objects."""
        # Variables that are not weights are states of random generators, such as drop path's.
        measured = {id(variable) for variable in self.model.metrics_variables}
        groups = {
            "model": [variable for variable in self.model.variables if id(variable) not in measured],
            "optimizer": self.model.optimizer.variables,
        }
        return {
            f"{group}/{number}": variable
            for group, variables in groups.items()
            for number, variable in enumerate(variables)
        }


def _is_best(name: str) -> bool:
    return name.startswith(BEST)


def _place(name: str) -> int:
    return int(name.removeprefix(BEST))


def _rows(text: str) -> list[Row]:
    rows = json_text.parse(text)
    if not isinstance(rows, list) or not all(isinstance(row, dict) and "step" in row for row in rows):
        raise ValueError("its log must be a list of rows, each with a step")
    if wrong := [value for row in rows for value in row.values() if type(value) not in (int, float)]:
        raise ValueError(f"its log must hold numbers, got {reprlib.repr(wrong[0])}")
    return rows


def _generator_state() -> dict[str, np.ndarray]:
    """Returns the state of PyTorch's process-wide generator; the other backends' generators are variables."""
    if keras.backend.backend() != "torch":
        return {}
    import torch

    return {GENERATOR: torch.get_rng_state().numpy()}
