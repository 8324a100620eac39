#!/usr/bin/env python3
"""Cut emoji-mini out of emoji-captions-64.tar.gz: seven categories without skin tones, 32 x 32, over white.

usage: make.py ARCHIVE OUT     needs Pillow

Images keep the order of captions.tsv and lie row by row in one picture, COLUMNS in a row. The picture is stored without
loss; another Pillow or zlib may compress to other bytes of equal pixels.
"""
import csv
import io
import os
import sys
import tarfile

from PIL import Image

SIZE = 32
COLUMNS = 40
CATEGORIES = ["Animals & Nature", "Flags", "Food & Drink", "Objects", "Smileys & Emotion", "Symbols", "Travel & Places"]


def main():
    archive, out = sys.argv[1:]
    with tarfile.open(archive) as tar:
        text = tar.extractfile("emoji-captions/captions.tsv").read().decode()
        rows = list(csv.DictReader(io.StringIO(text), delimiter="\t", quoting=csv.QUOTE_NONE))
        rows = [row for row in rows if row["category"] in CATEGORIES and "skin tone" not in row["caption"]]
        files = {row["file"]: tar.extractfile("emoji-captions/64/" + row["file"]).read() for row in rows}
    sheet = Image.new("RGB", (COLUMNS * SIZE, -(-len(rows) // COLUMNS) * SIZE), "white")
    for at, row in enumerate(rows):
        image = Image.open(io.BytesIO(files[row["file"]])).convert("RGBA")
        over = Image.new("RGBA", image.size, "white")
        over.alpha_composite(image)
        small = over.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BOX)
        sheet.paste(small, (at % COLUMNS * SIZE, at // COLUMNS * SIZE))
    sheet.save(os.path.join(out, "images.png"), optimize=True)
    with open(os.path.join(out, "captions.tsv"), "w", newline="") as file:
        file.write("file\tcaption\tcategory\n")
        for row in rows:
            file.write(f"{row['file']}\t{row['caption'].lower()}\t{row['category']}\n")
    print(len(rows), "images", sheet.size)


main()
