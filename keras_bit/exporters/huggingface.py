"""transformers' layout, written by `save_pretrained`, with the weights before standardization."""

from pathlib import Path

import keras
import numpy as np

from keras_bit.applications import from_pretrained
from keras_bit.checkpoints import saving
from keras_bit.exporters.formats import Format
from keras_bit.exporters.job import OUTPUT, Job, Run
from keras_bit.exporters.output_names import HEAD, has_head
from keras_bit.images import options
from keras_bit.network import config_files
from keras_bit.network.model import BiTModel


class HuggingFace(Format):
    """A directory with `config.json`, `model.safetensors` and, with a processor, `preprocessor_config.json`."""

    name = "huggingface"
    kind = "directory"

    def needs_tensorflow(self, model: keras.Model) -> bool:
        return False

    def entries(self, place: Path, processor: bool) -> frozenset[str]:
        """Returns the files to replace. An older processor stays if there is no new one, because the model needs it."""
        return frozenset({config_files.CONFIG_NAME, saving.WEIGHTS_NAME, *([options.CONFIG_NAME] if processor else [])})

    def check(self, job: Job) -> None:
        if not isinstance(job.model, BiTModel) or isinstance(job.model.output, dict):
            raise ValueError(
                "`model` must be a model that keras_bit built, with a head or a last feature map, for the format "
                f"'huggingface', got {type(job.model).__name__}. Save others with `model.save`."
            )
        if job.batch_size is not None or job.image_size is not None:
            raise ValueError(
                "`batch_size` and `image_size` must be None for the format 'huggingface', which has no fixed sizes."
            )

    def write(self, job: Job, path: Path) -> None:
        job.progress("writing config.json and model.safetensors")
        saving.save_pretrained(job.model, path, processor=job.processor)

    def load(self, job: Job, path: Path) -> Run:
        head = has_head(job.model)
        pooling = next((name for name in ("avg", "max") if job.model.layers[-1].name == f"{name}_pool"), None)
        activation = job.model.get_layer(HEAD).activation if head else None
        model = from_pretrained(path, include_top=head, pooling=pooling, classifier_activation=activation)

        def run(batch: np.ndarray) -> dict[str, np.ndarray]:
            return {OUTPUT: keras.ops.convert_to_numpy(model(batch, training=False))}

        return run
