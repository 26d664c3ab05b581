"""On import, registers the models of keras_bit a second time, under the names that `.h5` files use.

Keras' older format stores the class of a model without its package (`BiTModel`), but the classes of its layers with it
(`keras_bit>StdConv2D`).
"""

import keras

_known = keras.saving.get_custom_objects()
for _name, _registered in list(_known.items()):
    if _name.startswith("keras_bit>") and isinstance(_registered, type) and issubclass(_registered, keras.Model):
        _known.setdefault(_registered.__name__, _registered)
