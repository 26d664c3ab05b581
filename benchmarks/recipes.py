"""Compares each option of `Recipe` with the BiT-HyperRule without options ("the rule alone"), on small training sets.

The table shows the accuracy of each option on each set and its spread, and the notes name the options that never win.

The sets are made from CIFAR-10's training images: 1, 5, 10 and 100 of each of five classes, drawn anew for each seed. A
further set is uneven, with 100, 50, 20, 10 and 5 images of its classes. It is for the options that are about such sets
and change nothing on the others. All options are tested on the same test images, as many of each class.

The network must not know the classes that it is to learn, so bit-tiny-cifar10 cannot be used. A smaller network, the
start, is trained here on the five classes that come first by name (airplane to deer). The runs fine-tune it on the
other five (dog to truck), with a head of zeros. The directory of `--work` keeps the start.

The schedule is shortened by `HyperRule`'s own arguments `steps` and `batch_size`, for all options alike. A short one
needs a higher rate, so the rates of the rule and of AdamW are chosen first. Each is the best of a few on 10 images of
each class. Another seed draws these images, and they are tested on test images that are not used later. Apart from the
rate, an option has the value that its name shows.

An option wins on a set if it is better than the rule alone by more than two standard errors. The difference is taken
seed by seed, because each seed has the same images for all options. With three seeds some win or lose by chance.

`early_stopping` and `keep_best` need a validation. They hold back a fifth of the training images, so one image of each
class is too few for them. `temperature` is for a teacher, and is not measured here.

Every run is noted in `runs.json` when it ends. So the same command goes on after an interruption, and also after more
`--seeds` are asked for.
"""

import argparse
import dataclasses
import os
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import arguments, recipe_runs
from benchmarks.recipe_runs import Run, Setting
from benchmarks.report import Grid, Report, Row

EVEN: dict[str, tuple[int, ...]] = {f"{count} per class": (count,) * 5 for count in (1, 5, 10, 100)}
UNEVEN = {"uneven": (100, 50, 20, 10, 5)}
SETS = {**EVEN, **UNEVEN}
PLAIN = "the rule alone"
RATES = (0.003, 0.01, 0.03, 0.1)
ADAMW_RATES = (3e-4, 1e-3, 3e-3)
CHOSEN_ON, CHOOSING_SEED = "10 per class", 1000
ERRORS = 2  # standard errors by which an option wins or loses
PACKAGES = ("keras_bit", "tensorflow", "keras", "numpy")


@dataclasses.dataclass(frozen=True)
class Option:
    """A row of the table.

    Args:
        choices: arguments of `Recipe`; for AdamW without the rate, which is chosen first.
        sets: names of the sets that the option is measured on.
        validates: whether the option needs a validation.
    """

    choices: Mapping[str, Any]
    sets: tuple[str, ...] = tuple(EVEN)
    validates: bool = False

    @property
    def name(self) -> str:
        return ", ".join(f"{name}={value!r}" for name, value in self.choices.items()) or PLAIN


