"""From a model to a repository on the Hub: what `save_pretrained` writes, and a model card."""

import fnmatch
import tempfile
from pathlib import Path

import huggingface_hub  # a lazy module: its parts are imported when they are used
import keras

from keras_bit.checkpoints.saving import (
    OTHER_WEIGHTS,
    SHARDS,
    check_layout,
    check_processor,
    content,
    other_layouts,
    warn_where_others_differ,
    what_others_do_otherwise,
    write_files,
)
from keras_bit.files import writing
from keras_bit.hub import redaction
from keras_bit.images.options import PROCESSOR_CONFIG_NAME
from keras_bit.images.processor import BitImageProcessor
from keras_bit.network.config import BitConfig


def push_to_hub(
    model: keras.Model,
    repo_id: str,
    *,
    processor: BitImageProcessor | None = None,
    layout: str = "transformers",
    private: bool | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
    commit_message: str = "Upload BiT",
    model_card: "huggingface_hub.ModelCard | str | None" = None,
) -> "huggingface_hub.CommitInfo":  # in quotes: these two take 0.2 s to import, which only an upload needs
    """Uploads what `save_pretrained` writes, in one commit, to a repository on the Hub that is made if need be.

    The model is written to a temporary directory first (`TMPDIR` needs room for it), so that one that cannot be saved
    makes no repository. The commit also removes the weights of an earlier checkpoint that would contradict this one:
    `pytorch_model.bin`, shards and their index, weights of another `layout`, and `processor_config.json` where a
    `processor` is given. The repository's history keeps them.

    Args:
        model: as for `save_pretrained`.
        repo_id: `owner/name`, or `name` for the token's owner.
        processor: how images become the model's input.
        layout: `"transformers"`, `"timm"` or `"npz"`, as for `save_pretrained`.
        private: whether a new repository is private; `None` is the owner's default. An existing one stays as it is.
        revision: the branch, which is made if need be, or a pull request's `refs/pr/1`; `None` is `main`.
        token: of an account that may write; `None` is the one that `hf auth login` stored.
        commit_message: first line of the commit.
        model_card: `README.md`, as a text or as a `ModelCard`. `None` writes one that says how to load the model, but
            only where the repository has none. It names no license: that is for the model's owner to choose.

    Returns:
        The commit, as `huggingface_hub` describes it.

    Raises:
        TypeError: `repo_id` is not a string.
        ValueError: as for `save_pretrained`, or `token` holds what no token can; nothing is sent.
        huggingface_hub.errors.HfHubHTTPError: the Hub refuses: no token, no permission, no such pull request.

    Checked against huggingface_hub 2.4 `HfApi.create_repo` and `HfApi.upload_folder`.
    """
    if not isinstance(repo_id, str):
        raise TypeError(f"`repo_id` must be 'owner/name' or 'name', got {type(repo_id).__name__}: {repo_id!r}.")
    weights_name = check_layout(layout)
    check_processor(processor)
    token = redaction.plain_token(token)
    config, tensors = content(model, layout, processor)
    warn_where_others_differ(model.config, layout, processor)
    # Not a `tempfile.TemporaryDirectory`: what a killed process leaves in this one, the next upload removes.
    with redaction.kept_secret(token), writing.staged(Path(tempfile.gettempdir())) as staging:
        folder = staging / "checkpoint"
        folder.mkdir()
        write_files(folder, config, tensors, processor, weights_name)
        del tensors  # an upload may take hours
        api = huggingface_hub.HfApi(token=token)
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        if revision not in (None, "main") and not revision.startswith("refs/pr/"):
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        present = api.list_repo_files(repo_id, revision=revision)
        if model_card is None and "README.md" not in present:
            head = any(layer.name == "predictions" for layer in model.layers)
            model_card = _model_card(repo_id, model.config, layout, head, processor is not None)
        if model_card is not None:
            huggingface_hub.ModelCard(str(model_card)).save(folder / "README.md")
        contradictions = (
            *OTHER_WEIGHTS,
            *SHARDS,
            *other_layouts(weights_name),
            *((PROCESSOR_CONFIG_NAME,) if processor else ()),
        )
        return api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            revision=revision,
            commit_message=commit_message,
            delete_patterns=[name for name in present if any(fnmatch.fnmatch(name, one) for one in contradictions)]
            or None,
        )


def _model_card(repo_id: str, config: BitConfig, layout: str, head: bool, has_processor: bool) -> str:
    """The text of a card: what the model is, and how it is loaded by everybody who reads these files."""
    difference = what_others_do_otherwise(config, layout)
    reader = layout if difference is None and layout != "npz" else None  # a library that loads it by its id
    data = huggingface_hub.ModelCardData(
        # The Hub shows that library's code for it and counts its downloads.
        library_name=reader or "keras_bit",
        pipeline_tag="image-classification" if head else "image-feature-extraction",
        tags=["bit", "keras", *(["image-classification"] if head else [])],
    )
    about = f"a head of {config.num_labels} labels" if head else "no head: it gives feature maps"
    keras_lines = ["import keras_bit", ""]
    keras_lines.append(f'model = keras_bit.from_pretrained("{repo_id}"{"" if head else ", include_top=False"})')
    if has_processor:
        keras_lines += [
            f'processor = keras_bit.BitImageProcessor.from_pretrained("{repo_id}")',
            'outputs = model.predict(processor("image.jpg"))',
        ]
    parts = [
        f"---\n{data.to_yaml()}\n---\n",
        f"# {repo_id.rpartition('/')[2]}\n",
        f"BiT (Big Transfer) with {len(config.depths)} stages of {', '.join(map(str, config.depths))} blocks and "
        f"{about}.\n",
        _code("In Keras, with keras_bit:", keras_lines),
    ]
    if reader == "transformers":
        parts.append(_code("In PyTorch, with transformers:", _in_transformers(repo_id, head, has_processor)))
    elif reader == "timm":
        parts.append(
            _code(
                "In PyTorch, with timm:",
                ["import timm", "", f'model = timm.create_model("hf-hub:{repo_id}", pretrained=True)'],
            )
        )
    elif difference is None:
        parts.append("`model.npz` has the names of Google's files, which big_transfer, big_vision and timm read.\n")
    else:
        parts.append(f"Only keras_bit reads it: {difference}.\n")
    return "\n".join(parts)


def _in_transformers(repo_id: str, head: bool, has_processor: bool) -> list[str]:
    name = "BitForImageClassification" if head else "BitModel"
    lines = [f"from transformers import {'AutoImageProcessor, ' * has_processor}{name}", ""]
    lines.append(f'model = {name}.from_pretrained("{repo_id}")')
    if has_processor:
        lines.append(f'processor = AutoImageProcessor.from_pretrained("{repo_id}")')
    return lines


def _code(introduction: str, lines: list[str]) -> str:
    return "\n".join((introduction, "", "```python", *lines, "```", ""))
