"""What a BiT is: its configuration, its layers, and the functional model that they make."""

# Before any module of this room begins: what Keras' import calls back (see `keras_bit/registration.py`) imports these
# modules, and would find one half imported if that one were the first to import Keras.
import keras  # noqa: F401
