"""The operators of torch.export: those of the training IR, of the core ATen IR after decompositions, and of numbers.

All are pure. An operator that changes its argument in the file is read as the operator that returns the result
(`nern/graph/functional.py`). Everything that a file says about devices, layouts and memory formats is left out: values are on
the device of the inputs. Floating-point numbers are float32, so the dtypes F16, BF16 and F64 of a file are read as F32.
Dropouts and batch norms are in evaluation mode, whatever the file says.
"""

import math
import operator as python
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nern import tensorfile
from nern.errors import BadProgram
from nern.graph.operators.recurrent import unrolled, validate
from nern.graph.operators.registry import OPERATORS, Function, operator

# Operators that torch computes as the file says. The keyword `dtype` is decoded.
DIRECT = """
    abs.default neg.default negative.default exp.default exp2.default expm1.default log.default log2.default log10.default
    log1p.default sqrt.default rsqrt.default square.default reciprocal.default sign.default sgn.default floor.default
    ceil.default round.default round.decimals trunc.default frac.default sin.default cos.default tan.default asin.default
    acos.default atan.default sinh.default cosh.default asinh.default acosh.default atanh.default erf.default erfc.default
    erfinv.default sinc.default logit.default sigmoid.default tanh.default isnan.default isinf.default isfinite.default
    nan_to_num.default positive.default deg2rad.default rad2deg.default lgamma.default digamma.default

    add.Tensor add.Scalar sub.Tensor sub.Scalar rsub.Tensor rsub.Scalar subtract.Tensor subtract.Scalar mul.Tensor mul.Scalar
    multiply.Tensor multiply.Scalar div.Tensor div.Scalar divide.Tensor divide.Scalar
    true_divide.Tensor true_divide.Scalar floor_divide.default floor_divide.Scalar remainder.Tensor remainder.Scalar fmod.Tensor
    fmod.Scalar pow.Tensor_Scalar pow.Tensor_Tensor pow.Scalar float_power.Tensor_Scalar maximum.default minimum.default
    max.other min.other fmax.default fmin.default atan2.default hypot.default logaddexp.default lerp.Scalar lerp.Tensor
    addcmul.default addcdiv.default clamp.default clamp.Tensor clip.default clamp_min.default clamp_min.Tensor clamp_max.default
    clamp_max.Tensor copysign.Tensor xlogy.Tensor
    eq.Tensor eq.Scalar ne.Tensor ne.Scalar lt.Tensor lt.Scalar le.Tensor le.Scalar gt.Tensor gt.Scalar ge.Tensor ge.Scalar
    logical_and.default logical_or.default logical_xor.default logical_not.default bitwise_and.Tensor bitwise_and.Scalar
    bitwise_or.Tensor bitwise_or.Scalar bitwise_xor.Tensor bitwise_xor.Scalar bitwise_not.default __and__.Tensor __or__.Tensor
    isclose.default

    relu.default relu6.default leaky_relu.default elu.default celu.default selu.default gelu.default silu.default mish.default
    hardtanh.default hardswish.default hardsigmoid.default hardshrink.default softshrink.default softplus.default
    log_sigmoid.default threshold.default prelu.default _prelu_kernel.default glu.default softmax.int
    log_softmax.int _softmax.default _log_softmax.default _safe_softmax.default special_expit.default
    special_log_softmax.default

    sum.default sum.dim_IntList mean.default mean.dim prod.default prod.dim_int amax.default amin.default max.default
    min.default max.dim min.dim argmax.default argmin.default var.default var.dim var.correction std.default std.dim
    std.correction var_mean.dim var_mean.correction std_mean.correction norm.Scalar norm.ScalarOpt_dim norm.ScalarOpt_dim_dtype
    linalg_vector_norm.default linalg_norm.default frobenius_norm.dim logsumexp.default any.default any.dim any.dims all.default
    all.dim all.dims cumsum.default cumprod.default topk.default sort.default sort.stable argsort.default argsort.stable
    median.dim cosine_similarity.default pairwise_distance.default cdist.default _cdist_forward.default _euclidean_dist.default

    matmul.default mm.default bmm.default mv.default dot.default vdot.default addmm.default addmv.default baddbmm.default
    addbmm.default einsum.default linear.default bilinear.default outer.default linalg_matmul.default tensordot.default
    inner.default

    convolution.default conv1d.default conv1d.padding conv2d.default conv2d.padding conv3d.default conv3d.padding
    conv_transpose1d.default conv_transpose2d.input conv_transpose3d.input

    layer_norm.default native_layer_norm.default group_norm.default rms_norm.default _fused_rms_norm.default

    avg_pool1d.default avg_pool2d.default avg_pool3d.default max_pool1d.default max_pool2d.default max_pool3d.default
    max_pool1d_with_indices.default max_pool2d_with_indices.default max_pool3d_with_indices.default
    adaptive_avg_pool1d.default adaptive_avg_pool2d.default adaptive_avg_pool3d.default _adaptive_avg_pool2d.default
    _adaptive_avg_pool3d.default adaptive_max_pool1d.default adaptive_max_pool2d.default adaptive_max_pool3d.default
    max_unpool2d.default max_unpool3d.default

    pad.default constant_pad_nd.default reflection_pad1d.default reflection_pad2d.default reflection_pad3d.default
    replication_pad1d.default replication_pad2d.default replication_pad3d.default

    upsample_nearest1d.default upsample_nearest1d.vec upsample_nearest2d.default upsample_nearest2d.vec
    upsample_nearest3d.default upsample_nearest3d.vec _upsample_nearest_exact1d.default _upsample_nearest_exact1d.vec
    _upsample_nearest_exact2d.default _upsample_nearest_exact2d.vec _upsample_nearest_exact3d.default
    _upsample_nearest_exact3d.vec upsample_linear1d.default upsample_linear1d.vec upsample_bilinear2d.default
    upsample_bilinear2d.vec upsample_bicubic2d.default upsample_bicubic2d.vec upsample_trilinear3d.default
    upsample_trilinear3d.vec _upsample_bilinear2d_aa.default _upsample_bilinear2d_aa.vec _upsample_bicubic2d_aa.default
    _upsample_bicubic2d_aa.vec grid_sampler.default grid_sampler_2d.default grid_sampler_3d.default
    affine_grid_generator.default pixel_shuffle.default pixel_unshuffle.default channel_shuffle.default im2col.default
    col2im.default

    reshape.default flatten.using_ints unflatten.int ravel.default squeeze.default squeeze.dim squeeze.dims unsqueeze.default
    permute.default transpose.int t.default numpy_T.default mT.default adjoint.default swapaxes.default swapdims.default
    movedim.int movedim.intlist moveaxis.int moveaxis.intlist expand.default expand_as.default broadcast_to.default
    broadcast_tensors.default repeat.default tile.default repeat_interleave.self_int cat.default concat.default
    concatenate.default stack.default hstack.default vstack.default dstack.default split.Tensor split.sizes
    split_with_sizes.default chunk.default unbind.int tensor_split.sections tensor_split.indices hsplit.int vsplit.int
    unsafe_split.Tensor unsafe_chunk.default slice.Tensor select.int narrow.default roll.default flip.default fliplr.default
    flipud.default rot90.default diagonal.default diag_embed.default unfold.default tril.default triu.default meshgrid.default
    meshgrid.indexing atleast_1d.default atleast_2d.default atleast_3d.default cartesian_prod.default
    select_scatter.default diagonal_scatter.default
    index.Tensor _unsafe_index.Tensor index_select.default gather.default take.default take_along_dim.default scatter.src
    scatter.value scatter_add.default index_put.default _unsafe_index_put.default index_add.default index_copy.default
    index_fill.int_Scalar masked_fill.Scalar masked_fill.Tensor where.self where.ScalarOther where.ScalarSelf where.Scalar
    bucketize.Tensor searchsorted.Tensor one_hot.default embedding.default copy.default fill.Scalar fill.Tensor zero.default

    zeros_like.default ones_like.default full_like.default new_zeros.default new_ones.default new_full.default
"""

