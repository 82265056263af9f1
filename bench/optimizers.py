"""Which optimizer reconstructs kernels fastest? One predictor for each optimizer, with the same seed, batches and steps.

python -m bench.optimizers CHECKPOINT [--steps 1000] [--quick]
"""

import time
from pathlib import Path

import torch

from bench.fidelity import load
from bench.tables import Row, parser, progress, show
from nern.facts import NetworkFacts
from nern.layers import StateDict
from nern.permutation import permutations
from nern.plan import Plan
from nern.planning import make_plan
from nern.representation import Representation
from nern.request import DecoupledRequest
from nern.request.phases import warmed_up
from nern.training import sampling
from nern.training.gradients import reconstruct
from nern.training.loop import evaluate
from nern.training.optimizers import Optimizers, muon, set_learning_rate, update, zero_grad
from nern.training.targets import Targets


def main() -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("checkpoint", type=Path, help="a file that torch.save wrote")
    arguments.add_argument("--steps", type=int, default=1000)
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    steps = min(options.steps, 300) if options.quick else options.steps
    state_dict = load(options.checkpoint)
    rows: list[Row] = []
    for name, rate in [("Adam", 2e-3), ("Adam", 5e-3), ("Adam", 1e-2), ("Muon", 4e-2), ("Muon", 1e-1)]:
        rows.append({"optimizer": name, "peak rate": rate, **fit(state_dict, name, rate, steps, options.seed)})
        progress.print(rows[-1])
    show(rows, f"{options.checkpoint.name}, {steps} steps of reconstruction", options)


def fit(state_dict: StateDict, name: str, rate: float, steps: int, seed: int) -> dict[str, float]:
    """The reconstruction phase of the decoupled recipe with another optimizer."""
    torch.manual_seed(seed)
    plan = make_plan(DecoupledRequest(steps=steps, seed=seed), NetworkFacts(state_dict, architecture=None), None)
    assert isinstance(plan, Plan)
    request, tiles = plan.request, plan.tiles()
    positions = permutations(tiles, state_dict, request.permutation, request.path)
    representation = Representation.untrained(
        tiles,
        state_dict,
        plan.predictor,
        permutation=request.permutation,
        positions=positions,
        layer_scaling=request.layer_scaling,
    )
    targets = Targets(representation, state_dict, torch.device("cpu"))
    batches = sampling.Shuffled(len(tiles), request.kernel_batch, seed)
    parameters = representation.predictor
    optimizers: Optimizers = muon(parameters) if name == "Muon" else (torch.optim.Adam(parameters.parameters()),)
    schedule = warmed_up(rate, steps)
    started = time.monotonic()
    for step in range(steps):
        set_learning_rate(optimizers, schedule(step))
        zero_grad(optimizers)
        reconstruct(targets, batches.batch(step))
        update(optimizers)
    seconds = time.monotonic() - started
    return {"relative error": evaluate(targets, None, steps).relative_error, "seconds": seconds}


if __name__ == "__main__":
    main()
