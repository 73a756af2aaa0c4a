from __future__ import annotations

from pathlib import Path

from fedd.dataset import TONES, DatasetImage
from fedd.paper import results
from fedd.reproduce.figure1 import TONE_COLOURS, draw_figure1

LABELS = dict(zip(TONES, TONES, strict=True))


def _images(*rows: tuple[str, bool | None, str]) -> list[DatasetImage]:
    return [
        DatasetImage(Path(f"{n}.png"), tone, malignant=malignant, diagnosis=diagnosis)
        for n, (tone, malignant, diagnosis) in enumerate(rows)
    ]


def test_figure1__counts_by_tone_and_diagnosis() -> None:
    images = _images(
        ("I-II", True, "basal-cell-carcinoma"), ("V-VI", True, "basal-cell-carcinoma"),
        ("V-VI", True, "melanoma"), ("V-VI", False, "nevus"), ("unknown", True, "melanoma"),
        ("I-II", None, "melanoma"),
    )  # fmt: skip
    figure = draw_figure1(images, LABELS, paper=False)
    left, right = figure.axes
    assert left.get_title(loc="left") == "n = 4 photographs", "of known tone and malignancy"
    assert [bar.get_height() for bar in left.patches] == [1, 0, 2, 0, 0, 1]
    assert [text.get_text() for text in right.get_yticklabels()] == [
        "Basal Cell Carcinoma",
        "Melanoma",
    ]
    assert [bar.get_width() for bar in right.patches] == [1, 0, 1, 0, 0, 1]
    assert [bar.get_x() for bar in right.patches[:3]] == [0, 1, 1], "stacked"
    assert not left.lines, "no marks of the paper"
    assert len(set(TONE_COLOURS.values())) == 3


def test_figure1__the_papers_counts_as_hollow_marks() -> None:
    figure = draw_figure1(_images(("I-II", True, "melanoma")), LABELS, paper=True)
    left, right = figure.axes
    assert [line.get_ydata()[0] for line in left.lines] == [49, 74, 48, 159, 167, 159]
    assert [line.get_xdata()[0] for line in right.lines][:3] == [41, 32, 28]
    assert len(right.get_yticklabels()) == 18


def test_paper__diagnoses_add_up_to_its_malignant_photographs_of_each_tone() -> None:
    dataset = results()["dataset"]
    for tone in TONES:
        of_tone = sum(counts[tone] for counts in dataset["malignant_diagnoses"].values())
        assert of_tone == dataset["malignant"][tone]
    assert sum(sum(dataset[name].values()) for name in ("malignant", "benign")) == 656
