"""Faces on one sheet, each with a caption. For looking at, not for publishing: the faces are real people's."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from contract.files import replacing
from contract.spec import Images

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

COLUMNS = 6
FACE_PX, GAP_PX, TEXT_PX = 160, 10, 15


def write_contact_sheet(faces: Images, captions: Sequence[Sequence[str]], title: str, out: Path) -> Path:
    """Draw faces uint8 [N, 128, 128, 3] in rows of six, under each its lines of text, all captions equally many."""
    line_px = TEXT_PX + 4
    cell_px = (FACE_PX + GAP_PX, FACE_PX + GAP_PX + line_px * len(captions[0]))
    rows = -(-len(faces) // COLUMNS)
    top_px = line_px + 2 * GAP_PX
    sheet = Image.new("RGB", (COLUMNS * cell_px[0] + GAP_PX, top_px + rows * cell_px[1]), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((GAP_PX, GAP_PX), title, "black", _font(TEXT_PX))
    for i, (face, lines) in enumerate(zip(faces, captions, strict=True)):
        left, top = GAP_PX + i % COLUMNS * cell_px[0], top_px + i // COLUMNS * cell_px[1]
        sheet.paste(Image.fromarray(face).resize((FACE_PX, FACE_PX), Image.Resampling.BICUBIC), (left, top))
        for number, line in enumerate(lines):
            draw.text((left, top + FACE_PX + 2 + number * line_px), line, "black", _fitting(line))
    with replacing(out) as temporary:
        sheet.save(temporary)
    return out


def _fitting(line: str) -> Font:
    """Return the font in which the line is no wider than a face."""
    width_px = _font(TEXT_PX).getlength(line)
    return _font(int(TEXT_PX * min(1.0, FACE_PX / width_px)))


@cache
def _font(size_px: int) -> Font:
    return ImageFont.load_default(size_px)
