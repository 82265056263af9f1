"""How much work and memory the reading of one file may take."""

from service.inspection.refusal import Refusal

# The largest training checkpoints have some hundred thousand tensors and numbers.
MAX_OPERATIONS = 2_000_000

# What any file may need beside a multiple of its own size.
SPARE_BYTES = 16 * 2**20


class Budget:
    """What is left of the operations and the bytes that the reading of a file of `nbytes` bytes may take."""

    def __init__(self, nbytes: int) -> None:
        self.operations = MAX_OPERATIONS
        self.nbytes = 4 * nbytes + SPARE_BYTES

    def spend(self, operations: int) -> None:
        """Takes operations. Raises Refusal if too few are left."""
        self.operations -= operations
        if self.operations < 0:
            raise Refusal("too-demanding", f"reading the file takes more than {MAX_OPERATIONS} operations; {ADVICE}")

    def reserve(self, nbytes: int) -> None:
        """Takes bytes of memory. Raises Refusal if too few are left."""
        self.nbytes -= nbytes
        if self.nbytes < 0:
            raise Refusal("too-demanding", f"the data in the file grows to several times its size; {ADVICE}")


ADVICE = "save the weights alone: torch.save(model.state_dict(), path), or a safetensors file"
