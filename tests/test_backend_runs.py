"""Runs some tests of other files again with JAX and with PyTorch, in one process for each backend to save time."""

import importlib.util
import os
import subprocess
import sys

import pytest

from conftest import ROOT, absent

NAMES = (
    # Fine-tuning.
    "test_rematerialization.py::test_rematerialized_it_learns_the_same[{}]",
    "test_rematerialization.py::test_it_trains_in_half_precision",
    "test_state.py",
    "test_second_derivatives.py",
    "test_fine_tuning.py::test_it_is_what_a_person_does_by_hand_in_keras",
    "test_fine_tuning.py::test_accumulated_gradients_are_those_of_the_whole_batch",
    "test_fine_tuning.py::test_the_data_set_of_a_directory_with_mixup_is_taken_as_it_is",
    "test_fine_tuning.py::test_a_loss_of_nan_ends_training_and_names_the_step",
    "test_fine_tuning.py::test_mixed_precision_trains_with_a_head_in_float32",
    # Loading.
    "test_filling.py",
    "test_loading.py::test_every_tensor_comes_to_its_variable",
    "test_loading.py::test_other_floating_point_types_are_read_as_float32",
    "test_loading.py::test_tensors_with_values_that_are_not_finite_are_listed",
    "test_loading.py::test_a_keras_file_is_read_with_its_configuration",
    "test_loading.py::test_saved_weights_are_known_by_a_config_a_directory_or_their_shapes",
    "test_loading.py::test_the_same_weights_in_timms_layout_make_the_same_model",
    "test_loading.py::test_the_same_weights_under_every_form_of_googles_names_make_the_same_model",
    # The classifier.
    "test_classifier.py::test_images_in_every_form_are_classified_as_by_hand",
    "test_classifier.py::test_the_batch_size_changes_no_result",
    "test_classifier.py::test_scores_are_probabilities_of_a_model_with_logits_too",
    "test_classifier.py::test_a_batch_on_the_device_has_the_processors_values_bit_for_bit",
    "test_classifier.py::test_a_call_and_every_method_of_keras_give_the_same",
    "test_classifier.py::test_it_learns_on_uint8_batches_what_the_model_learns_on_the_processors",
    "test_classifier.py::test_it_is_saved_with_its_processor_and_loaded_by_keras",
    "test_kinds_of_input.py::test_preprocess_input_scales_what_a_tf_data_map_gives",
    # transformers' classes.
    *(
        f"test_transformers_shape.py::{name}[pre-activation-{ours}]"
        for ours in ("BitModel", "BitForImageClassification", "BitBackbone")
        for name in (
            "test_keras_sees_tensors_wherever_it_calls_the_model",
            "test_saved_cloned_and_fused_it_answers_as_before",
        )
    ),
    "test_transformers_shape.py::test_every_output_is_that_of_transformers[BitModel-pre-activation]",
    "test_transformers_shape.py::test_every_output_is_that_of_transformers[BitForImageClassification-bottleneck]",
    "test_transformers_shape.py::test_loss_and_gradients_are_torchs[one class, one image ignored]",
    "test_transformers_shape.py::test_loss_and_gradients_are_torchs[several labels, inferred]",
    "test_transformers_shape.py::test_loss_and_gradients_are_torchs[one number, inferred]",
    "test_transformers_shape.py::test_a_class_out_of_range_in_a_tensor_makes_the_loss_nan",
    "test_transformers_shape.py::test_training_reaches_the_paths_that_are_dropped",
    "test_transformers_shape.py::test_it_learns_from_logits_as_a_plain_model_does[pre-activation]",
    "test_transformers_shape.py::test_a_graph_of_jax_gives_the_output_too[pre-activation]",
    "test_transformers_shape.py::test_a_layer_of_ones_own_gets_the_output",
)


@pytest.mark.release
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_they_pass_under_every_backend(backend):
    for package in (backend, "torch", "transformers"):  # transformers' classes are compared with transformers
        if importlib.util.find_spec(package) is None:
            absent(f"{package} is not installed: pip install jax and -e '.[reference]'")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            *(str(ROOT / "tests" / name) for name in NAMES),
        ],
        env=os.environ | {"KERAS_BACKEND": backend},
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stdout[-5000:]  # also if one of these names is that of no test
    assert "skipped" not in done.stdout.splitlines()[-1]
