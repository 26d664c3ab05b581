"""Uploads the files of `save_pretrained` and a model card to a repository on the Hub."""

import fnmatch
import tempfile
from pathlib import Path

import huggingface_hub  # this is fast, because the package imports its parts only when they are used
import keras

from keras_bit.checkpoints import card
from keras_bit.checkpoints.saving import (
    CARD_NAME,
    OTHER_WEIGHTS,
    SHARDS,
    check_layout,
    check_processor,
    content,
    other_layouts,
    warn_where_others_differ,
    write_files,
)
from keras_bit.files import writing
from keras_bit.hub import redaction
from keras_bit.images.options import PROCESSOR_CONFIG_NAME
from keras_bit.images.processor import BitImageProcessor


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
    """Uploads the files of `save_pretrained` in one commit to a repository on the Hub, which is created if needed.

    The model is written to a temporary directory first (`TMPDIR` needs room for it), so that no repository is created
    for a model that cannot be saved. The commit also removes files of an earlier checkpoint that would contradict this
    one: `pytorch_model.bin`, shards and their index, weights of another `layout`, and, with a `processor`,
    `processor_config.json`. The repository's history keeps them.

    Args:
        model: a model that keras_bit built, before or after training, that is not fused.
        repo_id: `owner/name`, or `name` for the token's owner.
        processor: how images become the model's input.
        layout: the form of the files: `"transformers"`, `"timm"` or `"npz"` (Google's), which `save_pretrained`
            describes.
        private: whether a new repository is private; `None` is the owner's default. An existing one does not change.
        revision: the branch, which is created if needed, or a pull request's `refs/pr/1`; `None` is `main`.
        token: the token of an account that may write to the repository; `None` takes the one that `hf auth login`
            stored.
        commit_message: first line of the commit.
        model_card: `README.md`, as a text or as a `ModelCard`, such as `keras_bit.model_card` writes with the data set,
            the accuracy and the license. `None` writes one without these if the repository has no card yet.

    Returns:
        The commit, as `huggingface_hub` describes it.

    Raises:
        TypeError: `repo_id` is not a string.
        ValueError: the model cannot be saved in this `layout` (`save_pretrained` lists the reasons), or `token` is
            malformed; nothing is sent.
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
    # `tempfile.TemporaryDirectory` would stay if the process is killed. The next upload removes this one.
    with redaction.kept_secret(token), writing.staged(Path(tempfile.gettempdir())) as staging:
        folder = staging / "checkpoint"
        folder.mkdir()
        write_files(folder, config, tensors, processor, weights_name)
        del tensors  # frees their memory, because an upload may take hours
        api = huggingface_hub.HfApi(token=token)
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        if revision not in (None, "main") and not revision.startswith("refs/pr/"):
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        present = api.list_repo_files(repo_id, revision=revision)
        if model_card is None and CARD_NAME not in present:
            model_card = card.write(model, repo_id, layout, processor, card.Facts())
        if model_card is not None:
            huggingface_hub.ModelCard(str(model_card)).save(folder / CARD_NAME)
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
