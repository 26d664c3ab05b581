"""Tests the command line as a whole: option names, help, completion, exit codes, and which imports it avoids."""

import gc
import os
import re
import shlex
import subprocess
import sys
import threading

import click
import pytest

from command_line import TINY, copy_of_tiny, run, tiny
from conftest import ROOT
from keras_bit import BiT, BitConfig, BitImageProcessor
from keras_bit.cli import collector, main, options, terminal
from keras_bit.hub.finding import HubOptions

COMMANDS = tuple(main.COMMANDS)
HEAVY = ("numpy", "keras", "tensorflow", "PIL", "rich", "huggingface_hub")
# The arguments that a command requires, after its name.
REQUIRED = {
    "classify": ["cat.jpg"],
    "explain": ["cat.jpg", "--out", "heat.png"],
    "info": [],
    "plot": ["data", "--out", "sheet.png"],
    "finetune": ["data", "--out", "run"],
    "evaluate": ["data"],
    "probe": ["data"],
    "audit": ["data", "--out", "audited"],
    "embed": ["data", "--out", "features"],
    "export": ["--out", "served"],
    "benchmark": [],
}


def parsed(line):
    """Parses a command line without running it, and returns click's context with its values."""
    name, *arguments = shlex.split(line, comments=True)[1:]
    return command(name).make_context(name, arguments)


def command(name):
    return main.commands.get_command(click.Context(main.commands), name)


def commands_in(text):
    """Yields the lines of `keras-bit` in a text, also after a pipe or variables, without the words for the shell."""
    for line in text.replace("\\\n", " ").splitlines():
        for part in re.split(r"[|;]", line):
            if found := re.search(rf"(?:^|\s|`)(keras-bit (?:{'|'.join(COMMANDS)})\b[^`>]*)", part):
                yield re.sub(r"\s2$", "", found[1].strip())


# One grammar


@pytest.mark.parametrize("name", COMMANDS)
def test_the_model_is_the_option_weights_in_every_command(name):
    found = {parameter.name: parameter for parameter in command(name).params}
    assert found["weights"].opts == ["--weights"]
    assert found["weights"].default == "google/bit-50"
    assert {"revision", "cache_dir", "token", "local_files_only"} <= found.keys()
    assert not any("source" in parameter for parameter in found)


def test_an_option_of_several_commands_has_one_type():
    types = {}
    for name in COMMANDS:
        for parameter in command(name).params:
            if isinstance(parameter, click.Option):
                types.setdefault(parameter.opts[0], set()).add(type(parameter.type))
    assert {option for option, found in types.items() if len(found) > 1} == {"--out"}  # a PNG file, or any path


@pytest.mark.parametrize("name", COMMANDS)
def test_the_options_of_a_hub_id_reach_the_command_as_one(name, monkeypatch, capsys):
    given = {}
    monkeypatch.setattr(command(name), "callback", options.hub(lambda *arguments, **values: given.update(values)))
    hub = ["--revision", "v1", "--cache-dir", "cache", "--token", "hf_x", "--local-files-only"]
    assert run(capsys, name, *REQUIRED[name], *hub)[0] == 0
    assert given["hub"] == HubOptions("v1", "cache", "hf_x", local_files_only=True)


@pytest.mark.parametrize(
    ("text", "any_size", "expected"),
    [
        ("224", False, (224, 224)),
        ("224x256", False, (224, 256)),
        ("any", True, (None, None)),
        ("any", False, None),
        ("0x5", True, None),
        ("64x", True, None),
        ("x64", True, None),
        ("1x2x3", True, None),
        ("-5", True, None),
        ("big", True, None),
    ],
)
def test_an_image_size_is_a_number_or_height_x_width(text, any_size, expected):
    size = options.ImageSize(any_size)
    if expected is not None:
        assert size.convert(text, None, None) == expected
        return
    with pytest.raises(click.BadParameter) as caught:
        size.convert(text, None, None)
    assert repr(text) in str(caught.value)
    assert "224x256" in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "right", "wrong"),
    [
        (options.POSITIVE, ["1", "512"], ["0", "-1", "1.5", "x"]),
        (options.ABOVE_ZERO, ["0.003", "1e30"], ["0", "-1", "nan", "inf", "x"]),
        (options.SHARE, ["0", "0.2"], ["1", "-0.1", "nan", "x"]),
        (options.PngFile(), ["a.png", "b/a.PNG"], ["a.jpg", "png", ".png"]),
    ],
)
def test_values_have_the_types_of_their_options(kind, right, wrong):
    for text in right:
        kind.convert(text, None, None)
    for text in wrong:
        with pytest.raises(click.BadParameter):
            kind.convert(text, None, None)


