"""The processor's output for a model: a dictionary whose keys are attributes too."""

from typing import Any


class BatchFeature(dict[str, Any]):
    """A dictionary with the key `pixel_values`, named after transformers' class.

    >>> inputs = BatchFeature(pixel_values=[1.0])
    >>> inputs["pixel_values"] == inputs.pixel_values
    True

    `model(**inputs)`, `model(inputs)`, `model.predict(inputs)`, `model.evaluate(inputs, y)` and `model.fit(inputs, y)`
    take it. A generator must yield `dict(inputs)` or its array, because Keras treats other dictionaries there as one
    value.
    """

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"This batch has no {name!r}. It has {', '.join(self)}.") from None

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self]
