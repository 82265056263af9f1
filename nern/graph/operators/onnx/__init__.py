"""The operators of ONNX (https://onnx.ai/onnx/operators/), one module for each family.

A function takes the inputs of an operator by position and its attributes by keyword, with the names and the defaults of
ONNX. What was an attribute in one version and is an input in another is one parameter, so it can be given either way. Other
differences between versions are resolved when a file is read (`nern/graph/onnx_nodes.py`).

Shapes, axes and other small integers are lists of a program, or small int64 tensors in the memory of the CPU. All operators but
NonZero can run under torch.vmap. All but those on integers are differentiable.
"""

from nern.graph.operators.onnx import activations as activations
from nern.graph.operators.onnx import arithmetic as arithmetic
from nern.graph.operators.onnx import attention as attention
from nern.graph.operators.onnx import convolution as convolution
from nern.graph.operators.onnx import indexing as indexing
from nern.graph.operators.onnx import normalisation as normalisation
from nern.graph.operators.onnx import pooling as pooling
from nern.graph.operators.onnx import recurrent as recurrent
from nern.graph.operators.onnx import reduction as reduction
from nern.graph.operators.onnx import resizing as resizing
from nern.graph.operators.onnx import shapes as shapes