# Operators that create tensors, on the device of the inputs.
CREATING = """
    zeros.default ones.default full.default arange.default arange.start arange.start_step linspace.default eye.default eye.m
    scalar_tensor.default tril_indices.default triu_indices.default
"""

# The numbers of a file that has symbolic extents. The names are those that torch.export gives.
NUMBERS: dict[str, Function] = {
    **{
        f"_operator.{name}": getattr(python, name)
        for name in [
            "eq",
            "ne",
            "le",
            "ge",
            "lt",
            "gt",
            "neg",
            "pos",
            "mul",
            "add",
            "sub",
            "floordiv",
            "mod",
            "truediv",
            "and_",
            "or_",
            "getitem",
        ]
    },
    "math.trunc": math.trunc,
    "math.floor": math.floor,
    "math.ceil": math.ceil,
    "torch.sym_not": python.not_,
    "torch.sym_int": int,
    "torch.sym_float": float,
    "torch.sym_max": max,
    "torch.sym_min": min,
    "torch._sym_sqrt": math.sqrt,
    "torch.sym_sqrt": math.sqrt,
}

# Named arguments that a program does not have.
IGNORED = {"layout", "device", "pin_memory", "memory_format", "non_blocking", "generator"}

MAX_CREATED = 2**28

FLOATS = {torch.float64, torch.float16, torch.bfloat16}


