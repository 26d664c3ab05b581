"""OpenVINO's intermediate representation, a pair of `.xml` and `.bin`, by Keras' exporter; run in OpenVINO."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from keras_bit.exporters import keras_exporters
from keras_bit.exporters.formats import Format
from keras_bit.exporters.job import OUTPUT, Job, Run
from keras_bit.exporters.output_names import output_names


class OpenVINO(Format):
    """Two files, whose model's input is "pixel_values"; for its outputs' names see `output_names`.

    The weights are float32. The runtime information has `model_info/labels` as OpenVINO's Model API reads it: separated
    by spaces, with underscores for the spaces in a name and for an empty one.
    """

    name = "openvino"
    packages = ("openvino",)
    beside = (".bin",)

    def target(self, path: Path) -> Path:
        if path.suffix != ".xml":
            raise ValueError(f"`path` must end in .xml for the format 'openvino', got {str(path)!r}.")
        return path

    def write(self, job: Job, path: Path) -> None:
        import openvino

        raw = path.with_stem(f"{path.stem}-as-converted")
        with _reason_of_the_system(path.parent, 4 * job.model.count_params()):
            keras_exporters.export(job, raw, "openvino", self.shape(job))
        model = openvino.Core().read_model(raw)
        names = output_names(job.model)
        for result in model.get_results():
            tensor = result.output(0).get_tensor()
            name = next((name for name in names if name in tensor.names), None)
            if name is None:  # the converter takes some intermediate values for outputs
                model.remove_result(result)
            else:
                tensor.set_names({name})
                result.set_friendly_name(name)
        if job.labels is not None:
            labels = ("_".join(label.split()) or "_" for label in job.labels)
            model.set_rt_info(" ".join(labels), ["model_info", "labels"])
        # Unlike `save_model`, whose default is float16, this keeps the weights as they are.
        with _reason_of_the_system(path.parent, 4 * job.model.count_params()):
            openvino.serialize(model, path)
        del model  # it maps the weights' file
        for file in (raw, raw.with_suffix(".bin")):
            file.unlink()

    def load(self, job: Job, path: Path) -> Run:
        import openvino

        # On processors with bfloat16 instructions OpenVINO would use them: that is the user's choice, not the file's.
        compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        single = not isinstance(job.model.output, dict)

        def run(batch: np.ndarray) -> dict[str, np.ndarray]:
            results = compiled({keras_exporters.INPUT: batch})
            return {OUTPUT if single else output.any_name: np.array(values) for output, values in results.items()}

        return run


@contextlib.contextmanager
def _reason_of_the_system(folder: Path, size: int) -> Iterator[None]:
    """OpenVINO does not say why it cannot write, and removes its half files. Writing as many bytes tells the reason."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        if "iostream error" in str(error):
            with tempfile.TemporaryFile(dir=folder) as stream:
                for _ in range(1 + size // 2**20):
                    stream.write(bytes(2**20))
        raise