def test_names_stand_between_commas_or_in_a_file(tmp_path):
    (tmp_path / "names.txt").write_text("cat\ndog, the\n\n")
    assert options.Names().convert("cat, dog,", None, None) == ["cat", "dog"]
    assert options.Names().convert(str(tmp_path / "names.txt"), None, None) == ["cat", "dog, the"]


def test_half_precision_is_float16_unless_another_is_named():
    line = "keras-bit finetune data --out run"
    assert parsed(line).params["mixed_precision"] is None
    assert parsed(f"{line} --mixed-precision --rematerialize").params["mixed_precision"] == "float16"
    assert parsed(f"{line} --mixed-precision bfloat16").params["mixed_precision"] == "bfloat16"


# Help


def test_the_help_lists_the_commands_and_says_what_they_have_in_common(capsys):
    code, out, err = run(capsys, "--help")
    assert (code, err) == (0, "")
    text = " ".join(out.split())
    assert all(re.search(rf"^  {name} ", out, re.MULTILINE) for name in COMMANDS)
    for fact in (
        "--weights SOURCE",
        "2 wrong usage",
        "130 interrupted",
        "143 terminated",
        "_KERAS_BIT_COMPLETE=bash_source",
        "zsh_source",
    ):
        assert fact in text


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_teaches(name, capsys):
    code, out, err = run(capsys, name, "--help")
    assert (code, err) == (0, "")
    assert out.startswith(f"Usage: keras-bit {name} ")
    assert "write" in out.lower()  # what
    assert "2 wrong usage" in " ".join(out.split())
    described = {parameter.opts[-1] for parameter in command(name).params if isinstance(parameter, click.Option)}
    assert all(option in out for option in described)
    examples = list(commands_in(out.split("Examples:")[1]))
    assert any(line.startswith(f"keras-bit {name}") for line in examples)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_reference_page_has_the_arguments_and_examples_of_a_command(name, capsys):
    mkdocs_click = pytest.importorskip("mkdocs_click._docs")
    page = "\n".join(mkdocs_click.make_command_docs("keras-bit", command(name)))
    described = [parameter for parameter in command(name).params if isinstance(parameter, click.Argument)]
    assert all(f"* `{one.metavar}`: {one.described}" in page for one in described)
    assert all(line in page for _, line in command(name).examples)
    assert "```sh" not in run(capsys, name, "--help")[1]  # these are for the page


@pytest.mark.parametrize("name", COMMANDS)
def test_every_example_is_a_command_line(name):
    for _, line in command(name).examples:
        (found,) = commands_in(line)
        parsed(found)


def test_every_command_line_of_the_pages_is_valid():
    text = "\n".join(page.read_text(encoding="utf-8") for page in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")))
    blocks = re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL)
    lines = list(commands_in("\n".join(blocks)))
    assert len(lines) > 20
    for line in lines:
        parsed(line)


def test_every_command_has_its_file():
    files = {path.stem for path in (ROOT / "keras_bit" / "cli").glob("*.py")}
    assert set(COMMANDS) == files - {
        "__init__",
        "main",
        "command",
        "evaluate_csv",
        "evaluate_summary",
        "found_rate",
        "recipe_options",
        "options",
        "terminal",
        "images",
        "collector",
        "imports",
        "kernels",
        "signals",
    }


