"""Challenge points as pictures: every record is shown with the name of its class."""

import torch

from mico_competition.competition.table import TASKS
from mico_competition.data.arrays import ArrayDataset, TextDataset, normalise_cifar10, unpack_bits
from mico_competition.data.pictures import show_points

AT = torch.tensor([2, 0])


def test_images_bear_the_names_of_their_classes():
    pixels = torch.zeros(3, 3, 32, 32, dtype=torch.uint8)
    dataset = ArrayDataset(pixels, torch.tensor([4, 0, 9]), normalise_cifar10)
    names = TASKS["cifar10"].class_names
    figure = show_points(dataset, AT, class_names=names)
    assert [axes.get_title() for axes in figure.axes] == ["truck", "deer"]
    assert [axes.get_title() for axes in show_points(dataset, AT).axes] == ["class 9", "class 4"]


def test_rows_and_sentences_too():
    rows = ArrayDataset(torch.zeros(3, 2, dtype=torch.uint8), torch.tensor([41, 0, 7]), unpack_bits)
    ticks = show_points(rows, AT).axes[0].get_yticklabels()
    assert [tick.get_text() for tick in ticks] == ["class 7", "class 41"]
    text = TextDataset(["dull", "good", "fine"], torch.tensor([0, 1, 1]), torch.arange(3))
    frame = show_points(text, AT, class_names=TASKS["sst2"].class_names)
    assert frame["label"].tolist() == ["positive", "negative"]
    assert frame["sentence"].tolist() == ["fine", "dull"]


def test_names_are_as_many_as_classes():
    for task in TASKS.values():
        assert len(task.class_names) in (0, task.num_classes)
