"""The outputs of transformers' classes, which hold the computed values by name, in transformers' order."""

from typing import Any, ClassVar

import keras


class ModelOutput(dict[str, Any]):
    """Values by attribute, by key and by index.

    `outputs.logits`, `outputs["logits"]` and `outputs[0]`. A value that was not computed is `None` as an attribute, and
    has no key and no index. It is a dict, which TensorFlow's graphs return unchanged; for JAX it is a tree of its
    values.

    Checked against transformers 5.24 `utils/generic.py`.
    """

    __slots__ = ()
    fields: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls) -> None:
        if keras.backend.backend() == "jax":
            import jax

            jax.tree_util.register_pytree_with_keys(
                cls, _flattened, lambda names, values: cls(zip(names, values, strict=True))
            )

    def __getattr__(self, name: str) -> Any:
        if name in self.fields:
            return self.get(name)
        raise AttributeError(f"{type(self).__name__} has no {name!r}. Its fields are {', '.join(self.fields)}.")

    def __getitem__(self, key: str | int | slice) -> Any:
        return super().__getitem__(key) if isinstance(key, str) else self.to_tuple()[key]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.items())})"

    def to_tuple(self) -> tuple[Any, ...]:
        """Returns the computed values."""
        return tuple(self.values())

    @classmethod
    def of(cls, **values: Any) -> "ModelOutput":
        """Builds it from the values that are not `None`, in the order of `fields`."""
        return cls({name: values[name] for name in cls.fields if values[name] is not None})


def _flattened(output: ModelOutput) -> tuple[list[tuple[Any, Any]], tuple[str, ...]]:
    from jax.tree_util import DictKey

    return [(DictKey(name), value) for name, value in output.items()], tuple(output)


class BaseModelOutputWithPoolingAndNoAttention(ModelOutput):
    """The output of `BitModel`.

    `last_hidden_state` is `(batch, height, width, channels)`, after the final norm and activation; `pooler_output` is
    its mean over height and width, `(batch, channels)`, where transformers has `(batch, channels, 1, 1)`;
    `hidden_states` is a tuple of maps `(batch, height, width, channels)`.
    """

    __slots__ = ()
    fields = ("last_hidden_state", "pooler_output", "hidden_states")


class ImageClassifierOutputWithNoAttention(ModelOutput):
    """The output of `BitForImageClassification`.

    `loss` is a scalar; `logits` are `(batch, num_labels)`; `hidden_states` is a tuple of maps
    `(batch, height, width, channels)`.
    """

    __slots__ = ()
    fields = ("loss", "logits", "hidden_states")


class BackboneOutput(ModelOutput):
    """The output of `BitBackbone`.

    `feature_maps` and `hidden_states` are tuples of maps `(batch, height, width, channels)`.
    """

    __slots__ = ()
    fields = ("feature_maps", "hidden_states")
