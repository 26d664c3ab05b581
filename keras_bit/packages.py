"""Optional packages: whether they are installed, and what installs them."""

import contextlib
import importlib.util
from collections.abc import Iterator


class MissingPackageError(ImportError):
    """An import of an optional package failed; the message says what to install."""


def require(package: str, extra: str, purpose: str) -> None:
    """Checks that an optional package is installed, before anything is computed.

    What the package needs itself may be missing all the same: its use stands in `needing`.

    Args:
        package: its name in an `import` statement.
        extra: the extra of keras_bit that installs it.
        purpose: what needs it, as the beginning of a sentence.

    Raises:
        MissingPackageError: it is not installed.
    """
    if importlib.util.find_spec(package) is None:
        raise MissingPackageError(not_installed(package, installation(extra), purpose))


def require_tensorflow(purpose: str) -> None:
    """Checks that TensorFlow is installed, which keras_bit does without where Keras has another backend.

    Args:
        purpose: what needs it, as the beginning of a sentence.

    Raises:
        MissingPackageError: it is not installed.
    """
    if not has_tensorflow():
        raise MissingPackageError(not_installed("tensorflow", "`pip install tensorflow`", purpose))


def has_tensorflow() -> bool:
    """Whether TensorFlow is installed."""
    return importlib.util.find_spec("tensorflow") is not None


@contextlib.contextmanager
def needing(extra: str, purpose: str) -> Iterator[None]:
    """A context in which the packages of an extra are used. If an import fails in it, the error says what to install.

    Args:
        extra: the extra of keras_bit that installs the packages.
        purpose: what needs them, as the beginning of a sentence.

    Raises:
        MissingPackageError: a module could not be imported, or what was raised has such an error as its cause.
    """
    try:
        yield
    except Exception as error:
        failed = failed_import(error)
        if failed is None or isinstance(failed, MissingPackageError):
            raise
        package = _package(failed)
        if package == "keras_bit":  # no user can mend that
            raise
        if package is not None and importlib.util.find_spec(package) is None:
            raise MissingPackageError(not_installed(package, installation(extra), purpose)) from error
        raise MissingPackageError(
            f"{purpose} needs a package that is installed but cannot be imported: {str(failed).rstrip('.')}. Versions "
            f"that go together come with `pip install --upgrade 'keras_bit[{extra}]'`."
        ) from error


def failed_import(error: BaseException) -> ImportError | None:
    """The failed import that `error` is, or that it was raised from; `None` if it is about something else.

    An import that only failed earlier is not one: libraries do without some packages.
    """
    found: BaseException | None = error
    while found is not None and not isinstance(found, ImportError):
        found = found.__cause__
    return found


def installation(extra: str) -> str:
    """The command that installs an extra of keras_bit, and the one in a checkout, for a message."""
    return f"`pip install 'keras_bit[{extra}]'`, or `pip install -e '.[{extra}]'` in a checkout"


def not_installed(package: str, commands: str, purpose: str) -> str:
    """The message about a package that is missing.

    Args:
        package: its name in an `import` statement.
        commands: what installs it, such as `installation` gives.
        purpose: what needs it, as the beginning of a sentence.
    """
    return f"{purpose} needs the package {package}, which is not installed. Install it with {commands}."


def _package(error: ImportError) -> str | None:
    """Whose import failed. Python's own error knows it, which may stand behind a library's in other words."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, ImportError) and found.name:
            return found.name.partition(".")[0]
        found = found.__cause__ or found.__context__
    return None
