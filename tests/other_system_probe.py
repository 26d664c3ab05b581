"""Runs the commands in a process from which everything is removed that Windows and macOS lack.

    python tests/other_system_probe.py DATA IMAGE FOLDER

TensorFlow, Keras and other foreign packages are imported before that: what they need from the system is not tested
here. Prints a line of JSON with the exit code of each command.
"""

import importlib
import json
import os
import signal
import sys
from pathlib import Path

import h5py  # noqa: F401
import huggingface_hub.repocard  # noqa: F401 (`huggingface_hub` alone loads its modules only when they are used)
import keras  # noqa: F401
import tensorflow  # noqa: F401

TINY = Path(__file__).resolve().parent / "checkpoints" / "bit-tiny-cifar10"
# Modules that only POSIX has, and functions of `os` and `signal` that Windows or macOS lacks.
MODULES = ("fcntl", "grp", "pwd", "resource", "termios", "posix_ipc", "tty", "pty", "syslog")
# `statvfs` stays: shutil needs it for free space on Linux, but not on Windows.
OF_OS = (
    *("chown", "fchmod", "fchown", "fork", "forkpty", "getegid", "geteuid", "getgid", "getgroups", "getpgid"),
    *("getuid", "killpg", "lchown", "mkfifo", "nice", "posix_fadvise", "posix_fallocate", "sched_getaffinity"),
    *("sched_setaffinity", "sendfile", "setpgid", "setpriority", "setsid", "setuid", "sync", "umask", "uname"),
    *("wait3", "wait4"),
)
OF_SIGNAL = ("SIGALRM", "SIGHUP", "SIGKILL", "SIGPIPE", "SIGQUIT", "SIGUSR1", "SIGUSR2", "alarm", "pthread_sigmask")


def main(data: str, image: str, folder: str) -> None:
    for name in MODULES:
        sys.modules[name] = None  # an import of it fails
    for module, names in ((os, OF_OS), (signal, OF_SIGNAL)):
        for name in names:
            if hasattr(module, name):
                delattr(module, name)
    from keras_bit.cli.main import main as command

    # Every module of ours can be imported without them, too.
    package = Path(importlib.import_module("keras_bit").__file__).parent
    for file in sorted(package.rglob("*.py")):
        if file.name != "__init__.py":
            importlib.import_module(".".join(("keras_bit", *file.relative_to(package).with_suffix("").parts)))
    model, run, served, published = (
        str(one) for one in (TINY, *(Path(folder, name) for name in ("run", "served", "hf")))
    )
    train = ["finetune", data, "--weights", model, "--out", run, "--steps", "2", "--batch-size", "4"]
    codes = {
        "classify": command(["classify", image, "--weights", model]),
        "finetune": command(train),
        "finetune again": command(train),
        "export": command(["export", "--weights", run, "--out", served]),
        "huggingface": command(["export", "--weights", run, "--out", published, "--format", "huggingface"]),
    }
    print(json.dumps(codes))


if __name__ == "__main__":
    main(*sys.argv[1:])
