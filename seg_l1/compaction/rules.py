"""Which rule each operator of `torch.ops.aten` has."""

from __future__ import annotations

from seg_l1.compaction import mixing, norms, pointwise, shape, spatial
from seg_l1.compaction.graph import Operation

_NAMES: dict[type[Operation], str] = {
    mixing.Convolution: "conv1d conv2d conv3d",
    mixing.TransposedConvolution: "conv_transpose1d conv_transpose2d conv_transpose3d",
    mixing.Linear: "linear",
    pointwise.Pointwise: (
        "relu relu6 hardtanh leaky_relu elu selu celu gelu silu mish sigmoid hardsigmoid hardswish"
        " tanh softplus softsign hardshrink softshrink threshold log_sigmoid exp log sqrt rsqrt abs"
        " neg square reciprocal sin cos erf pow clamp clamp_min clamp_max add sub rsub div maximum"
        " minimum where lerp addcmul addcdiv nan_to_num floor ceil round sign"
    ),
    pointwise.Identity: (
        "alias clone contiguous detach dropout alpha_dropout feature_dropout"
        " feature_alpha_dropout lift_fresh_copy"
    ),
    pointwise.Multiply: "mul",
    pointwise.Prelu: "prelu",
    spatial.Spatial: (
        "max_pool1d max_pool2d max_pool3d max_pool1d_with_indices max_pool2d_with_indices"
        " max_pool3d_with_indices adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d"
        " adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d upsample_nearest1d"
        " upsample_nearest2d upsample_nearest3d _upsample_nearest_exact1d"
        " _upsample_nearest_exact2d _upsample_nearest_exact3d upsample_linear1d"
        " upsample_bilinear2d upsample_bicubic2d upsample_trilinear3d _upsample_bilinear2d_aa"
        " _upsample_bicubic2d_aa"
    ),
    spatial.AveragePool: "avg_pool1d avg_pool2d avg_pool3d",
    spatial.Pad: (
        "pad constant_pad_nd reflection_pad1d reflection_pad2d reflection_pad3d"
        " replication_pad1d replication_pad2d replication_pad3d"
    ),
    spatial.Reduce: "mean amax amin sum",
    spatial.Unpool: "max_unpool2d max_unpool3d",
    norms.BatchNorm: "batch_norm instance_norm",
    norms.GroupNorm: "group_norm",
    norms.LayerNorm: "layer_norm",
    shape.Permute: "permute transpose t numpy_T mT",
    shape.Cut: "slice select narrow split split_with_sizes chunk unbind expand",
    shape.Reshape: ("view reshape _unsafe_view flatten unflatten squeeze unsqueeze view_copy"),
    shape.PixelShuffle: "pixel_shuffle",
    shape.Concatenate: "cat stack",
}

RULES: dict[str, type[Operation]] = {
    name: rule for rule, names in _NAMES.items() for name in names.split()
}
"""The rule of each operator; all others have `graph.Operation`, which removes nothing."""

SHAPES = frozenset([*_NAMES[shape.Reshape].split(), "expand"])
"""Operators whose arguments a network may compute from the sizes of its dense tensors."""