# Exit codes


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], "Usage"),
        (["paint", "x.png"], "paint"),
        (["classify"], "IMAGES"),
        (["classify", "x.png", "--top", "0"], "--top"),
        (["classify", "x.png", "--json", "--csv"], "--csv"),
        (["explain", "x.png"], "--out"),
        (["explain", "x.png", "--out", "x.jpg"], "--out"),
        (["info", "google/bit-50"], "google/bit-50"),
        (["info", "--weight", "google/bit-50"], "--weight"),
        (["plot", "data"], "--out"),
        (["plot", "data", "--out", "x.jpg"], "--out"),
        (["plot", "data", "--out", "x.png", "--image-size", "0x5"], "--image-size"),
        (["plot", "data", "--out", "x.png", "--seed", "one"], "--seed"),
        (["finetune", "data"], "--out"),
        (["finetune", "data", "--out", "o", "--base-learning-rate", "0"], "--base-learning-rate"),
        (["finetune", "data", "--out", "o", "--validation-share", "1"], "--validation-share"),
        (["finetune", "data", "--out", "o", "--mixed-precision", "int8"], "--mixed-precision"),
        (["evaluate"], "DATA"),
        (["evaluate", "data", "--on-error", "ignore"], "--on-error"),
        (["evaluate", "data", "--batch-size", "0"], "--batch-size"),
        (["embed", "data"], "--out"),
        (["embed", "data", "--out", "o", "--engine", "spark"], "--engine"),
        (["export"], "--out"),
        (["export", "--out", "o", "--format", "coreml"], "coreml"),
        (["export", "--out", "o", "--quantize", "int4"], "--quantize"),
        (["benchmark", "run", "data", "--format", "huggingface"], "--format"),
    ],
)
def test_wrong_usage_is_exit_code_2_and_names_the_option(capsys, arguments, named):
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert named in err
    if arguments:  # without any, the help is printed
        assert err.startswith("keras-bit")
        assert err.endswith(" --help` describes the usage.\n")
        assert err.count("\n") == 1


def test_a_misspelled_command_gets_the_nearest_name(capsys):
    assert run(capsys, "finetun", "flowers") == (
        2,
        "",
        "keras-bit: No such command 'finetun'. Did you mean 'finetune'? `keras-bit --help` describes the usage.\n",
    )


@pytest.mark.parametrize(
    ("weights", "fact"), [("./nowhere", "nowhere"), ("not a hub id!", "not a hub id!"), ("", "empty")]
)
@pytest.mark.parametrize("name", ["info", "classify", "evaluate", "export", "benchmark"])
def test_a_missing_checkpoint_gives_one_line_and_exit_code_1(capsys, tmp_path, name, weights, fact):
    arguments = [str(tmp_path / "served") if part == "served" else part for part in REQUIRED[name]]
    code, out, err = run(capsys, name, *arguments, "--weights", weights)
    assert (code, out) == (1, "")
    *_, line = err.splitlines()
    assert line.startswith(f"keras-bit {name}: ")
    assert fact in line


class StrangeError(Exception):
    pass


