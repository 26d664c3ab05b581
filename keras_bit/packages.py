"""Optional packages: checks whether they are installed, and how to install them."""

import contextlib
import importlib.util
from collections.abc import Iterator


class MissingPackageError(ImportError):
    """An import of an optional package failed; the message says what to install."""


def require(package: str, extra: str, purpose: str) -> None:
    """Checks that an optional package is installed, before anything is computed.

    A dependency of the package may still be missing, so use the package inside `needing`.

    Args:
        package: its name in an `import` statement.
        extra: the extra of keras_bit that installs it.
        purpose: what needs it, as the subject of a sentence.

    Raises:
        MissingPackageError: it is not installed.
    """
    if importlib.util.find_spec(package) is None:
        raise MissingPackageError(not_installed(package, installation(extra), purpose))


def require_tensorflow(purpose: str) -> None:
    """Checks that TensorFlow is installed; with another backend, most of keras_bit works without it.

    Args:
        purpose: what needs it, as the subject of a sentence.

    Raises:
        MissingPackageError: it is not installed.
    """
    if not has_tensorflow():
        raise MissingPackageError(not_installed("tensorflow", "`pip install tensorflow`", purpose))


def has_tensorflow() -> bool:
    """Returns whether TensorFlow is installed."""
    return importlib.util.find_spec("tensorflow") is not None


@contextlib.contextmanager
def needing(extra: str, purpose: str) -> Iterator[None]:
    """A context for using the packages of an extra. If an import fails in it, the error says what to install.

    Args:
        extra: the extra of keras_bit that installs the packages.
        purpose: what needs them, as the subject of a sentence.

    Raises:
        MissingPackageError: a module could not be imported, or the raised error has such an error as its cause.
    """
    try:
        yield
    except Exception as error:
        failed = failed_import(error)
        if failed is None or isinstance(failed, MissingPackageError):
            raise
        package = _package(failed)
        if package == "keras_bit":  # users cannot fix that
            raise
        if package is not None and importlib.util.find_spec(package) is None:
            raise MissingPackageError(not_installed(package, installation(extra), purpose)) from error
        raise MissingPackageError(
            f"{purpose} needs a package that is installed but cannot be imported: {str(failed).rstrip('.')}. To get "
            f"versions that fit together, run `pip install --upgrade 'keras_bit[{extra}]'`."
        ) from error


def failed_import(error: BaseException) -> ImportError | None:
    """Returns the failed import behind `error`; `None` if it has another cause.

    An import that merely failed earlier does not count, because libraries work without some packages.
    """
    found: BaseException | None = error
    while found is not None and not isinstance(found, ImportError):
        found = found.__cause__
    return found


def installation(extra: str) -> str:
    """Returns the commands that install an extra of keras_bit, from a package and from a checkout, for a message."""
    return f"`pip install 'keras_bit[{extra}]'`, or `pip install -e '.[{extra}]'` in a checkout"


def not_installed(package: str, commands: str, purpose: str) -> str:
    """Returns the message about a missing package.

    Args:
        package: its name in an `import` statement.
        commands: how to install it, as from `installation`.
        purpose: what needs it, as the subject of a sentence.
    """
    return f"{purpose} needs the package {package}, which is not installed. Install it with {commands}."


def _package(error: ImportError) -> str | None:
    """Returns the package whose import failed, from Python's own error, which may be the cause of a library's."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, ImportError) and found.name:
            return found.name.partition(".")[0]
        found = found.__cause__ or found.__context__
    return None
