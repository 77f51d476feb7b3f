"""Make an album to look through: `python album.py` writes the folder `album`, with 33 photos and what else lies about.

The photos are pieces of the two that scikit-learn ships (by danielbuechele and vultilion, CC BY 2.0). Eight are there
a second time, as someone sent them: smaller, of low quality, in another format. One was cut off while it was copied.
"""

from importlib.resources import files
from io import BytesIO
from pathlib import Path

from PIL import Image

ALBUM = Path("album")
ROWS, COLUMNS = 3, 4


def main() -> None:
    for folder in ("2011", "sent", "thumbs"):
        (ALBUM / folder).mkdir(parents=True, exist_ok=True)
    for name in ("china", "flower"):
        photo = Image.open(BytesIO((files("sklearn.datasets.images") / f"{name}.jpg").read_bytes()))
        for number, piece in enumerate(pieces(photo), 1):
            original = ALBUM / "2011" / f"{name}-{number:02}.jpg"
            piece.save(original, quality=95)
            piece.reduce(4).save(ALBUM / "thumbs" / original.name)
            if number % 3 == 0:
                suffix = "png" if number % 2 else "jpg"
                piece.reduce(2).save(ALBUM / "sent" / f"{name}-{number:02}-small.{suffix}", quality=40)
    (ALBUM / "sent" / "cut-off.jpg").write_bytes((ALBUM / "2011" / "china-01.jpg").read_bytes()[:1000])
    (ALBUM / "notes.txt").write_text("Beijing, and the garden.\n")


def pieces(photo: Image.Image) -> list[Image.Image]:
    width, height = photo.width // COLUMNS, photo.height // ROWS
    corners = [(width * column, height * row) for row in range(ROWS) for column in range(COLUMNS)]
    return [photo.crop((left, top, left + width, top + height)) for left, top in corners]


if __name__ == "__main__":
    main()
