"""Lists what transformers' page of BiT promises, row by row, with the tests that hold it here.

The rows follow the page of version 4.37 from top to bottom. Channels are last on purpose.
"""

import ast

import numpy as np
import pytest
from PIL import Image

from conftest import ROOT
from keras_bit import BitConfig, BitForImageClassification, BitImageProcessor, BitModel, from_pretrained

CHECKPOINT = ROOT / "tests" / "checkpoints" / "bit-tiny-cifar10"
ROWS = {
    "group norm for batch norm": ["test_layers::test_group_norm_is_torchs_or_nearer_to_float64"],
    "weight-standardized convolutions": ["test_layers::test_a_standardized_convolution_is_that_of_transformers"],
    "BitConfig: arguments, names, defaults": [
        "test_config::test_the_defaults_are_transformers_own_but_for_the_thousand_labels",
        "test_config::test_every_argument_of_transformers_is_one_of_ours",
        "test_reference_page_rows::test_the_arguments_of_the_configuration_have_the_pages_order",
    ],
    "layer_type, hidden_act, global_padding": [
        "test_parity_live::test_every_stage_of_a_tiny_network_is_that_of_transformers",
        "test_model::test_the_hidden_activation_is_the_one_of_its_name",
    ],
    'global_padding="valid"': ["test_config::test_an_argument_out_of_its_range_is_refused_with_what_is_allowed"],
    "output_stride": [
        "test_model::test_the_output_stride_turns_strides_into_dilation_as_timm_does",
        "test_timm_live::test_timms_networks_and_files_give_timms_numbers",
        "test_parity_live::test_every_stage_of_a_tiny_network_is_that_of_transformers",
    ],
    "width_factor": ["test_config::test_the_width_factor_widens_the_stem_and_every_stage"],
    "out_features, out_indices": ["test_config::test_outputs_are_completed_as_transformers_does"],
    "**kwargs of the configuration": [
        "test_config::test_the_documented_arguments_of_every_configuration_are_kept_for_the_file",
        "test_config::test_other_arguments_are_refused_with_the_closest_name",
        "test_config::test_the_kept_fields_are_those_that_transformers_documents",
    ],
    "BitModel(configuration).config": ["test_reference_page::test_initializing_a_model_from_a_bit_configuration"],
    "BitImageProcessor: arguments, defaults": [
        "test_reference_page_rows::test_the_arguments_of_the_processor_have_the_pages_order_and_defaults"
    ],
    "overrides of a call, frameworks": [
        "test_processor::test_overrides_equal_transformers",
        "test_processor::test_return_tensors_gives_the_frameworks_tensor",
    ],
    "**kwargs of the processor": [
        "test_processor::test_configurations_of_other_versions_are_read",
        "test_reference_page_rows::test_a_misspelt_option_of_a_call_is_refused",
    ],
    "preprocess(images)": ["test_batch_feature::test_preprocess_equals_transformers"],
    "single, list, batch; PIL, array": ["test_processor::test_every_kind_of_input_gives_the_same_batch"],
    "values in [0, 1] with do_rescale=False": ["test_processor::test_arrays_equal_transformers"],
    "return_tensors unset": [
        "test_batch_feature::test_preprocess_gives_a_list_of_arrays_as_transformers_does",
        "test_batch_feature::test_preprocess_gives_images_of_several_sizes_if_no_step_makes_them_equal",
    ],
    "data_format": [
        "test_processor::test_data_format_orders_the_result",
        "test_batch_feature::test_without_a_data_format_the_result_has_that_of_the_array",
    ],
    "input_data_format": [
        "test_processor::test_input_data_format_decides_where_the_shape_does_not",
        "test_kinds_of_input::test_gray_arrays_give_the_values_of_transformers",
    ],
    "BitModel.forward": ["test_reference_page::test_a_call_has_the_arguments_of_forward_in_their_order"],
    "last_hidden_state, pooler_output, hidden_states": [
        "test_transformers_shape::test_every_output_is_that_of_transformers",
        "test_reference_page::test_hidden_states_are_the_stem_and_every_stage",
    ],
    "return_dict=False": [
        "test_reference_page::test_without_return_dict_it_is_a_tuple_of_what_there_is",
        "test_transformers_shape::test_the_configuration_says_what_a_call_leaves_open",
    ],
    "from_pretrained": ["test_reference_page_rows::test_from_pretrained_is_a_function_and_a_method_of_every_class"],
    "model(**inputs)": [
        "test_reference_page::test_the_pages_example_runs",
        "test_batch_feature::test_every_way_of_calling_a_model_takes_the_dictionary",
    ],
    "list(last_hidden_states.shape)": ["test_reference_page::test_the_pages_example_runs"],
    "BitForImageClassification.forward": [
        "test_transformers_shape::test_loss_and_gradients_are_torchs",
        "test_transformers_shape::test_the_problem_type_is_inferred_as_transformers_does",
    ],
    "num_labels == 1 is regression": [
        "test_reference_page::test_labels_give_the_loss_of_their_kind_and_one_label_is_a_regression"
    ],
    "logits.argmax(-1), model.config.id2label": ["test_reference_page::test_the_largest_logit_has_a_name"],
}