def schema(name: str) -> Any:
    """torch's own description of the arguments and results of an operator `aten.NAME.OVERLOAD`. None if torch has none."""
    family, _, rest = name.partition(".")
    packet, _, overload = rest.partition(".")
    found = getattr(getattr(torch.ops.aten, packet, None), overload, None) if family == "aten" and overload else None
    return getattr(found, "_schema", None)


def is_mapped(value: Any) -> bool:
    """Whether a value stands for one sample of several, inside torch.vmap."""
    return isinstance(value, Tensor) and torch._C._functorch.is_batchedtensor(value)


def to_dtype(name: str | None) -> torch.dtype | None:
    """The dtype of a value of a program, from the notation of safetensors."""
    if name is None:
        return None
    if name not in tensorfile.DTYPES:
        raise BadProgram(f"the graph has a tensor of the dtype {name}, which is not supported")
    dtype = tensorfile.DTYPES[name]
    return torch.float32 if dtype in FLOATS else dtype


def _direct(name: str) -> Function:
    """torch's own function for an operator. The argument `dtype`, where there is one, is decoded."""
    packet, _, overload = name.partition(".")
    function = getattr(getattr(torch.ops.aten, packet), overload)
    places = [place for place, argument in enumerate(function._schema.arguments) if argument.name == "dtype"]
    if not places:
        return function  # type: ignore[no-any-return]
    place = places[0]

    def call(*arguments: Any, **keywords: Any) -> Any:
        if "dtype" in keywords:
            keywords["dtype"] = to_dtype(keywords["dtype"])
        elif len(arguments) > place:
            arguments = (*arguments[:place], to_dtype(arguments[place]), *arguments[place + 1 :])
        return function(*arguments, **keywords)

    return call


def _limited(function: Function) -> Function:
    """The function, after a look at the size of its result: a file may ask for more memory than there is."""

    def call(*arguments: Any, device: torch.device, **keywords: Any) -> Tensor:
        if function(*arguments, device=torch.device("meta"), **keywords).numel() > MAX_CREATED:
            raise BadProgram(f"the graph creates a tensor of more than {MAX_CREATED} elements, which is too large")
        return function(*arguments, device=device, **keywords)  # type: ignore[no-any-return]

    return call


for _name in DIRECT.split():
    operator(f"aten.{_name}")(_direct(_name))
for _name in CREATING.split():
    operator(f"aten.{_name}", on_device=True)(_limited(_direct(_name)))
for _name, _function in NUMBERS.items():
    operator(_name)(_function)


@operator("aten.div.Tensor_mode", "aten.div.Scalar_mode")
def _divided(x: Tensor, y: Tensor | float, *, rounding_mode: str | None = None) -> Tensor:
    divisor = torch.as_tensor(y, device=x.device)
    if rounding_mode == "trunc" and not x.is_floating_point() and not divisor.is_floating_point():
        # The processor stops the process where the smallest integer is divided by -1.
        negative = divisor == -1
        return torch.where(negative, -x, torch.div(x, torch.where(negative, 1, divisor), rounding_mode="trunc"))
    return torch.div(x, y, rounding_mode=rounding_mode)


@operator("aten.sym_size.int", "aten.size.int")
def _size(x: Tensor, dim: int) -> int:
    return x.shape[dim]


@operator("aten.sym_numel.default", "aten.numel.default")
def _numel(x: Tensor) -> int:
    return x.numel()


@operator(
    "aten.clone.default",
    "aten.contiguous.default",
    "aten.alias.default",
    "aten.lift_fresh.default",
    "aten.lift_fresh_copy.default",
    "aten.dropout.default",
    "aten.alpha_dropout.default",
    "aten.feature_dropout.default",
    "aten.feature_alpha_dropout.default",
    "aten.resolve_conj.default",
    "aten.resolve_neg.default",
)
def _same(x: Tensor, *arguments: Any, **keywords: Any) -> Tensor:
    return x


