"""Data of your own: images in folders of classes, trained on without writing a data set.

    python examples/own_data.py [FOLDER]

FOLDER holds train/CLASS/*.png and test/CLASS/*.png, or classes alone; without it, squares and discs are drawn.
"""

import random
import sys
import tempfile
from pathlib import Path

from PIL import Image, ImageDraw

import stbp


def draw(folder: Path) -> None:
    """Draw 200 squares and 200 discs of random size and place."""
    chance = random.Random(0)
    for name, shape in (("square", "rectangle"), ("disc", "ellipse")):
        (folder / name).mkdir(parents=True)
        for number in range(200):
            image = Image.new("L", (28, 28))
            x, y, side = chance.randint(2, 10), chance.randint(2, 10), chance.randint(8, 16)
            getattr(ImageDraw.Draw(image), shape)((x, y, x + side, y + side), fill=255)
            image.save(folder / name / f"{number}.png")


with tempfile.TemporaryDirectory() as made:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(made) / "shapes"
    if len(sys.argv) == 1:
        draw(folder)
    # the same on the command line: stbp train folder --data FOLDER --network 8C5-P2-50
    run = stbp.fit("folder", data=folder, network="8C5-P2-50", T=8, epochs=8, batch_size=20, learning_rate=3e-3)
    print(f"{run.network}\ntest accuracy {100 * run.test_accuracy:.1f} %, classes {', '.join(run.classes)}")
