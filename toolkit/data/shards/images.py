"""A split of images in shards."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolkit.api.errors import DataError
from toolkit.data.images import decode_image
from toolkit.data.shards.items import ShardItems

if TYPE_CHECKING:
    from torch import Tensor


class ShardImages(ShardItems):
    """N images."""

    def read(self, index: int) -> Tensor:
        """Pixels, uint8 `[3, H, W]`; DataError naming shard and sample where they cannot be decoded."""
        try:
            return decode_image(self.content(index))
        except ValueError as error:
            raise DataError(
                f"{self.name(index)}: cannot be decoded: {error}",
                next_step="repair the shard, or skip such images with: --set input.on_corrupt=skip",
            ) from error
