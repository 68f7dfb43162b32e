"""Colorize photographs: `from common.photo import colorize, load_colorizer, open_image, save_image`."""

from common.imaging.read import open_image
from common.imaging.write import save_image
from common.photo.api import colorize
from common.registry import load_colorizer

__all__ = ["colorize", "load_colorizer", "open_image", "save_image"]
