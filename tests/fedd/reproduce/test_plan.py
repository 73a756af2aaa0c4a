from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from fedd.backbone import IMAGENET_256, SMALL
from fedd.baselines import CNNSettings, Recipe, Start, UNetSettings
from fedd.errors import ReproductionError
from fedd.reproduce import Cell, Plan, Starts, paper_plan, small_plan
from fedd.reproduce.plan import FEDD, TASKS, chosen, settings_as_json
from fedd.segment import Ensemble
from tests.wording import Refusal


@pytest.fixture
def plan() -> Plan:
    return paper_plan(IMAGENET_256, Starts(), seeds=(0, 1))


def test_cells__every_model_of_the_paper_at_every_fraction_and_seed(plan: Plan) -> None:
    cells = plan.cells
    assert len(set(cells)) == len(cells) == (6 + 7) * 4 * 2
    assert Counter(cell.task for cell in cells) == {"segmentation": 48, "classification": 56}
    assert {cell.fraction for cell in cells} == {5, 10, 15, 20}


def test_cells__fedd_comes_first(plan: Plan) -> None:
    firsts = [cell.model == FEDD for cell in plan.cells]
    assert firsts == sorted(firsts, reverse=True)


def test_settings__those_of_the_paper(plan: Plan) -> None:
    probes = plan.probe_settings(Cell("segmentation", FEDD, 5, 1))
    assert (probes.features.blocks, probes.features.timestep) == ((6, 8), 100)
    assert (probes.members, probes.seed) == (5, 1)
    blocks = [plan.classifier_settings(Cell("classification", FEDD, f, 0)).block for f in (5, 10, 15, 20)]  # fmt: skip
    assert blocks == [4, 6, 12, 14]
    unet = plan.unet_settings(Cell("segmentation", "VGG16", 5, 1))
    assert (unet.encoder, unet.image_size, unet.learning_rate, unet.seed) == ("vgg16", 256, 1e-4, 1)
    deepderm = plan.cnn_settings(Cell("classification", "DeepDerm", 5, 0))
    assert deepderm == CNNSettings.of(Recipe.PAPER, "deepderm")
    assert plan.cnn_settings(Cell("classification", "ResNet50", 5, 0)) == CNNSettings.of(
        Recipe.PAPER, "resnet50"
    )


def test_settings__of_the_recipe_ours() -> None:
    plan = paper_plan(IMAGENET_256, Starts(), recipe=Recipe.OURS)
    assert plan.unet_settings(Cell("segmentation", "VGG16", 5, 0)) == UNetSettings(encoder="vgg16")
    assert plan.cnn_settings(Cell("classification", "ResNet50", 5, 0)) == CNNSettings(
        model="resnet50"
    )
    assert plan.cnn_settings(Cell("classification", "DeepDerm", 5, 0)) == CNNSettings(
        model="deepderm", image_size=299
    )
    assert "--recipe ours" in " ".join(plan.notes)


def test_settings__of_another_backbone_are_its_own() -> None:
    plan = paper_plan(SMALL, Starts())
    assert plan.probes.features.blocks != (6, 8)
    assert len({s.block for s in plan.classifiers.values()}) == 1


def test_deciding_by__in_the_cells_and_in_figure_6(plan: Plan) -> None:
    assert plan.probes.ensemble is plan.ablation.ensemble is Ensemble.VOTE
    changed = plan.deciding_by(Ensemble.MEAN)
    segmentation = next(cell for cell in changed.cells if cell.task == "segmentation")
    assert settings_as_json(changed.settings(segmentation))["ensemble"] == "mean"
    assert changed.ablation.ensemble is Ensemble.MEAN


def test_starts__a_file_where_there_is_one(tmp_path: Path) -> None:
    (tmp_path / "vgg16.pth").touch()
    starts = Starts(Start.IMAGENET, tmp_path)
    assert starts.of("vgg16") == tmp_path / "vgg16.pth"
    assert starts.of("resnet50") is Start.IMAGENET


@pytest.mark.parametrize("recipe", Recipe)
@pytest.mark.parametrize("otherwise", Start)
def test_lacking__deepderm_without_its_weights(
    recipe: Recipe, otherwise: Start, tmp_path: Path
) -> None:
    cell = Cell("classification", "DeepDerm", 5, 0)

    def lacking(folder: Path | None) -> str:
        return paper_plan(IMAGENET_256, Starts(otherwise, folder), recipe=recipe).lacking(cell)

    assert lacking(None).startswith("DeepDerm's weights are not given: --baseline-weights FOLDER")
    assert lacking(tmp_path).endswith(
        f"takes them from {tmp_path}/deepderm.safetensors or .pth or .pt"
    )
    (tmp_path / "deepderm.h5").touch()
    assert "(deepderm.h5 is there, but can't be read)" in lacking(tmp_path)
    (tmp_path / "deepderm.pth").touch()
    assert not lacking(tmp_path)


def test_lacking__frozen_encoders_from_scratch(tmp_path: Path) -> None:
    (tmp_path / "vgg16.pth").touch()
    starts = Starts(Start.SCRATCH, tmp_path)
    plan = paper_plan(IMAGENET_256, starts)
    found = {cell.model: plan.lacking(cell) for cell in plan.cells if cell.task == "classification"}
    assert {model for model, why in found.items() if not why} == {FEDD, "VGG16"}
    assert (
        "resnet50.safetensors or .pth or .pt; --recipe ours trains all of it" in found["ResNet50"]
    )
    assert not any(plan.lacking(cell) for cell in plan.cells if cell.task == "segmentation")
    ours = paper_plan(IMAGENET_256, starts, recipe=Recipe.OURS)
    assert {cell.model for cell in ours.cells if ours.lacking(cell)} == {"DeepDerm"}


def test_lacking__nothing_for_others_and_in_a_small_plan() -> None:
    plan = paper_plan(IMAGENET_256, Starts())
    assert {cell.model for cell in plan.cells if plan.lacking(cell)} == {"DeepDerm"}
    small = small_plan()
    assert not any(small.lacking(cell) for cell in small.cells)


def test_settings_as_json__weights_by_their_content(tmp_path: Path) -> None:
    seen = []
    for value, folder in ((0.0, "a"), (0.0, "b"), (1.0, "c")):
        (tmp_path / folder).mkdir()
        save_file({"w": torch.full((1,), value)}, tmp_path / folder / "vgg16.safetensors")
        plan = paper_plan(IMAGENET_256, Starts(folder=tmp_path / folder))
        settings = plan.settings(Cell("segmentation", "VGG16", 5, 0))
        seen.append(settings_as_json(settings)["start"])
    assert seen[0] == seen[1] != seen[2]


def test_plan__without_a_seed() -> None:
    with pytest.raises(ReproductionError, match="seed"):
        paper_plan(IMAGENET_256, Starts(), seeds=())


@pytest.mark.parametrize(
    ("only", "count"),
    [
        ((), 52),
        (("segmentation",), 24),
        (("fedd",), 8),
        (("FEDD", "vgg16"), 16),
        (("classification", "FEDD"), 4),
        (("segmentation", "DeepDerm"), 0),
        (TASKS, 52),
    ],
)
def test_chosen__tasks_and_models(only: tuple[str, ...], count: int) -> None:
    assert len(chosen(paper_plan(IMAGENET_256, Starts()).cells, only)) == count


def test_chosen__unknown_name(plan: Plan, refusal: Refusal) -> None:
    with refusal(ReproductionError):
        chosen(plan.cells, ("VGG",))
