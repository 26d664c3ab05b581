"""Arguments that `BitConfig` takes besides its own: those that transformers documents for every configuration."""

import difflib
import functools
import inspect
import json
import reprlib
from collections.abc import Callable, Mapping
from typing import Any

# transformers 4.37, the docstring of `PretrainedConfig` in configuration_utils.py, and what 5.23 added to it, without
# `BitConfig`'s own. None of them changes what a BiT computes.
DOCUMENTED = (
    # General.
    "name_or_path",
    "output_attentions",
    "is_encoder_decoder",
    "is_decoder",
    "cross_attention_hidden_size",
    "add_cross_attention",
    "tie_encoder_decoder",
    "prune_heads",
    "chunk_size_feed_forward",
    # Sequence generation.
    "max_length",
    "min_length",
    "do_sample",
    "early_stopping",
    "num_beams",
    "num_beam_groups",
    "diversity_penalty",
    "temperature",
    "top_k",
    "top_p",
    "typical_p",
    "repetition_penalty",
    "length_penalty",
    "no_repeat_ngram_size",
    "encoder_no_repeat_ngram_size",
    "bad_words_ids",
    "num_return_sequences",
    "output_scores",
    "return_dict_in_generate",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "remove_invalid_values",
    # Fine-tuning tasks.
    "architectures",
    "finetuning_task",
    "task_specific_params",
    # The tokenizer.
    "tokenizer_class",
    "prefix",
    "bos_token_id",
    "pad_token_id",
    "eos_token_id",
    "decoder_start_token_id",
    "sep_token_id",
    # PyTorch and TensorFlow.
    "torchscript",
    "tie_word_embeddings",
    "torch_dtype",
    "use_bfloat16",
    "tf_legacy_loss",
    # New in version 5.
    "dtype",
    "per_layer_config",
    "tie_last_hidden_states",
)
FIELD = "pretrained_arguments"


def accepting(init: Callable[..., None]) -> Callable[..., None]:
    """Makes the constructor `init` of a configuration take the names in `DOCUMENTED` too.

    They go into its field `pretrained_arguments`. Any other name is a `TypeError` that gives the closest ones.
    """
    own = [name for name in inspect.signature(init).parameters if name not in ("self", FIELD)]

    @functools.wraps(init)
    def constructor(self: Any, *args: Any, **kwargs: Any) -> None:
        others = {name: kwargs.pop(name) for name in list(kwargs) if name not in (*own, FIELD)}
        unknown = [name for name in others if name not in DOCUMENTED]
        if unknown:
            raise TypeError(_unknown(unknown[0], own))
        if others:
            kwargs[FIELD] = {**(kwargs.get(FIELD) or {}), **others}
        init(self, *args, **kwargs)

    return constructor


def kept(values: Mapping[str, Any]) -> dict[str, Any]:
    """Picks these arguments from a configuration's dictionary, without `architectures`, which every dictionary has."""
    return {name: values[name] for name in DOCUMENTED if name in values and name != "architectures"}


def check(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the arguments as a dictionary.

    Raises:
        ValueError: one cannot be written to a `config.json`.
    """
    for name, value in arguments.items():
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(
                f"`{name}` is stored in config.json, so it must be a value that JSON can hold, got "
                f"{reprlib.repr(value)}."
            ) from error
    return dict(arguments)


def _unknown(name: str, own: list[str]) -> str:
    close = difflib.get_close_matches(name, [*own, *DOCUMENTED], 3)
    advice = f"Did you mean {' or '.join(f'`{one}`' for one in close)}?" if close else f"Its own are {', '.join(own)}."
    return f"`BitConfig` has no argument `{name}`. {advice}"
