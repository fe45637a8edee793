"""Images of a fit or a folder, read and resized in batches ahead of their use."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch

from pradot.images import read_image, resize_image


def load_batches(images: Sequence, size: int, batch_size: int) -> Iterator[torch.Tensor]:
    """Read and resize images in as many threads as torch has, ahead of their use.

    While a batch is being used, the next two are made, and no more than these are held. Threads are enough, since decoding
    and resizing let each other run; processes would cost seconds to start and hundreds of MB each. The order is kept,
    and nothing depends on the number of threads.

    Parameters
    ----------
    images : sequence of paths, PIL images or arrays
        See `read_image`.
    size : int
        Side of the square in pixels.
    batch_size : int
        Images of a batch, at least 1; the last one may have fewer.

    Yields
    ------
    torch.Tensor
        `(n, 3, size, size)`, float32, see `resize_image`.

    Raises
    ------
    ImageError
        If an image cannot be read: the first such in their order. Once the generator is closed or has raised, no thread
        runs any more.
    """
    load = lambda image: resize_image(read_image(image), size)  # noqa: E731
    pool = ThreadPoolExecutor(torch.get_num_threads(), thread_name_prefix="images")
    ahead = deque()  # one future an image
    try:
        n_asked = 0
        for start in range(0, len(images), batch_size):
            for image in images[n_asked : start + 3 * batch_size]:
                ahead.append(pool.submit(load, image))
            n_asked = start + 3 * batch_size
            n = min(batch_size, len(ahead))
            yield torch.stack([ahead.popleft().result() for _ in range(n)])  # (n, 3, size, size)
    finally:
        pool.shutdown(cancel_futures=True)