@operator("aten.detach.default")
def _detach(x: Tensor) -> Tensor:
    return x.detach()


@operator("aten.native_dropout.default")
def _native_dropout(x: Tensor, *arguments: Any) -> tuple[Tensor, None]:
    return x, None


# A view of a tensor that has another layout here than where the file was written may be impossible; a reshape never is.
@operator("aten.view.default", "aten._unsafe_view.default", "aten._reshape_copy.default", "aten.view_copy.default")
def _view(x: Tensor, shape: Sequence[int]) -> Tensor:
    return torch.ops.aten.reshape.default(x, shape)  # type: ignore[no-any-return]


@operator("aten.view_as.default", "aten.reshape_as.default")
def _view_as(x: Tensor, other: Tensor) -> Tensor:
    return x.reshape(other.shape)


@operator("aten.slice_scatter.default")
def _slice_scatter(
    x: Tensor, source: Tensor, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Tensor:
    # torch.vmap does not know bounds that are negative or behind the end.
    first, last, step = slice(start, end, step).indices(x.shape[dim])
    return torch.slice_scatter(x, source, dim, first, max(first, last), step)


def _cast(x: Tensor, dtype: str | None) -> Tensor:
    return x if dtype is None else x.to(to_dtype(dtype))


@operator("aten.to.dtype")
def _to_dtype(x: Tensor, dtype: str | None = None, *arguments: Any, **keywords: Any) -> Tensor:
    return _cast(x, dtype)


@operator("aten.to.device")
def _to_device(x: Tensor, device: None = None, dtype: str | None = None, *arguments: Any, **keywords: Any) -> Tensor:
    return _cast(x, dtype)


@operator("aten._to_copy.default", "aten.to.dtype_layout")
def _to_copy(x: Tensor, *, dtype: str | None = None, **keywords: Any) -> Tensor:
    return _cast(x, dtype)


@operator("aten.to.other", "aten.type_as.default")
def _to_other(x: Tensor, other: Tensor, *arguments: Any, **keywords: Any) -> Tensor:
    return x.to(other.dtype)


# Memory that was not written yet could be read, so that it is zeros.
@operator("aten.empty.memory_format", on_device=True)
def _empty(size: Sequence[int], *, dtype: str | None = None, device: torch.device, **keywords: Any) -> Tensor:
    return OPERATORS["aten.zeros.default"](size, dtype=dtype, device=device)  # type: ignore[no-any-return]


@operator("aten.empty_like.default")
def _empty_like(x: Tensor, *, dtype: str | None = None, **keywords: Any) -> Tensor:
    return torch.zeros_like(x, dtype=to_dtype(dtype))


@operator("aten.new_empty.default")
def _new_empty(x: Tensor, size: Sequence[int], *, dtype: str | None = None, **keywords: Any) -> Tensor:
    return x.new_zeros(size, dtype=to_dtype(dtype))


def _batch_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor | None, variance: Tensor | None, eps: float
) -> Tensor:
    # A batch norm without statistics takes those of the batch, in evaluation mode too.
    return F.batch_norm(x, mean, variance, weight, bias, mean is None, 0.0, eps)


@operator("aten.batch_norm.default")
def _batch_norm_of_modules(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor | None,
    variance: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool = True,
) -> Tensor:
    return _batch_norm(x, weight, bias, mean, variance, eps)


@operator(
    "aten._native_batch_norm_legit.default",
    "aten._native_batch_norm_legit_functional.default",
    "aten.native_batch_norm.default",
    "aten.cudnn_batch_norm.default",
    "aten.miopen_batch_norm.default",
)
def _native_batch_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor | None,
    variance: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
) -> tuple[Any, ...]:
    return _batch_norm(x, weight, bias, mean, variance, eps), None, None, mean, variance


@operator(
    "aten._native_batch_norm_legit_no_training.default",
    "aten._batch_norm_no_update.default",
    "aten._batch_norm_with_update.default",
    "aten._batch_norm_with_update_functional.default",
)
def _native_batch_norm_without_training(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor | None,
    variance: Tensor | None,
    momentum: float,
    eps: float,
) -> tuple[Any, ...]:
    return _batch_norm(x, weight, bias, mean, variance, eps), None, None, None, None


@operator("aten._native_batch_norm_legit.no_stats")
def _native_batch_norm_without_statistics(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, training: bool, momentum: float, eps: float
) -> tuple[Any, ...]:
    return _batch_norm(x, weight, bias, None, None, eps), None, None


