"""What a BiT is: its configuration, its layers, and the functional model that they make."""

# Keras must be imported before any module of this room. Its import calls back `keras_bit/registration.py`, which
# imports these modules, and one of them would be half imported if it were the first to import Keras.
import keras  # noqa: F401
