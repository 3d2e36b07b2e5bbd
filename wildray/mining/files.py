"""Answers to requests about one media file: its facts, or its frames. The task that the decoding child runs.

In: a request as plain values. Out: facts, or frames and a report. Videos are read by ``video``, stills by Pillow, of
the formats named here only. The alternative, OpenCV for both, knows no capture times and no reason for a failure.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from wildray.errors import MediaError
from wildray.mining.streams import video_facts
from wildray.mining.video import Frame, Report, Request, decode_video, is_infrared

STILL_FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "WEBP", "GIF", "MPO")
"""Pillow's readers of what cameras write; the rest (PostScript calls an interpreter) stay closed."""

_TIME_TAGS = (
    (ExifTags.Base.DateTimeOriginal, ExifTags.Base.OffsetTimeOriginal),
    (ExifTags.Base.DateTimeDigitized, ExifTags.Base.OffsetTimeDigitized),
    (ExifTags.Base.DateTime, ExifTags.Base.OffsetTime),
)


def answer(request: dict[str, Any]) -> Iterator[Frame | Report | dict[str, object] | None]:
    """Answer one request.

    Args:
        request: ``probe`` (bool) and the fields of ``video.Request``.

    Yields:
        The facts of the file where it is probed; else its frames and a report.

    Raises:
        MediaError: As ``decode_video``, ``video_facts`` and ``open_still``.
    """
    fields = dict(request)
    probe = fields.pop("probe", False)
    if fields.get("frame_indices") is not None:
        fields["frame_indices"] = tuple(fields["frame_indices"])
    wanted = Request(**fields)
    if probe and wanted.kind == "still":
        yield still_facts(wanted.path, max_pixels=wanted.max_pixels)
    elif probe:
        yield video_facts(wanted.path, max_pixels=wanted.max_pixels, threads=wanted.threads)
    elif wanted.kind == "still":
        yield from decode_still(wanted)
    else:
        yield from decode_video(wanted)


def open_still(path: str, *, max_pixels: int) -> Image.Image:
    """Open a still without reading its pixels.

    Raises:
        MediaError: ``unreadable``: no image. ``too_large``: more pixels than allowed.
    """
    Image.MAX_IMAGE_PIXELS = None  # the limit is ours, and an error instead of a warning
    try:
        image = Image.open(path, formats=STILL_FORMATS)
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise MediaError(
            f"{path}: not readable as a still ({type(error).__name__}). Expected a whole JPEG, PNG or TIFF file."
        ) from None
    if image.width * image.height > max_pixels:
        raise MediaError(
            f"{path}: {image.width} x {image.height} px, more than detect.max_pixels = {max_pixels}.", "too_large"
        )
    return image


def still_facts(path: str, *, max_pixels: int) -> dict[str, object]:
    """Size (upright) and EXIF capture time of a still, as ``video_facts`` gives a video's."""
    with open_still(path, max_pixels=max_pixels) as image:
        exif = image.getexif()
        tags = {**exif, **exif.get_ifd(ExifTags.IFD.Exif)}
        width, height = image.size
        if exif.get(ExifTags.Base.Orientation) in (5, 6, 7, 8):
            width, height = height, width
    times: dict[str, str] = {}
    for time_tag, offset_tag in _TIME_TAGS:
        text = str(tags.get(time_tag, "")).strip("\0 ")
        if text.strip("0: "):
            times["exif_time"] = text
            offset = str(tags.get(offset_tag, "")).strip("\0 ")
            if offset:
                times["exif_offset"] = offset
            break
    size = {"width_px": width, "height_px": height}
    return {"fps": None, "num_frames": 1, "duration_s": None, **size, "tags": times}


def decode_still(request: Request) -> Iterator[Frame | Report]:
    """The one frame of a still, turned upright, and a report.

    Raises:
        MediaError: As ``open_still``; ``unreadable`` where the file is cut off.
    """
    with open_still(request.path, max_pixels=request.max_pixels) as image:
        try:
            turned = ImageOps.exif_transpose(image)
            if turned.mode.startswith("I;16"):  # Pillow would clip 16 bits to 8 where they have to be scaled
                pixels = np.repeat((np.asarray(turned) >> 8).astype(np.uint8)[:, :, None], 3, axis=2)
            else:
                pixels = np.array(turned.convert("RGB"))
        except (OSError, ValueError, SyntaxError) as error:
            raise MediaError(f"{request.path}: the still breaks off or is damaged ({error}).") from None
    asked = request.frame_indices is None or 0 in request.frame_indices
    in_window = request.start_s <= 0 and (request.stop_s is None or request.stop_s > 0)
    if asked and in_window:
        yield Frame(0, 0.0, pixels, is_infrared(pixels))
    yield Report(1, 0.0, int(asked and in_window))