@pytest.mark.parametrize("row", ROWS)
def test_the_tests_of_a_row_are_there(row):
    for name in ROWS[row]:
        module, function = name.split("::")
        tree = ast.parse((ROOT / "tests" / f"{module}.py").read_text(encoding="utf-8"))
        assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, name


@pytest.mark.live
def test_the_arguments_of_the_configuration_have_the_pages_order():
    import dataclasses

    import transformers

    theirs = [field.name.removeprefix("_") for field in dataclasses.fields(transformers.BitConfig)]
    shared = [field.name for field in dataclasses.fields(BitConfig) if field.name in theirs]
    order = ["num_channels", "embedding_size", "hidden_sizes", "depths", "layer_type", "hidden_act", "global_padding"]
    order += ["num_groups", "drop_path_rate", "embedding_dynamic_padding", "output_stride", "width_factor"]
    order += ["out_features", "out_indices"]
    assert [name for name in shared if name in order] == order
    assert [name for name in theirs if name in order] == order


def test_the_arguments_of_the_processor_have_the_pages_order_and_defaults():
    # Written down from the page: version 5 keeps them as attributes of the class, in no order.
    expected = {
        "do_resize": True,
        "size": {"shortest_edge": 224},
        "resample": Image.Resampling.BICUBIC,
        "do_center_crop": True,
        "crop_size": {"height": 224, "width": 224},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": (0.48145466, 0.4578275, 0.40821073),
        "image_std": (0.26862954, 0.26130258, 0.27577711),
        "do_convert_rgb": True,
    }
    processor = BitImageProcessor()
    found = {name: getattr(processor, name) for name in list(processor.to_dict())[1:] if name != "orientation"}
    assert list(found) == list(expected)
    assert found == expected


def test_a_misspelt_option_of_a_call_is_refused():
    with pytest.raises(TypeError, match="`do_resise`"):
        BitImageProcessor().preprocess(Image.new("RGB", (40, 40)), do_resise=False)


def test_from_pretrained_is_a_function_and_a_method_of_every_class():
    images = np.random.default_rng(0).uniform(-1, 1, (1, 32, 32, 3)).astype("float32")
    logits = BitForImageClassification.from_pretrained(CHECKPOINT)(images).logits
    plain = from_pretrained(CHECKPOINT, classifier_activation=None)(images)
    np.testing.assert_array_equal(np.asarray(logits), np.asarray(plain))
    assert BitModel.from_pretrained(CHECKPOINT).config == BitConfig.from_pretrained(CHECKPOINT)
    assert isinstance(BitImageProcessor.from_pretrained(CHECKPOINT), BitImageProcessor)
