"""Tests registration.py in fresh processes: Keras finds our classes in its files, whatever is imported first."""

import json
import os
import subprocess
import sys
import zipfile

import pytest

from conftest import ROOT

# What Keras does with a model of this package, in a program that names none of ours; `folder` was written by an older
# commit.
PROGRAM = """
{imports}
import json, os, sys, tempfile
import keras
import numpy as np

folder = {folder!r}
outputs = np.load(os.path.join(folder, "outputs.npz"))


def difference(model):
    return float(np.abs(np.asarray(model(outputs["pixel_values"])) - outputs["scores"]).max())


model = keras.saving.load_model(os.path.join(folder, "model.keras"))
clone = keras.models.clone_model(model)
clone.load_weights(os.path.join(folder, "model.keras"))
described = keras.models.model_from_json(model.to_json())
with tempfile.TemporaryDirectory() as scratch:
    model.save_weights(os.path.join(scratch, "model.weights.h5"))
    described.load_weights(os.path.join(scratch, "model.weights.h5"))
print(json.dumps({{
    "differences": [difference(one) for one in (clone, described)],
    "optimizer": [type(model.optimizer).__name__, type(model.optimizer._learning_rate).__name__],
    "steps": int(model.optimizer.iterations),
    "boundaries": list(model.optimizer._learning_rate.boundaries),
    "touched": sorted({{"keras_bit.applications", "keras_bit.training"}} & set(sys.modules)),
}}))
"""
FIRST_IMPORTS = {
    "keras_bit": "import keras_bit",
    "keras": "import keras\nimport keras_bit",
    "a module that registers layers": "import keras_bit.network.layers",
    "the module that registers the optimizer": "import keras_bit.recipes.hyperrule",
    "the public layers": "import keras_bit.layers",
}


@pytest.mark.parametrize(
    "imports",
    [
        pytest.param(imports, id=name, marks=[] if name == "keras_bit" else [pytest.mark.slow])
        for name, imports in FIRST_IMPORTS.items()
    ],
)
def test_keras_loads_and_clones_files_of_an_older_commit(imports):
    folder = ROOT / "tests" / "checkpoints" / "commit-88449c7"
    process = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(imports=imports, folder=str(folder))],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.returncode == 0, process.stderr
    found = json.loads(process.stdout.splitlines()[-1])
    assert max(found["differences"]) < 1e-5  # of probabilities in float32, on any processor
    assert found["optimizer"] == ["MomentumSGD", "HyperRuleSchedule"]
    assert found["boundaries"] == [1, 2, 4, 5, 6]
    assert found["steps"] > 0
    assert found["touched"] == []


def test_a_loader_shared_with_other_modules_waits_for_keras(tmp_path):
    """A zip file has one loader for all its modules. Keras imports another of them before it is ready itself."""
    with zipfile.ZipFile(tmp_path / "site.zip", "w") as archive:
        archive.writestr("neighbor.py", "")
        archive.writestr("keras/__init__.py", "import neighbor\nready = True")
        archive.writestr("registers.py", "import keras\nassert keras.ready")
    program = (
        "import sys\nfrom keras_bit import registration\nregistration.MODULES = ('registers',)\nimport keras\n"
        "assert keras.__spec__.loader is sys.modules['neighbor'].__spec__.loader\nassert 'registers' in sys.modules"
    )
    process = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path / "site.zip"), str(ROOT)])},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.returncode == 0, process.stderr
