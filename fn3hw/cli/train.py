"""``fn3hw train``: train a network once, with its blocks ordered by importance."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any

import typer

from fn3hw.cli import remote
from fn3hw.cli.console import Console
from fn3hw.cli.options import AsJson, Server
from fn3hw.cli.runs import onnx_accuracy
from fn3hw.deploy import Supernet, export
from fn3hw.errors import InputError
from fn3hw.space import Nested
from fn3hw.training import Recipe, Run, packaged_recipes, recipe_data, recipe_network, start_from
from fn3hw.training import train as train_network
from fn3hw.training.distributed import Ranks


def train(
    recipe: Annotated[str | None, typer.Option(help="A packaged recipe by name, or a TOML file.")] = None,
    output: Annotated[Path | None, typer.Option(help="The run folder; runs/RECIPE by default.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="Change a field, such as epochs=5.")
    ] = None,
    server: Server = None,
    as_json: AsJson = False,
) -> None:
    """Train a network by ordered dropout. An interrupted training, run again, goes on after its last epoch.

    On several processors: torchrun --nproc-per-node N -m fn3hw train ...
    """
    console = Console(as_json=as_json)
    if server is not None:
        return remote.train(server, console, recipe, changes(recipe, settings or []), output)
    run = open_or_create(recipe, output, settings or [])
    if not Ranks.join().is_first:
        train_weights(run, console)
        return
    supernet = train_run(run, console)
    data = recipe_data(run.recipe)
    full = supernet.slice(supernet.space.full()).SerializeToString()
    accuracy = onnx_accuracy(full, data, "test")
    history = run.history()
    document = {
        "run": str(run.folder),
        "epochs": len(history),
        "seconds": sum(epoch["seconds"] for epoch in history),
        "gates": len(supernet.space),
        "blocks": supernet.space.n_blocks,
        "test_accuracy": accuracy,
        "supernet_mib": len(full) / 2**20,
    }
    console.result(
        document,
        f"{run.folder}: {supernet.space.n_blocks} blocks in {len(supernet.space)} gates, "
        f"full network {accuracy:.2f}% on the test split.\nNext: fn3hw profile {run.folder} --output "
        f"{run.folder}/profile.json",
    )


def open_or_create(recipe: str | None, output: Path | None, settings: list[str]) -> Run:
    """The run folder that a training goes to: a new one for a recipe, or an existing one to go on with."""
    if recipe is None:
        if output is None:
            raise InputError("What should be trained?", hint="Give --recipe NAME, or --output RUN to go on with a run.")
        if settings:
            raise InputError("--set goes with --recipe: the settings of an existing run stay as they are.")
        return Run.open(output)
    changed = with_settings(Recipe.load(recipe), settings)
    if changed.network.start_from is not None:
        Run.open(changed.network.start_from).load_weights()  # what is wrong with it is said before a folder is made
    return Run.create(output or Path("runs") / Path(recipe).stem, changed)


def with_settings(recipe: Recipe, settings: list[str]) -> Recipe:
    """A recipe with fields changed by ``FIELD=VALUE``, the value in TOML."""
    document: dict[str, Any] = recipe.model_dump()
    for setting in settings:
        field, separator, text = setting.partition("=")
        if not separator:
            raise InputError(f"--set {setting} is not of the form FIELD=VALUE.", hint="For example: --set epochs=5")
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            value = text
        target = document
        *path, last = field.strip().split(".")
        for part in path:
            target = target.setdefault(part, {})
            if not isinstance(target, dict):
                raise InputError(f"--set {setting}: {part} is no section of a recipe.")
        target[last] = value
    return Recipe.of(document, source="--set")


def changes(recipe: str | None, settings: list[str]) -> dict[str, Any]:
    """The fields of a packaged recipe that ``FIELD=VALUE`` changes, as a server takes them.

    Raises:
        InputError: it is none that comes with fn3hw, or a value does not fit.
    """
    if recipe is None:
        return {}
    if recipe not in packaged_recipes() and Path(recipe).is_file():
        raise InputError(
            f"{recipe} is a file, but a server takes recipes that come with fn3hw.",
            hint="Give --recipe NAME and what differs from it by --set FIELD=VALUE.",
        )
    before = Recipe.load(recipe)
    old, new = before.model_dump(mode="json"), with_settings(before, settings).model_dump(mode="json")
    changed: dict[str, Any] = {}
    for name, value in new.items():
        if isinstance(value, dict) and isinstance(old[name], dict):
            if section := {key: one for key, one in value.items() if old[name].get(key) != one}:
                changed[name] = section
        elif value != old[name]:
            changed[name] = value
    return changed


def train_run(run: Run, console: Console) -> Supernet:
    """Train a run to its end and export its supernet; what is done already is not done again."""
    if (run.folder / "supernet.onnx").is_file() and (run.folder / "space.json").is_file() and run.is_trained:
        return Supernet.load(run.folder)
    net = train_weights(run, console)
    run.save_weights(net.state_dict())
    supernet = export(net.cpu())
    supernet.save(run.folder)
    return supernet


def train_weights(run: Run, console: Console) -> Nested:
    """Train a run's network to its end; processes that share a training all call this, the first one reports."""
    data = recipe_data(run.recipe)
    net = recipe_network(run.recipe, data)
    if run.recipe.network.start_from is not None:
        start_from(net, Run.open(run.recipe.network.start_from))
    if Ranks.join().is_first:
        console.say(f"{run.folder}: {run.recipe.network.name}, {net.space.n_blocks} blocks in {len(net.space)} gates")
    with console.progress("training") as ticker:
        train_network(
            net,
            data,
            run.recipe,
            run=run,
            progress=lambda p: ticker.tick(
                p.step, p.steps, p.seconds_left, f"epoch {p.epoch + 1}/{p.epochs}, loss {p.loss:.3f}"
            ),
        )
    return net