OPTIONS = (
    Option({}, tuple(SETS)),
    Option({"optimizer": "adamw"}),
    Option({"optimizer": "adamw", "layer_decay": 0.75}),
    Option({"layer_decay": 0.75}),
    Option({"label_smoothing": 0.1}),
    Option({"ema": 0.9}),
    Option({"augment": "rand_augment"}),
    Option({"augment": "cut_mix"}),
    Option({"augment": "random_erasing"}),
    Option({"lora": 8}),
    Option({"freeze_up_to": "stage2"}),
    Option({"freeze_up_to": "all"}),
    Option({"keep_best": "val_accuracy"}, tuple(EVEN)[1:], validates=True),
    Option({"early_stopping": 5}, tuple(EVEN)[1:], validates=True),
    Option({"class_weight": "balanced"}, tuple(UNEVEN)),
    Option({"sampling": "balanced"}, tuple(UNEVEN)),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    default = Setting()
    arguments.add_data(parser)
    parser.add_argument(
        "--work",
        type=Path,
        required=True,
        metavar="DIR",
        help="directory that keeps the start and the results of the runs",
    )
    parser.add_argument(
        "--seeds", type=int, default=3, metavar="N", help="number of seeds, at least 2 (default: %(default)s)"
    )
    for field, described in (
        ("steps", "steps of a run"),
        ("batch_size", "images in a step"),
        ("start_steps", "steps of the training of the start"),
        ("test_images", "test images of each class"),
    ):
        parser.add_argument(
            f"--{field.replace('_', '-')}",
            type=int,
            default=getattr(default, field),
            metavar="N",
            help=f"{described} (default: %(default)s)",
        )
    parser.add_argument(
        "--processes", type=int, metavar="N", help="runs at a time, each on one thread (default: one per core)"
    )


def run(options: argparse.Namespace) -> Report:
    setting = Setting(options.steps, options.batch_size, options.start_steps, options.test_images)
    return measure(options.data, options.work, setting, seeds=options.seeds, processes=options.processes)


def measure(
    data: Path,
    work: Path,
    setting: Setting,
    *,
    seeds: int = 3,
    processes: int | None = None,
    options: Sequence[Option] = OPTIONS,
    sets: Mapping[str, tuple[int, ...]] = SETS,
) -> Report:
    """Trains what has not been trained yet, and compares the accuracies.

    Args:
        data: folder with train/<class>/ and test/<class>/.
        work: folder that keeps the start and the results of the runs.
        setting: the setting of all runs.
        seeds: how many runs each option has on each set.
        processes: how many runs go on at a time; `None` is one per core.
        options: the options to compare; the first one is the rule alone.
        sets: name of a set to the number of images of each class.
    """
    if seeds < 2:
        raise ValueError(f"`seeds` must be at least 2, got {seeds}: one run has no spread.")
    work.mkdir(parents=True, exist_ok=True)
    processes = processes or os.cpu_count() or 1
    known = recipe_runs.start(data, work / "start", setting)
    counts = sets.get(CHOSEN_ON, next(iter(sets.values())))
    tried = rate_runs(counts)
    shares = recipe_runs.done(tried, data, work, setting, processes)
    rate = max(RATES, key=lambda rate: shares[f"rate {rate}"])
    adamw_rate = max(ADAMW_RATES, key=lambda rate: shares[f"rate {rate} of adamw"])
    runs = option_runs(options, sets, seeds, rate, adamw_rate)
    shares |= recipe_runs.done(list(runs.values()), data, work, setting, processes)
    accuracies: dict[tuple[str, str], list[float]] = {}
    for (option, one, _), single in runs.items():
        accuracies.setdefault((option, one), []).append(shares[single.name])
    classes = recipe_runs.halves(data)
    notes = [
        f"Mean and standard deviation of the accuracy in percent, {seeds} seeds, on {setting.test_images} test images "
        f"of each of {', '.join(classes[1])}. `+` is better and `-` is worse than the rule alone by more than {ERRORS} "
        "standard errors of the difference.",
        f"All runs have {setting.steps} steps of {setting.batch_size} images. The chosen rates are {rate} for the rule "
        f"and {adamw_rate} for AdamW. The start answers {100 * known:.1f} % of test images of {', '.join(classes[0])} "
        "correctly.",
        verdict(accuracies, options),
    ]
    rows = [
        Row(f"{one}: {option}", "%", 100 * statistics.mean(found), 100 * statistics.mean(accuracies[PLAIN, one]))
        for (option, one), found in accuracies.items()
        if option != PLAIN
    ]
    return Report(
        "Options of Recipe",
        PLAIN,
        rows,
        {f"{one}: {option}": [{"accuracies": found}] for (option, one), found in accuracies.items()},
        PACKAGES,
        notes,
        Grid(("option", *sets), lines(accuracies, options, sets)),
    )


def rate_runs(counts: tuple[int, ...]) -> list[Run]:
    """Returns the runs that choose the rates."""
    of_rule = [(f"rate {rate}", rate, {}) for rate in RATES]
    of_adamw = [
        (f"rate {rate} of adamw", RATES[0], {"optimizer": "adamw", "learning_rate": rate}) for rate in ADAMW_RATES
    ]
    return [
        Run(name, counts, CHOOSING_SEED, rate, choices, part=recipe_runs.OTHERS)
        for name, rate, choices in (*of_rule, *of_adamw)
    ]


def option_runs(
    options: Sequence[Option], sets: Mapping[str, tuple[int, ...]], seeds: int, rate: float, adamw_rate: float
) -> dict[tuple[str, str, int], Run]:
    """Returns the runs by the names of option and set, and the seed.

    They are in the order of the seeds, so that an unfinished benchmark already compares options. An uneven set has
    other large classes with each seed.
    """
    found = {}
    for seed in range(seeds):
        for one, counts in sets.items():
            turned = (*counts[-seed % len(counts) :], *counts[: -seed % len(counts)])
            for option in options:
                if one not in option.sets:
                    continue
                choices = dict(option.choices)
                if choices.get("optimizer") == "adamw":
                    choices["learning_rate"] = adamw_rate
                name = f"{one}, seed {seed}: {option.name}"
                found[option.name, one, seed] = Run(name, turned, seed, rate, choices, option.validates)
    return found


Accuracies = Mapping[tuple[str, str], Sequence[float]]


def lines(accuracies: Accuracies, options: Sequence[Option], sets: Mapping[str, Any]) -> list[list[str]]:
    """Returns a line for each option: mean and spread on each set, with a mark if the option wins or loses."""

    def cell(option: str, one: str) -> str:
        found = accuracies.get((option, one))
        if found is None:
            return ""
        mark = {1: " +", -1: " -", 0: ""}[0 if option == PLAIN else outcome(found, accuracies[PLAIN, one])]
        return f"{100 * statistics.mean(found):.1f} ± {100 * statistics.stdev(found):.1f}{mark}"

    return [[option.name, *(cell(option.name, one) for one in sets)] for option in options]


def outcome(found: Sequence[float], plain: Sequence[float]) -> int:
    """Returns 1 if accuracies are better than those of the rule alone for the same seeds, -1 if worse, else 0."""
    differences = [ours - theirs for ours, theirs in zip(found, plain, strict=True)]
    error = statistics.stdev(differences) / len(differences) ** 0.5
    mean = statistics.mean(differences)
    return 0 if abs(mean) <= ERRORS * error else (1 if mean > 0 else -1)


def verdict(accuracies: Accuracies, options: Sequence[Option]) -> str:
    """Returns a sentence that names the options that win on no set."""
    never = [
        option.name
        for option in options
        if option.name != PLAIN
        and not any(outcome(accuracies[option.name, one], accuracies[PLAIN, one]) > 0 for one in option.sets
                    if (option.name, one) in accuracies)
    ]  # fmt: skip
    return f"Options that win on no set: {'; '.join(never)}." if never else "Every option wins on some set."
