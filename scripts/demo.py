"""Starts the service and uses it over HTTP, as a user would: uploads a network, trains a predictor, and fetches weights.

Without arguments, the network is a small residual network. The demo trains it in seconds on handwritten digits.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import httpx
import numpy as np
import safetensors.torch
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from torch import Tensor, nn

from nern.architectures.cifar import ResNet
from nern.errors import NernError
from nern.facts import GRAPH
from nern.graph.program import Program
from nern.layers import StateDict
from nern.network import Network
from nern.state_dicts import find_state_dict
from nern.teachers import call
from service.inspection import checkpoints
from service.inspection.refusal import Refusal
from service.jobs.planning import program_of

SEED = 0
POLL_SECONDS = 0.5

# Images of one batch of the final evaluation.
EVALUATION_IMAGES = 500

# Options of the job for the demo's own network, which needs few steps. Other networks get the defaults of the service.
DIGITS_JOB = {"steps": 1500, "reconstruction_steps": 1100}

# If the console is no terminal, a line is printed after every LINE_PERCENT percent.
LINE_PERCENT = 10

console = Console(stderr=True)


@dataclass
class Task:
    """The files to upload, and how the result is evaluated.

    `images` (uint8, N x H x W x C) and `labels` (N) are for the final evaluation. The service never gets them. `job` has more
    options of the job.
    """

    checkpoint: Path
    dataset: Path
    normalisation: dict[str, str]
    images: Tensor | None = None
    labels: Tensor | None = None
    job: dict[str, Any] = field(default_factory=dict)


def main() -> None:
    options = parse()
    folder = Path(tempfile.mkdtemp(prefix="nern-demo-"))
    started = time.monotonic()
    try:
        task = given(options) if options.checkpoint else digits(folder)
        task.job |= options.job
        with service(folder / "data", keep=options.keep) as url:
            with httpx.Client(base_url=url, timeout=httpx.Timeout(60, read=600)) as client:
                result = run(client, task, options)
            console.print(f"The demo took {time.monotonic() - started:.0f} seconds.")
            if options.keep:
                console.print(f"The service still runs at [bold]{url}[/] (documentation: {url}/docs). Its data is in {folder}.")
            if options.json:
                print(json.dumps({"url": url if options.keep else None, **result}))
    except (Failure, httpx.HTTPError) as failure:
        sys.exit(f"The demo failed: {failure}")
    finally:
        if not options.keep:
            shutil.rmtree(folder, ignore_errors=True)


class Failure(Exception):
    """The demo can't go on."""


