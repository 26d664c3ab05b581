"""The networks that timm_probe.py builds with timm, and test_timm_live.py with keras_bit."""

# Arguments of timm's ResNetV2 in addition to those of every BiT: four stages with as few blocks as every path needs.
CASES = {
    "stride 32": {},
    "stride 16": {"output_stride": 16},
    "stride 8": {"output_stride": 8},
    "stride 4": {"output_stride": 4},
    "stride 64": {"output_stride": 64},
    "width 2": {"width_factor": 2},
    "width 3": {"width_factor": 3},
    "width 4, gray": {"width_factor": 4, "in_chans": 1},
}
SIZES = {"layers": [1, 2, 2, 2], "channels": (32, 32, 64, 64), "stem_chs": 16, "num_classes": 7}