@pytest.mark.parametrize(
    ("raised", "code", "line"),
    [
        (ValueError("two\nlines \x1b[31m"), 1, r"two\nlines \x1b[31m"),
        (KeyError("head"), 1, "KeyError: 'head' ("),
        (StrangeError("what"), 1, "StrangeError: what ("),
        (MemoryError(), 1, "MemoryError: "),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_every_error_of_a_command_gives_a_line_and_an_exit_code(capsys, monkeypatch, raised, code, line):
    def callback(**values):
        raise raised

    monkeypatch.setattr(command("info"), "callback", callback)
    found, out, err = run(capsys, "info")
    assert (found, out) == (code, "")
    (told,) = err.splitlines()
    assert told.startswith(f"keras-bit info: {line}")
    assert "Traceback" not in err


# What a process does that gets signals. It is not the process of the tests, where a signal's handler has crashed after
# other tests had loaded a dozen native libraries.
SIGNALED = """
import os, signal, sys, time
from keras_bit.cli import main
from keras_bit.cli.info import info

number = signal.{name}
for one in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(one, signal.SIG_DFL)  # `nohup` ignores one of them
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it for what runs in the background
{code}
"""
CLEANED = """
def callback(**values):
    try:
        os.kill(os.getpid(), number)
        signal.pause()
    finally:
        print("cleaned")

info.callback = callback
print(main.main(["info"]), signal.getsignal(number) == signal.SIG_DFL)
# A handler that was set before, as by `nohup`, is respected.
signal.signal(number, signal.SIG_IGN)
info.callback = lambda **values: os.kill(os.getpid(), number)
print(main.main(["info"]))
"""
# Python drops what is raised while an object is deleted, with a line on standard error.
DELETED = """
class Deleted:
    def __del__(self):
        os.kill(os.getpid(), number)
        for _ in range(1000):  # the signal is handled here
            pass

def callback(**values):
    Deleted()
    time.sleep(60)
    print("went on")

info.callback = callback
hook = sys.unraisablehook
print(main.main(["info"]), sys.unraisablehook is hook)
"""
EARLY = """
main.Commands.parse_args = lambda *arguments: os.kill(os.getpid(), number)
print(main.main(["info"]))
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows ends a process without asking it")
@pytest.mark.parametrize(
    ("name", "code", "out", "err"),
    [
        ("SIGTERM", CLEANED, "cleaned 143 True 0", "keras-bit info: terminated"),
        ("SIGHUP", CLEANED, "cleaned 129 True 0", "keras-bit info: the terminal was closed"),
        ("SIGTERM", DELETED, "143 True", "keras-bit info: terminated"),
        ("SIGINT", DELETED, "130 True", "keras-bit info: interrupted"),
        ("SIGTERM", EARLY, "143", ""),
    ],
    ids=[
        "SIGTERM",
        "SIGHUP",
        "SIGTERM, an object is deleted",
        "SIGINT, an object is deleted",
        "no command is found yet",
    ],
)
def test_a_signal_that_ends_a_process_is_like_ctrl_c(name, code, out, err):
    done = ask(program=("-c", SIGNALED.format(name=name, code=code)))
    assert (done.returncode, " ".join(done.stdout.split())) == (0, out), done.stderr
    assert done.stderr.strip() == err


def test_a_command_runs_in_a_thread_in_which_no_signal_can_be_handled(capsys, monkeypatch):
    monkeypatch.setattr(command("info"), "callback", lambda **values: None)
    found = []
    thread = threading.Thread(target=lambda: found.append(main.main(["info"])))
    thread.start()
    thread.join()
    assert found == [0]


def test_the_sentence_in_an_error_of_a_graph_is_found():
    import tensorflow as tf

    text = "/a [1] 'x'\\n\t\N{GREEK SMALL LETTER ALPHA}/日.jpg is empty. [2]"

    def fail(number):
        with tf.control_dependencies([tf.debugging.Assert(number > 0, [text])]):
            return tf.identity(number)

    with pytest.raises(tf.errors.InvalidArgumentError) as error:
        list(tf.data.Dataset.from_tensors(0).map(fail))
    assert terminal.sentence(error.value, main.commands) == text.replace("\t", " ")


# Quick answers, in fresh processes

ASKED = {
    "--help": (["--help"], {}),
    "--version": (["--version"], {}),
    "wrong usage": (["paint"], {}),
    **{f"{name} --help": ([name, "--help"], {}) for name in COMMANDS},
    "completion of a command": ([], {"COMP_WORDS": "keras-bit fine", "COMP_CWORD": "1"}),
    "completion of an option": ([], {"COMP_WORDS": "keras-bit evaluate data --on", "COMP_CWORD": "3"}),
    "completion of a value": ([], {"COMP_WORDS": "keras-bit finetune data --scaling ", "COMP_CWORD": "4"}),
}
PROBE = f"""
import sys
import threading
from keras_bit.cli.main import main
try:
    main(sys.argv[1:])
finally:
    print("imported:", *sorted({{*sys.modules}} & {{*{HEAVY}}}))
"""


def ask(*arguments, program=("-c", PROBE), **environment):
    return subprocess.run(
        [sys.executable, *program, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=120,
    )


@pytest.mark.parametrize("case", ASKED)
def test_frequent_requests_import_nothing_heavy(case):
    arguments, words = ASKED[case]
    done = ask(*arguments, **words, **({"_KERAS_BIT_COMPLETE": "zsh_complete"} if words else {}))
    answer, _, imported = done.stdout.partition("imported:")
    assert imported.split() == [], done.stderr
    expected = {
        "--version": "keras-bit ",
        "wrong usage": "",
        "completion of a command": "finetune",
        "completion of an option": "--on-error",
        "completion of a value": "linear",
    }
    assert expected.get(case, "Usage: keras-bit") in answer


KERNELS = """
import os, subprocess, sys
{before}
from keras_bit.cli.main import main
main(["--version"])
print(os.environ.get("TF_ENABLE_ONEDNN_OPTS"))
"""


@pytest.mark.parametrize(
    ("before", "given", "expected"),
    [
        ("", {}, "1"),
        ("", {"TF_ENABLE_ONEDNN_OPTS": "0"}, "0"),
        ("", {"TF_ENABLE_ONEDNN_OPTS": "1"}, "1"),
        # TensorFlow has read it by then; what this process starts is another program's affair.
        ("sys.modules['tensorflow'] = sys", {}, "None"),
    ],
)
def test_the_kernels_of_onednn_are_on_unless_the_user_says_otherwise(before, given, expected, monkeypatch):
    monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS", raising=False)
    done = ask(program=("-c", KERNELS.format(before=before)), **given)
    assert done.stdout.splitlines()[-1] == expected, done.stderr


@pytest.mark.parametrize(
    ("before", "during"),
    [((700, 10, 10), (50_000, 10, 10)), ((0, 10, 10), (0, 10, 10)), ((10**6, 5, 5), (10**6, 5, 5))],
)
def test_the_garbage_collector_runs_less_often_unless_the_user_chose_that(before, during):
    found = gc.get_threshold()
    gc.set_threshold(*before)
    try:
        with collector.seldom():
            assert gc.get_threshold() == during
        assert gc.get_threshold() == before
    finally:
        gc.set_threshold(*found)


def test_as_a_module_it_is_the_same_command():
    done = ask("info", "--nothing", program=("-m", "keras_bit.cli.main"))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("keras-bit info: No such option")


# info


def test_info_tells_what_the_files_hold(capsys):
    code, out, err = run(capsys, "info", "--weights", TINY)
    assert (code, err) == (0, "")
    size = (TINY / "model.safetensors").stat().st_size / 1e6
    parameters = f"{tiny().count_params():,} in 62 tensors"
    for words in (parameters, "64x64 px", "airplane", "10 (", "(2, 2, 2)", f"model.safetensors, {size:.1f} MB"):
        assert words in out


def test_info_reads_names_and_shapes_and_not_the_numbers(capsys, monkeypatch):
    import safetensors

    opened = safetensors.safe_open

    class Shapes:
        def __init__(self, *arguments, **options):
            self.handle = opened(*arguments, **options)

        def __getattr__(self, name):
            assert name != "get_tensor"
            return getattr(self.handle, name)

    monkeypatch.setattr(safetensors, "safe_open", Shapes)
    code, out, _ = run(capsys, "info", "--weights", TINY)
    assert code == 0
    assert "870,314 in 62 tensors" in out


def test_info_of_one_class_and_of_a_processor_without_a_crop(capsys, tmp_path):
    config = BitConfig(embedding_size=16, hidden_sizes=(32,), depths=(1,), num_groups=4, id2label={0: "age"})
    BiT(config).save(tmp_path / "one.keras")
    BitImageProcessor(size=96, do_center_crop=False).save_pretrained(tmp_path)
    code, out, _ = run(capsys, "info", "--weights", tmp_path / "one.keras")
    assert code == 0
    for words in ("1 (age)", "short edge 96 px", "one.keras", "preprocessor_config.json"):
        assert words in out


@pytest.mark.parametrize(
    ("processor", "size"),
    [
        (None, "not stated"),
        (BitImageProcessor(do_resize=False, do_center_crop=False), "the image's own"),
        (BitImageProcessor(size=(40, 50), do_center_crop=False), "40x50 px"),
    ],
    ids=["none", "open", "fixed"],
)
def test_info_says_what_size_the_processor_makes(capsys, tmp_path, processor, size):
    code, out, _ = run(capsys, "info", "--weights", copy_of_tiny(tmp_path / "copy", processor=processor))
    assert code == 0
    assert size in out
