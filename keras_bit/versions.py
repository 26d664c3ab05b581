"""Differences between versions of TensorFlow, Keras and Pillow. Every check of a version uses this module.

The oldest supported versions are in pyproject.toml, each found by tests; `make test-stack` tests them.
"""

import re
from typing import Any

DECODES_WEBP = "2.20"  # TensorFlow: has `tf.io.decode_webp`
CUTS_GRAPHS = "3.14"  # Keras: `keras.Function` begins in the middle of a graph; `keras.remat` came with 3.9
CHECKS_KERAS_FILES = "3.14"  # Keras: finds flipped bits in a .keras file

# Pillow: the first versions that resize some images vertically first, each by a rule of its own.
VERTICAL_BY_HEIGHT = "12.2"
VERTICAL_BY_SAVING = "13.0"

# Keys that newer versions of Keras write into a layer's or an initializer's config, and older ones refuse. `None` is
# the newer versions' default. `quantization_config` came with 3.13, the others with 3.15.
_NEW_ARGUMENTS = ("input_axes", "output_axes", "quantization_config")


def is_older(version: str, than: str) -> bool:
    """Returns whether `version` is before `than`; a release candidate or a nightly counts as the release."""
    return _numbers(version) < _numbers(than)


def require(package: str, version: str, oldest: str, purpose: str) -> None:
    """Checks that a package has version `oldest` or newer.

    Args:
        package: its name.
        version: the installed version.
        oldest: the first sufficient version.
        purpose: what needs it, as the subject of a sentence.

    Raises:
        ImportError: it is older; the message says how to install a newer one.
    """
    if is_older(version, oldest):
        name = package.lower()
        raise ImportError(
            f"{purpose} needs {package} {oldest} or newer, but {version} is installed. Install a newer one with `pip "
            f"install --upgrade '{name}>={oldest}'`."
        )


def portable(config: Any) -> Any:
    """Removes new arguments that are `None` from a Keras config, so that every Keras from 3.8 on reads it the same."""
    if isinstance(config, dict):
        return {
            name: portable(value) for name, value in config.items() if not (value is None and name in _NEW_ARGUMENTS)
        }
    if isinstance(config, list):
        return [portable(value) for value in config]
    return config


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version)[:2]))
