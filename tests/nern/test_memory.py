import subprocess
import sys

# Prints by how many kilobytes a training of a million kernels raises the peak: 38 MB of weights, 400 MB of embeddings.
PROGRAM = """
import resource, torch
from nern.request import DecoupledRequest
from nern.network import Network
from nern.training import train

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

torch.set_num_threads(1)
weights = lambda n: {"a.weight": torch.randn(n, n, 3, 3)}
train(Network(weights(64)), DecoupledRequest(steps=2, hidden=8))
before = peak()
train(Network(weights(1024)), DecoupledRequest(steps=2, hidden=8, permutation="none"))
print(peak() - before)
"""


def test_memory_does_not_grow_with_kernels_times_inputs() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 300_000
