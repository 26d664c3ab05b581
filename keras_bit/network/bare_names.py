"""On import, registers the models that keras_bit has registered so far under the names that `.h5` files give them.

Keras' older format names the class of a whole model without its package, as `BiTModel`, and the classes of its layers
as they are registered, as `keras_bit>StdConv2D`.
"""

import keras

_known = keras.saving.get_custom_objects()
for _name, _registered in list(_known.items()):
    if _name.startswith("keras_bit>") and isinstance(_registered, type) and issubclass(_registered, keras.Model):
        _known.setdefault(_registered.__name__, _registered)
