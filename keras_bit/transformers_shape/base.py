"""The base of transformers' classes, which creates, loads and saves models, and chooses the output for a caller."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, overload

import keras

from keras_bit.hub.finding import HubOptions
from keras_bit.network import model as network
from keras_bit.network.calls import PIXEL_VALUES, refuse_unknown
from keras_bit.network.config import BitConfig
from keras_bit.network.model import BiTModel, Ends, stage_outputs
from keras_bit.transformers_shape import calls
from keras_bit.transformers_shape.outputs import ModelOutput

if TYPE_CHECKING:
    from keras_bit.checkpoints.loading import Checkpoint
    from keras_bit.transformers_shape.pretrained import Changes

# These modules are imported right after Keras, so that it finds the classes in files. Code for checkpoints is imported
# when it is used.


class TransformersModel(BiTModel):
    """A model with two kinds of callers.

    A user gets transformers' output. Keras, which fits, saves, exports and connects models, gets the graph's tensors.
    """

    # Computes the outputs and the hidden states in one pass; it is made on first use. It is a function, because Keras
    # would save a model in an attribute as a part of this one.
    _with_hidden_states: Callable[..., Any] | None = None

    @overload
    def __init__(self, config: BitConfig) -> None: ...
    @overload
    def __init__(self, inputs: Any, outputs: Any, name: str | None = None, **kwargs: Any) -> None: ...
    # These names tell Keras that it may build the model from its graph, as it does to load or clone one.
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if len(args) > 1 or "outputs" in kwargs:
            super().__init__(*args, **kwargs)
            return
        config = args[0] if args else kwargs.pop("config", None)
        if kwargs or not isinstance(config, BitConfig):
            raise ValueError(
                f"{type(self).__name__} takes only `config`, a BitConfig, got {', '.join(kwargs) or repr(config)}. "
                "Load a checkpoint with `from_pretrained(source)`."
            )
        built = self._built(config)
        super().__init__(built.input, self._graph_outputs(built), name=built.name)

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        num_labels: int | None = None,
        id2label: Mapping[int, str] | None = None,
        label2id: Mapping[str, int] | None = None,
        problem_type: str | None = None,
        ignore_mismatched_sizes: bool = False,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        token: str | bool | None = None,
        local_files_only: bool = False,
        *,
        config: BitConfig | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> Self:
        """Loads a model with the architecture and the weights of a checkpoint.

        Args:
            source: the checkpoint: a Hub id, a local directory or a local file.
            num_labels: number of classes; `None` is the length of `id2label`, or else the checkpoint's.
            id2label: class index to label; `None` keeps the checkpoint's, if the number of classes stays.
            label2id: label to class index; `None` is the inverse of `id2label`. Without `id2label` it names classes
                that have no names in the checkpoint, or classes of a new `num_labels`.
            problem_type: `"single_label_classification"`, `"multi_label_classification"` or `"regression"`: it selects
                the loss. `None` is the checkpoint's; if it has none, the labels decide.
            ignore_mismatched_sizes: whether to replace a head with another number of classes by a new one of zeros,
                with a warning. All other tensors must fit.
            revision: branch, tag or full commit hash of a Hub id.
            cache_dir: the cache of Hub files; `None` is huggingface_hub's.
            token: a token for the Hub; `None` takes the one that `hf auth login` stored.
            local_files_only: whether to use only the cache.
            config: a `BitConfig` that replaces the checkpoint's own. Pass it for weights without a configuration.
            output_hidden_states: the default for calls. `None` is the checkpoint's.
            return_dict: the default for calls. `None` is the checkpoint's.

        Raises:
            ValueError: an argument is out of its range, the head has another number of classes, or the checkpoint does
                not fit, is damaged, or is not a BiT. No model is returned.
            OSError: the checkpoint does not exist (FileNotFoundError) or cannot be fetched.
            ImportError: the checkpoint is a `pytorch_model.bin` and torch is not installed.

        Checked against transformers 5.24 `from_pretrained` with the same weights.
        """
        from keras_bit.transformers_shape.pretrained import Changes

        changes = Changes(num_labels, id2label, label2id, problem_type, output_hidden_states, return_dict)
        hub = HubOptions(revision, cache_dir, token, local_files_only)
        return cls._pretrained(source, hub, config, changes, ignore_mismatched_sizes)

    @classmethod
    def _pretrained(
        cls,
        source: str | Path,
        hub: HubOptions,
        config: BitConfig | None,
        changes: "Changes",
        ignore_mismatched_sizes: bool,
    ) -> Self:
        from keras_bit.transformers_shape import pretrained

        checkpoint = pretrained.opened(source, hub, config, changes)
        built = cls._loaded(checkpoint, changes, ignore_mismatched_sizes)
        return cls(built.input, cls._graph_outputs(built), name=built.name)

    def save_pretrained(self, directory: str | Path) -> None:
        """Writes `config.json` and `model.safetensors`, as `keras_bit.save_pretrained(model, directory)` does."""
        from keras_bit.checkpoints import saving

        saving.save_pretrained(self, directory)

    @staticmethod
    def _ends() -> Ends:
        """Returns the beginning and the end of the network."""
        raise NotImplementedError

    @classmethod
    def _built(cls, config: BitConfig) -> BiTModel:
        """Builds the network with random weights."""
        return network.build(config, cls._ends())

    @classmethod
    def _loaded(cls, checkpoint: "Checkpoint", changes: "Changes", ignore_mismatched_sizes: bool) -> BiTModel:
        """Builds the network with a checkpoint's weights."""
        from keras_bit.checkpoints import building

        return building.build_model(checkpoint, cls._ends())

    @staticmethod
    def _graph_outputs(built: BiTModel) -> Any:
        """Returns the outputs that Keras sees."""
        return built.output

    def _wants_tensors(self, pixel_values: Any, unknown: Mapping[str, Any], **for_output: Any) -> bool:
        """Returns whether Keras calls, or connects the model; `for_output` has arguments that only an output has."""
        given = [name for name, value in for_output.items() if value is not None]
        if not given and calls.is_by_keras():
            return True
        refuse_unknown(type(self).__name__, unknown, [PIXEL_VALUES, *for_output, "training"])
        if not calls.is_symbolic(pixel_values):
            return False
        if given:
            raise ValueError(
                f"`{given[0]}` is for images. A call on a symbolic tensor connects layers, and gives the tensors that "
                f"`keras.Model` sees: {self.output}. Intermediate maps are at `model.get_layer(name).output`."
            )
        return True

    def _tensors(self, pixel_values: Any, training: bool | None, **others: Any) -> Any:
        """Returns the outputs of the graph."""
        # If `training` is not passed, Keras takes that of the layer around this one.
        return super().__call__(pixel_values, **others if training is None else {**others, "training": training})

    def _computed(
        self, pixel_values: Any, output_hidden_states: bool | None, training: bool | None
    ) -> tuple[Any, tuple[Any, ...] | None]:
        """Returns the outputs of the graph for images, and the hidden states if requested."""
        given, pixel_values = pixel_values, self._look_at(pixel_values, above=1)
        if isinstance(pixel_values, Mapping):
            raise ValueError(f"A dict of inputs must have only `pixel_values`, got {', '.join(map(str, given))}.")
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        if not output_hidden_states:
            return self._tensors(pixel_values, training), None
        if self._with_hidden_states is None:
            both = keras.Model(self.input, {"outputs": self.output, "maps": list(stage_outputs(self).values())})
            self._with_hidden_states = lambda *args, **kwargs: both(*args, **kwargs)
        found = self._with_hidden_states(pixel_values, **{} if training is None else {"training": training})
        return found["outputs"], tuple(found["maps"])

    def _given(self, output: ModelOutput, return_dict: bool | None) -> ModelOutput | tuple[Any, ...]:
        if return_dict is None:
            return_dict = self.config.return_dict
        return output if return_dict else output.to_tuple()