@operator("aten.instance_norm.default")
def _instance_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor | None,
    variance: Tensor | None,
    use_input_stats: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool = True,
) -> Tensor:
    if mean is not None:
        return _batch_norm(x, weight, bias, mean, variance, eps)
    return F.instance_norm(x, None, None, weight, bias, True, 0.0, eps)


# The file repeats the shape of the input, with its own batch extent.
@operator("aten.native_group_norm.default")
def _native_group_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, n: int, c: int, pixels: int, groups: int, eps: float
) -> tuple[Any, ...]:
    return F.group_norm(x, groups, weight, bias, eps), None, None


@operator("aten._weight_norm.default")
def _weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    return v * (g / torch.norm_except_dim(v, 2, dim))


@operator("aten._weight_norm_interface.default")
def _weight_norm_interface(v: Tensor, g: Tensor, dim: int = 0) -> tuple[Tensor, Tensor]:
    norms = torch.norm_except_dim(v, 2, dim)
    return v * (g / norms), norms


@operator("aten.rrelu.default")
def _rrelu(x: Tensor, lower: float = 1 / 8, upper: float = 1 / 3, *arguments: Any, **keywords: Any) -> Tensor:
    return F.rrelu(x, lower, upper, training=False)


@operator("aten.rrelu_with_noise.default", "aten.rrelu_with_noise_functional.default")
def _rrelu_with_noise(x: Tensor, noise: Tensor, lower: float = 1 / 8, upper: float = 1 / 3, *arguments: Any) -> Any:
    return F.rrelu(x, lower, upper, training=False)


@operator("aten.scaled_dot_product_attention.default")
def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    dropout: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    if any(is_mapped(part) for part in (query, key, value, mask)):
        # The fast function for CPUs can't be mapped.
        math = torch.ops.aten._scaled_dot_product_attention_math.default
        return math(query, key, value, mask, 0.0, is_causal, scale=scale, enable_gqa=enable_gqa)[0]  # type: ignore[no-any-return]
    return F.scaled_dot_product_attention(query, key, value, mask, 0.0, is_causal, scale=scale, enable_gqa=enable_gqa)


@operator("aten._scaled_dot_product_attention_math.default")
def _attention_math(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout: float = 0.0,
    is_causal: bool = False,
    dropout_mask: None = None,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> tuple[Any, ...]:
    return _attention(query, key, value, attn_mask, 0.0, is_causal, scale=scale, enable_gqa=enable_gqa), None


@operator("aten._scaled_dot_product_flash_attention_for_cpu.default")
def _attention_on_cpu(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    dropout: float = 0.0,
    is_causal: bool = False,
    *,
    attn_mask: Tensor | None = None,
    scale: float | None = None,
) -> tuple[Any, ...]:
    return _attention(query, key, value, attn_mask, 0.0, is_causal, scale=scale), None


@operator("aten._scaled_dot_product_efficient_attention.default")
def _attention_on_gpu(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_bias: Tensor | None,
    compute_log_sumexp: bool,
    dropout: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
) -> tuple[Any, ...]:
    return _attention(query, key, value, attn_bias, 0.0, is_causal, scale=scale), None, None, None


@operator("aten._scaled_dot_product_flash_attention.default")
def _flash_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    dropout: float = 0.0,
    is_causal: bool = False,
    return_debug_mask: bool = False,
    *,
    scale: float | None = None,
) -> tuple[Any, ...]:
    return (_attention(query, key, value, None, 0.0, is_causal, scale=scale), *[None] * 8)


def _recurrent(kind: str) -> Function:
    function = getattr(torch, kind)

    def call(
        x: Tensor,
        state: Tensor | Sequence[Tensor],
        parameters: Sequence[Tensor],
        has_biases: bool,
        layers: int,
        dropout: float,
        train: bool,
        bidirectional: bool,
        batch_first: bool,
    ) -> Any:
        states = [state] if isinstance(state, Tensor) else list(state)
        if any(is_mapped(value) for value in (x, *states, *parameters)):
            return unrolled(kind, x, states, parameters, has_biases, layers, bidirectional, batch_first)
        validate(kind, x, states, parameters, has_biases, layers, bidirectional, batch_first)
        return function(x, state, parameters, has_biases, layers, 0.0, False, bidirectional, batch_first)

    return call


for _name in ("lstm", "gru", "rnn_tanh", "rnn_relu"):
    operator(f"aten.{_name}.input")(_recurrent(_name))
