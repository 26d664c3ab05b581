"""What older versions of TensorFlow, Keras and Pillow lack or do otherwise: every version that is asked for is here.

The oldest versions that all the rest runs on are in pyproject.toml, each found by trying; `make test-stack` tries them.
"""

import re
from typing import Any

DECODES_WEBP = "2.20"  # TensorFlow: has `tf.io.decode_webp`
CUTS_GRAPHS = "3.14"  # Keras: `keras.Function` begins in the middle of a graph; `keras.remat` came with 3.9
CHECKS_KERAS_FILES = "3.14"  # Keras: finds flipped bits in a .keras file

# Pillow: the first versions that resize some images vertically first, each by a rule of its own.
VERTICAL_BY_HEIGHT = "12.2"
VERTICAL_BY_SAVING = "13.0"

# What newer versions of Keras write into a layer's or an initializer's config, and older ones refuse there. `None` is
# what the newer ones take where it is left out. `quantization_config` came with 3.13, the others with 3.15.
_NEW_ARGUMENTS = ("input_axes", "output_axes", "quantization_config")


def is_older(version: str, than: str) -> bool:
    """Whether `version`, as a package says it, is before `than`: a release candidate or a nightly counts as it."""
    return _numbers(version) < _numbers(than)


def require(package: str, version: str, oldest: str, purpose: str) -> None:
    """Checks that a package is of version `oldest` or newer.

    Args:
        package: its name.
        version: the one that is installed.
        oldest: the first one that can.
        purpose: what needs it, as the beginning of a sentence.

    Raises:
        ImportError: it is older; the message says which version can and how to install it.
    """
    if is_older(version, oldest):
        name = package.lower()
        raise ImportError(
            f"{purpose} needs {package} {oldest} or newer, and {version} is installed. Install a newer one with "
            f"`pip install --upgrade '{name}>={oldest}'`."
        )


def portable(config: Any) -> Any:
    """A Keras config without the new arguments that are `None`: every Keras from 3.8 on makes the same of it."""
    if isinstance(config, dict):
        return {
            name: portable(value) for name, value in config.items() if not (value is None and name in _NEW_ARGUMENTS)
        }
    if isinstance(config, list):
        return [portable(value) for value in config]
    return config


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version)[:2]))
