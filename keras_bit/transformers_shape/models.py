"""`BitModel`, `BitForImageClassification` and `BitBackbone`: models over the graph and the layers of `BiT`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import keras

from keras_bit.hub.finding import HubOptions
from keras_bit.network import model as network
from keras_bit.network.config import BitConfig
from keras_bit.network.model import BiTModel, Ends
from keras_bit.transformers_shape.base import TransformersModel
from keras_bit.transformers_shape.losses import loss_of
from keras_bit.transformers_shape.outputs import (
    BackboneOutput,
    BaseModelOutputWithPoolingAndNoAttention,
    ImageClassifierOutputWithNoAttention,
)

if TYPE_CHECKING:
    from keras_bit.checkpoints.loading import Checkpoint
    from keras_bit.transformers_shape.pretrained import Changes


@keras.saving.register_keras_serializable(package="keras_bit")
class BitModel(TransformersModel):
    """transformers' `BitModel`: the last feature map and its mean, without a head.

    This is the example of transformers' documentation. These parts differ: the import, `BitImageProcessor` for
    `AutoImageProcessor`, a local image, `"np"` for `"pt"`, no `torch.no_grad()`, and channels last.

    Examples:
        >>> from PIL import Image  # doctest: +SKIP
        >>> from keras_bit import BitImageProcessor, BitModel  # doctest: +SKIP
        >>> image = Image.open("cat.jpg")  # doctest: +SKIP
        >>> image_processor = BitImageProcessor.from_pretrained("google/bit-50")  # doctest: +SKIP
        >>> model = BitModel.from_pretrained("google/bit-50")  # doctest: +SKIP
        >>> inputs = image_processor(image, return_tensors="np")  # doctest: +SKIP
        >>> outputs = model(**inputs)  # doctest: +SKIP
        >>> last_hidden_states = outputs.last_hidden_state  # doctest: +SKIP
        >>> list(last_hidden_states.shape)  # doctest: +SKIP
        [1, 14, 14, 2048]

    `fit`, `predict`, `export` and `keras.Model` see a dict of `last_hidden_state` and `pooler_output`.

    Args:
        config: the architecture; weights are random.

    Raises:
        ValueError: `config` is not a `BitConfig`.

    Checked against transformers 5.24 `BitModel` with the same weights.
    """

    def __call__(
        self,
        pixel_values: Any,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        training: bool | None = None,
        **others: Any,
    ) -> Any:
        """Computes the features of images.

        Args:
            pixel_values: `(batch, height, width, channels)`, as `BitImageProcessor` makes them; or the
                dict that it returns.
            output_hidden_states: whether to return the maps of the stem (after its pool) and of each stage (before the
                final norm). `None` is `config.output_hidden_states`.
            return_dict: whether the output is an object with names, or a tuple. `None` is `config.return_dict`.
            training: whether to drop paths by `config.drop_path_rate`. `None` takes the mode of the layer that calls
                this model, and is False without such a layer.

        Returns:
            `last_hidden_state`, `pooler_output` and `hidden_states`, by attribute, key and index. Keras, and calls on
            symbolic tensors, get the dict of the first two.

        Raises:
            TypeError: an argument is unknown.
            ValueError: `pixel_values` do not fit the network.
        """
        if self._wants_tensors(
            pixel_values, others, output_hidden_states=output_hidden_states, return_dict=return_dict
        ):
            return self._tensors(pixel_values, training, **others)
        outputs, hidden_states = self._computed(pixel_values, output_hidden_states, training)
        return self._given(
            BaseModelOutputWithPoolingAndNoAttention.of(**outputs, hidden_states=hidden_states), return_dict
        )

    @staticmethod
    def _ends() -> Ends:
        return Ends(include_top=False, pooling="avg", name="bit_model")

    @staticmethod
    def _graph_outputs(built: BiTModel) -> Any:
        return {"last_hidden_state": built.get_layer("avg_pool").input, "pooler_output": built.output}


@keras.saving.register_keras_serializable(package="keras_bit")
class BitForImageClassification(TransformersModel):
    """transformers' `BitForImageClassification`: logits, and the loss if there are labels.

    This is the example of transformers' documentation. These parts differ: the import, `BitImageProcessor` for
    `AutoImageProcessor`, a local image, `"np"` for `"pt"`, no `torch.no_grad()`, and how the largest logit is found.

    Examples:
        >>> import keras  # doctest: +SKIP
        >>> from PIL import Image  # doctest: +SKIP
        >>> from keras_bit import BitForImageClassification, BitImageProcessor  # doctest: +SKIP
        >>> image = Image.open("cat.jpg")  # doctest: +SKIP
        >>> image_processor = BitImageProcessor.from_pretrained("google/bit-50")  # doctest: +SKIP
        >>> model = BitForImageClassification.from_pretrained("google/bit-50")  # doctest: +SKIP
        >>> inputs = image_processor(image, return_tensors="np")  # doctest: +SKIP
        >>> logits = model(**inputs).logits  # doctest: +SKIP
        >>> # The model predicts one of the 1000 ImageNet classes.
        >>> predicted_label = int(keras.ops.argmax(logits, -1)[0])  # doctest: +SKIP
        >>> print(model.config.id2label[predicted_label])  # doctest: +SKIP
        tiger cat

    `fit`, `predict`, `export` and `keras.Model` see the logits: compile with a loss that has `from_logits=True`.

    Args:
        config: the architecture, its labels and `problem_type`; weights are random.

    Raises:
        ValueError: `config` is not a `BitConfig`.

    Checked against transformers 5.24 `BitForImageClassification` with the same weights, and torch's gradients.
    """

    def __call__(
        self,
        pixel_values: Any,
        labels: Any = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        training: bool | None = None,
        **others: Any,
    ) -> Any:
        """Computes the logits of images, and the loss if there are labels.

        Args:
            pixel_values: `(batch, height, width, channels)`, as `BitImageProcessor` makes them; or the dict that it
                returns.
            labels: `(batch,)` classes of int32 or int64, or `(batch, num_labels)` numbers. `config.problem_type` says
                what they mean. Without a problem type they are numbers to predict if `num_labels` is 1, a class per
                image if they are whole numbers, and otherwise several labels at once.
            output_hidden_states: whether to return the maps of the stem and of each stage. `None` is
                `config.output_hidden_states`.
            return_dict: whether the output is an object with names, or a tuple. `None` is `config.return_dict`.
            training: whether to drop paths by `config.drop_path_rate`. `None` takes the mode of the layer that calls
                this model, and is False without such a layer.

        Returns:
            `loss`, `logits` and `hidden_states`, by attribute, key and index. Keras, and a call on a symbolic tensor,
            get the logits.

        Raises:
            TypeError: an argument is unknown.
            ValueError: `pixel_values` do not fit the network, or `labels` the problem.
        """
        if self._wants_tensors(
            pixel_values, others, labels=labels, output_hidden_states=output_hidden_states, return_dict=return_dict
        ):
            return self._tensors(pixel_values, training, **others)
        logits, hidden_states = self._computed(pixel_values, output_hidden_states, training)
        loss = None if labels is None else loss_of(logits, labels, self.config)
        return self._given(
            ImageClassifierOutputWithNoAttention.of(loss=loss, logits=logits, hidden_states=hidden_states), return_dict
        )

    @classmethod
    def _loaded(cls, checkpoint: "Checkpoint", changes: "Changes", ignore_mismatched_sizes: bool) -> BiTModel:
        from keras_bit.transformers_shape import pretrained

        return pretrained.classifier(checkpoint, cls._ends(), changes, ignore_mismatched_sizes)

    @staticmethod
    def _ends() -> Ends:
        return Ends(classifier_activation=None, name="bit_for_image_classification")


@keras.saving.register_keras_serializable(package="keras_bit")
class BitBackbone(TransformersModel):
    """transformers' `BitBackbone`: the maps of the stages in `config.out_features`.

    Only the part of the network for these maps is built, so `hidden_states` end with the last of them.

    `fit`, `predict`, `export` and `keras.Model` see a dict from stage name to map, which `BiTBackbone` returns too.

    Args:
        config: the architecture; weights are random. Without `out_features` and `out_indices` it returns the last
            stage.

    Raises:
        ValueError: `config` is not a `BitConfig`.

    Checked against transformers 5.24 `BitBackbone` with the same weights.
    """

    def __call__(
        self,
        pixel_values: Any,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        training: bool | None = None,
        **others: Any,
    ) -> Any:
        """Computes the feature maps of images.

        Args:
            pixel_values: `(batch, height, width, channels)`, as `BitImageProcessor` makes them; or the dict that it
                returns.
            output_hidden_states: whether to return the maps of the stem and of each stage, up to the last one that the
                network has. `None` is `config.output_hidden_states`.
            return_dict: whether the output is an object with names, or a tuple. `None` is `config.return_dict`.
            training: whether to drop paths by `config.drop_path_rate`. `None` takes the mode of the layer that calls
                this model, and is False without such a layer.

        Returns:
            `feature_maps`, a tuple in the network's order, and `hidden_states`, by attribute, key and index. Keras, and
            a call on a symbolic tensor, get a dict from stage name to map.

        Raises:
            TypeError: an argument is unknown.
            ValueError: `pixel_values` do not fit the network.
        """
        if self._wants_tensors(
            pixel_values, others, output_hidden_states=output_hidden_states, return_dict=return_dict
        ):
            return self._tensors(pixel_values, training, **others)
        maps, hidden_states = self._computed(pixel_values, output_hidden_states, training)
        feature_maps = tuple(maps[stage] for stage in self.config.stage_names if stage in maps)
        return self._given(BackboneOutput.of(feature_maps=feature_maps, hidden_states=hidden_states), return_dict)

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
        out_features: Sequence[str] | None = None,
        out_indices: Sequence[int] | None = None,
    ) -> Self:
        """Loads a model with the architecture and the weights of a checkpoint, as `BitModel.from_pretrained`.

        Args:
            out_features: names of the stages to return, each once and in the network's order, of `config.stage_names`:
                `"stem"`, `"stage1"` ... Without it and `out_indices` the checkpoint's own, or the last stage.
            out_indices: the numbers of the stages to return: 0 is the stem, 1 is `stage1`, -1 the last stage. If both
                are given they must name the same stages.

        Other arguments and errors are those of `BitModel.from_pretrained`. Arguments about labels only change `config`.
        """
        from keras_bit.transformers_shape.pretrained import Changes

        labels = (num_labels, id2label, label2id, problem_type)
        changes = Changes(*labels, output_hidden_states, return_dict, out_features, out_indices)
        hub = HubOptions(revision, cache_dir, token, local_files_only)
        return cls._pretrained(source, hub, config, changes, ignore_mismatched_sizes)

    @classmethod
    def _built(cls, config: BitConfig) -> BiTModel:
        from keras_bit.checkpoints import building

        config = building.with_outputs(config, None, None)
        return network.build_backbone(config, config.out_features, cls._ends())

    @classmethod
    def _loaded(cls, checkpoint: "Checkpoint", changes: "Changes", ignore_mismatched_sizes: bool) -> BiTModel:
        from keras_bit.checkpoints import building

        config = building.with_outputs(checkpoint.known_config(), None, None)
        return building.build_backbone(checkpoint, config, cls._ends())

    @staticmethod
    def _ends() -> Ends:
        return Ends(name="bit_backbone")