def parse() -> argparse.Namespace:
    """The arguments of the command line. Raises SystemExit if they are wrong."""
    parser = argparse.ArgumentParser(prog="scripts/demo", description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave the service running and print its address")
    parser.add_argument(
        "--checkpoint",
        type=Path,
        metavar="FILE",
        help="a network to represent: a file of torch.save or safetensors, a .pt2 file of nern.export, or an ONNX file (needs "
        "--dataset)",
    )
    parser.add_argument(
        "--dataset", type=Path, metavar="FILE", help="images for this network: an .npz file with `images` and `labels`"
    )
    parser.add_argument("--test", type=Path, metavar="FILE", help="images for the final evaluation, which are not uploaded")
    parser.add_argument("--mean", help="mean of each channel, separated by commas (default: ImageNet's for RGB)")
    parser.add_argument("--std", help="standard deviation of each channel, separated by commas")
    parser.add_argument("--job", type=json.loads, default={}, metavar="JSON", help='more options of the job, as {"ratio": 0.3}')
    parser.add_argument(
        "--output", type=Path, metavar="FOLDER", help="a new folder for the rebuilt weights, the artefact and the report"
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON on standard output")
    options = parser.parse_args()
    if (options.checkpoint is None) != (options.dataset is None):
        parser.error("give both --checkpoint and --dataset, or neither of them")
    if options.output:
        try:
            options.output.mkdir(parents=True)
        except OSError as error:
            parser.error(f"--output: {error.strerror}: {options.output}")
    for path in (options.checkpoint, options.dataset, options.test):
        if path is not None and not path.is_file():
            parser.error(f"there is no file {path}")
    return options


def given(options: argparse.Namespace) -> Task:
    """The network and the images that the arguments name."""
    normalisation = {name: value for name in ("mean", "std") if (value := getattr(options, name))}
    task = Task(options.checkpoint, options.dataset, normalisation)
    if options.test:
        with np.load(options.test, allow_pickle=False) as arrays:
            task.images, task.labels = torch.from_numpy(arrays["images"]), torch.from_numpy(arrays["labels"])
    return task


def digits(folder: Path) -> Task:
    """Trains a small residual network on handwritten digits of 8 x 8 pixels, and saves the network and the training images."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = torch.from_numpy((bunch.images * (255 / 16)).round().astype(np.uint8))[..., None]
    labels = torch.from_numpy(bunch.target.astype(np.int64))
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(SEED))
    train, held_out = order[500:], order[:500]
    mean, std = images[train].float().div(255).mean().item(), images[train].float().div(255).std().item()
    console.rule("A network to represent")
    console.print(f"{len(train)} handwritten digits to train on, {len(held_out)} held out.")
    network = fit((images[train].float() / 255 - mean).div(std).movedim(-1, 1), labels[train])
    checkpoint, dataset = folder / "digits-resnet8.pt", folder / "digits.npz"
    torch.save(network.state_dict(), checkpoint)
    np.savez_compressed(dataset, images=images[train].numpy(), labels=labels[train].numpy())
    normalisation = {"mean": f"{mean:.6f}", "std": f"{std:.6f}"}
    return Task(checkpoint, dataset, normalisation, images[held_out], labels[held_out], dict(DIGITS_JOB))


def fit(inputs: Tensor, labels: Tensor, epochs: int = 15, batch: int = 64) -> nn.Module:
    """Trains a ResNet-8 of the CIFAR family on normalised images (N, channels, height, width) with labels (N)."""
    torch.manual_seed(SEED)
    network = ResNet(8, channels=inputs.shape[1], classes=int(labels.max()) + 1)
    steps = epochs * (len(inputs) // batch)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=steps)
    with bar("{task.fields[loss]}") as progress:
        shown = progress.add_task("training resnet8", total=steps, loss="")
        for _ in range(epochs):
            for rows in torch.randperm(len(inputs)).split(batch)[: len(inputs) // batch]:
                loss = nn.functional.cross_entropy(network(inputs[rows]), labels[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                progress.update(shown, advance=1, loss=f"loss {loss.item():.3f}")
    return network.eval()


@contextmanager
def service(data: Path, *, keep: bool) -> Iterator[str]:
    """A block in which the embedded service runs, as a process, on a free port. Yields the address of the service."""
    data.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NERN_")}
    environment |= {"NERN_PORT": "0", "NERN_DATA_DIR": str(data)}
    with (data / "serve.log").open("wb") as log:
        command = [sys.executable, "-P", "-m", "service.cli", "serve", "--json"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, env=environment, start_new_session=True)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        if not line:
            raise Failure(f"the service did not start:\n{(data / 'serve.log').read_text()[-2000:]}")
        url = json.loads(line)["url"]
        console.rule("The service")
        console.print(f"Listening on {url}, with an SQLite database, a folder and a local worker.")
        yield url
    except BaseException:
        keep = False
        raise
    finally:
        if not keep:
            process.send_signal(signal.SIGTERM)
            process.wait()


def run(client: httpx.Client, task: Task, options: argparse.Namespace) -> dict[str, Any]:
    """Makes the requests that a user would make: uploads, trains, fetches and compares. Returns the results."""
    console.rule("Upload")
    with task.checkpoint.open("rb") as file:
        checkpoint = answer(client.post("/v1/checkpoints", files={"file": (task.checkpoint.name, file)}))
    console.print(
        f"Checkpoint {checkpoint['id']}: {checkpoint['architecture'] or 'unknown architecture'}, {checkpoint['parameters']:,} "
        f"parameters, {checkpoint['weights']:,} of them in {len(checkpoint['layers'])} convolutions."
    )
    with task.dataset.open("rb") as file:
        dataset = answer(client.post("/v1/datasets", files={"file": (task.dataset.name, file)}, params=task.normalisation))
    console.print(f"Dataset {dataset['id']}: {dataset['images']:,} images of {dataset['height']} x {dataset['width']}.")

    console.rule("Training")
    wanted = {"checkpoint_id": checkpoint["id"], "data": {"dataset_id": dataset["id"]}, **task.job}
    job = answer(client.post("/v1/jobs", json=wanted))
    for note in [*checkpoint["notes"], *dataset["notes"], *job["notes"]]:
        console.print(f"[bold]Note:[/] {note}", markup=True)
    tensors, program = opened(task.checkpoint, checkpoint["key"])
    original = network_of(tensors, job, program)
    job = follow(client, job)
    predictor = answer(client.get(f"/v1/predictors/{job['predictor_id']}"))

    console.rule("Three kernels by coordinate")
    show_kernels(client, predictor["id"], original.weights)

    console.rule("The whole network")
    started = time.monotonic()
    content = client.get(f"/v1/predictors/{predictor['id']}/weights")
    answer(content)
    seconds = time.monotonic() - started
    rebuilt = safetensors.torch.load(content.content)
    console.print(f"{len(content.content):,} bytes, {len(rebuilt)} tensors in {seconds:.1f} seconds.")
    report = predictor["report"]
    if options.output:
        artefact = client.get(f"/v1/predictors/{predictor['id']}/file")
        answer(artefact)
        (options.output / "rebuilt.safetensors").write_bytes(content.content)
        (options.output / "artefact.safetensors").write_bytes(artefact.content)
        (options.output / "report.json").write_text(json.dumps(report, indent=1))
        console.print(f"The rebuilt weights, the artefact and the report are in {options.output}.")
    measured = evaluate(original, replace(original, state_dict=rebuilt), task, dataset)
    if task.images is not None and measured is None:
        console.print("The images of --test were not used: nothing can compute this network. See docs/graphs.md.")
    console.print(table(report, measured, checkpoint, seconds))
    return {"predictor_id": predictor["id"], "report": report, "measured": measured, "rebuilding_seconds": seconds}


def opened(path: Path, key: str) -> tuple[StateDict, Program | None]:
    """The tensors of a checkpoint, and its graph if it has one, read as the service reads it. Raises Failure."""
    try:
        with path.open("rb") as file:
            _, content = checkpoints.read(file, path.stat().st_size)
        if content.program is not None:
            return cast(StateDict, content.tree), content.program
        return find_state_dict(content.tree, key).state_dict, None
    except (Refusal, NernError) as error:
        raise Failure(str(error)) from error


def network_of(tensors: StateDict, job: dict[str, Any], program: Program | None) -> Network:
    """A network with these tensors, computed as the job computes it."""
    if job["network"] is not None:
        program = program_of(job["network"], Network(tensors).facts.plain)
    return Network(tensors, None if job["architecture"] == GRAPH else job["architecture"], program)


def answer(response: httpx.Response) -> Any:
    """The JSON of a response, or None if it is not JSON. Raises Failure with the problem that the service answers."""
    is_json = "json" in response.headers.get("content-type", "")
    if response.is_error:
        problem = response.json() if is_json else {}
        raise Failure(f"{problem.get('title', response.reason_phrase)}: {problem.get('detail', response.text[:500])}")
    return response.json() if is_json else None


def follow(client: httpx.Client, job: dict[str, Any]) -> dict[str, Any]:
    """Polls a job until it is over, and shows its progress. Raises Failure unless the job succeeds."""
    percent = -LINE_PERCENT
    with bar("{task.fields[speed]}", "{task.fields[left]}", "{task.fields[quality]}") as progress:
        shown = progress.add_task("waiting", total=1.0, speed="", left="", quality="")
        while job["state"] in ("queued", "running"):
            time.sleep(POLL_SECONDS)
            job = answer(client.get(f"/v1/jobs/{job['id']}"))
            if state := job["progress"]:
                speed, left, good = f"{state['steps_per_second']:.1f} steps/s", time_left(job), quality(job["metrics"])
                fraction = state["fraction"]
                progress.update(shown, description=state["phase"], completed=fraction, speed=speed, left=left, quality=good)
                if not console.is_terminal and 100 * fraction >= percent + LINE_PERCENT:
                    percent = int(100 * fraction)
                    console.print(f"{percent:3d}% {state['phase']}: {', '.join(filter(None, (speed, left, good)))}")
    if job["state"] != "succeeded":
        raise Failure(f"the job has {job['state']}: {(job['error'] or {}).get('detail')}")
    return job


def time_left(job: dict[str, Any]) -> str:
    """The time to the estimated end of a job, as text."""
    if not job["estimated_finish_at"]:
        return ""
    left = (datetime.fromisoformat(job["estimated_finish_at"]) - datetime.now(UTC)).total_seconds()
    return f"{max(0, left) / 60:.1f} min left" if left > 90 else f"{max(0, left):.0f} s left"


def quality(metrics: dict[str, Any]) -> str:
    """Losses, accuracy and agreement, as text."""
    names = {"reconstruction": "rec", "distillation": "kd", "accuracy": "accuracy", "agreement": "agreement"}
    return "  ".join(f"{short} {metrics[name]:.4f}" for name, short in names.items() if metrics.get(name) is not None)


def show_kernels(client: httpx.Client, predictor_id: str, original: Mapping[str, Tensor]) -> None:
    """Fetches one kernel each of the first, the middle and the last layer, and prints them beside the original kernels."""
    layers = answer(client.get(f"/v1/predictors/{predictor_id}/layers"))
    chosen = [layers[0], layers[len(layers) // 2], layers[-1]]
    wanted = [[layer["index"], layer["shape"][0] // 2, layer["shape"][1] // 2] for layer in chosen]
    kernels = answer(client.post(f"/v1/predictors/{predictor_id}/kernels", json={"coordinates": wanted}))["kernels"]
    shown = Table("coordinate", "original", "rebuilt")
    for layer, kernel in zip(chosen, kernels, strict=True):
        _, filter, channel = kernel["coordinate"]
        shown.add_row(
            f"{kernel['coordinate']}\n{layer['name']}",
            matrix(original[layer["name"]][filter, channel].tolist()),
            matrix(kernel["weights"]),
        )
    console.print(shown)


def matrix(kernel: Any) -> str:
    """A kernel of any number of dimensions, as text with the last dimension in a line."""
    rows = np.atleast_2d(np.asarray(kernel))
    return "\n".join(" ".join(f"{value:+.2f}" for value in row) for row in rows.reshape(-1, rows.shape[-1]))


@torch.inference_mode()
def evaluate(original: Network, rebuilt: Network, task: Task, dataset: dict[str, Any]) -> dict[str, float] | None:
    """Compares the original and the rebuilt network on images that the service never got.

    None without such images, or if nothing can compute the network.
    """
    if not original.facts.can_be_computed or task.images is None or task.labels is None:
        return None
    answers = []
    for network in (original, rebuilt):
        module = network.build()
        batches = (task.images[rows].float() / 255 for rows in torch.arange(len(task.images)).split(EVALUATION_IMAGES))
        mean, std = torch.tensor(dataset["mean"]), torch.tensor(dataset["std"])
        logits = [
            next(iter(call(module, {}, (((batch - mean) / std).movedim(-1, 1).contiguous(),)).values())) for batch in batches
        ]
        answers.append(torch.cat(logits).argmax(1))
    return {
        "images": len(task.images),
        "original": (answers[0] == task.labels).float().mean().item(),
        "rebuilt": (answers[1] == task.labels).float().mean().item(),
        "agreement": (answers[0] == answers[1]).float().mean().item(),
    }


def table(report: dict[str, Any], measured: dict[str, float] | None, checkpoint: dict[str, Any], seconds: float) -> Table:
    """A table that compares the original network with the rebuilt one."""
    sizes, accuracy = report["bytes"], report["accuracy"]
    how = "distilled" if report["distilled"] else "reconstructed without distillation"
    caption = "Agreement: how many images get the same class from both networks."
    title = f"{checkpoint['filename']} as a neural representation, {how}"
    shown = Table("", "original", "rebuilt", title=title, caption=caption)
    if measured:
        name = f"accuracy on {measured['images']:,} images that were not uploaded"
        shown.add_row(name, f"{measured['original']:.2%}", f"{measured['rebuilt']:.2%}")
        shown.add_row("agreement on these images", "", f"{measured['agreement']:.2%}")
    if accuracy["original"] is not None:
        name = f"accuracy on {report['images']:,} images held out by the service"
        shown.add_row(name, f"{accuracy['original']:.2%}", f"{accuracy['reconstructed']:.2%}")
    if report["agreement"] is not None:
        shown.add_row("agreement on these images", "", f"{report['agreement']:.2%}")
    shown.add_row("relative error of the weights", "", f"{report['relative_error']['overall']:.3f}")
    shown.add_section()
    share = (sizes["predictor"] + sizes["permutation"]) / sizes["represented"]
    shown.add_row("represented weights: predictor", f"{sizes['represented']:,} B", f"{sizes['predictor']:,} B")
    shown.add_row("and permutation", "", f"{sizes['permutation']:,} B ({share:.1%} in all)")
    shown.add_row("kept tensors", f"{sizes['kept']:,} B", f"{sizes['kept']:,} B")
    shown.add_row("file", f"{checkpoint['size']:,} B", f"{sizes['total']:,} B")
    shown.add_section()
    shown.add_row("training, seconds", "", f"{report['seconds']['training']:.1f}")
    shown.add_row("rebuilding and download, seconds", "", f"{seconds:.2f}")
    return shown


def bar(*fields: str) -> Progress:
    """A progress bar, followed by these fields."""
    columns = [TextColumn(field) for field in fields]
    percent = TextColumn("{task.percentage:>3.0f}%")
    return Progress(TextColumn("{task.description:14}"), BarColumn(12), percent, TimeElapsedColumn(), *columns, console=console)


if __name__ == "__main__":
    main()
