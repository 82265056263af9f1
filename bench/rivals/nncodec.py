"""NNCodec, Fraunhofer HHI's implementation of ISO/IEC 15938-17, as a codec of whole state_dicts.

`encode` and `decode` do what those of `nncodec.nn` do with their default options: dependent quantisation and DeepCABAC, without
data or training. They call the core of the package, which needs NumPy alone. `nncodec.nn` imports tools for data sets, and the
package as a whole asks for NumPy 1: so it is installed without its dependencies.
"""

from types import ModuleType
from typing import Any

import numpy as np
import torch

from nern.layers import StateDict

INSTALLATION = "python -m pip install --no-deps nncodec==2.1.3"

# The default options of `nncodec.nn.encode`; tensors of one dimension have the finer quantisation parameter.
OTHER_QP = -75
QP_DENSITY = 2
UNARY_LENGTH = 10


class MissingCodec(Exception):
    """The package nncodec is not installed."""


def encode(state_dict: StateDict, qp: int) -> bytes:
    """The bitstream of all tensors, with quantisation parameter `qp` for those of two dimensions or more.

    An increase of `qp` by 4 doubles the quantisation step. Raises MissingCodec.
    """
    core = load_core()
    arrays = {name: tensor.numpy().astype(np.float32) for name, tensor in state_dict.items()}
    about = core.nnr_model.NNRModel(arrays).model_info
    data = core.approximator.init_approx_data(arrays, about, qp_density=QP_DENSITY, scan_order=0)
    quantisation = core.approximator.ApproxInfo(
        data, about, "uniform", 0, qp, False, False, UNARY_LENGTH, 0, nonweight_qp=OTHER_QP, int_quant_bw=None
    ).approx_info
    coding = {
        "cabac_unary_length_minus1": UNARY_LENGTH,
        "param_opt_flag": True,
        "partial_data_counter": 0,
        "general_profile_idc": 1,
        "node_id_present_flag": 1,
        "device_id": 0,
        "mps_parent_signalling_enabled_flag": 0,
        "parent_node_id_present_flag": 0,
        "temporal_context_modeling_flag": 0,
        "row_skip_enabled_flag": 1,
        "pre_signalling": 0,
    }
    quantised = core.approximator.approx(quantisation, about, data, coding)
    bitstream, _ = core.coder.encode(coding, about, quantised)
    return bytes(bitstream)


def decode(bitstream: bytes, like: StateDict) -> StateDict:
    """The decoded tensors, with the dtypes and shapes of those of the same name in `like`. Raises MissingCodec."""
    core = load_core()
    about: dict[str, Any] = {
        "parameter_type": {},
        "parameter_dimensions": {},
        "parameter_index": {},
        "block_identifier": {},
        "topology_storage_format": None,
        "topology_compression_format": None,
        "performance_maps": {"mps": {}, "lps": {}},
        "performance_map_flags": {
            f"{level}_{kind}": {}
            for level in ("mps", "lps")
            for kind in ("sparsification_flag", "pruning_flag", "unification_flag", "decomposition_performance_map_flag")
        },
    }
    data = core.coder.decode(bytearray(bitstream), about, hls_stats={}, oob_dict={})
    core.approximator.rec(data)
    arrays = core.approximator.recompose_params(about, data)["parameters"]
    return {name: torch.from_numpy(arrays[name]).view(tensor.shape).to(tensor.dtype) for name, tensor in like.items()}


def load_core() -> ModuleType:
    """The module `nncodec.nnc_core`. Raises MissingCodec."""
    try:
        from nncodec import nnc_core
    except ImportError as error:
        raise MissingCodec(
            f"NNCodec is not installed; this command installs it (a C++ compiler is needed): {INSTALLATION}"
        ) from error
    module: ModuleType = nnc_core
    return module
