"""Loading of the next training batch during the current step."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

from common.colorizer import Batch
from common.data.batches import Gathered, TrainingData


class Prefetcher:
    """Training batches for which a thread in the background gathers the photographs of the next step.

    `batch` takes and returns exactly what `TrainingData.batch` does. Steps may be requested in any order; one that does
    not follow the last step of its shard is gathered in the foreground.
    """

    def __init__(self, data: TrainingData) -> None:
        self._data = data
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="prefetch")
        self._next: dict[int, tuple[int, Future[Gathered]]] = {}  # shard -> (step, its photographs)

    def batch(self, step: int, shard: int = 0, shards: int = 1) -> Batch:
        """Shard `shard` of `shards` of the batch of step `step`, on the device. Raises what gathering it raised."""
        gathered_step, future = self._next.pop(shard, (None, None))
        gathered = future.result() if gathered_step == step else self._data.gather(step, shard, shards)
        self._next[shard] = step + 1, self._thread.submit(self._data.gather, step + 1, shard, shards)
        return self._data.augmented(gathered)

    def close(self) -> None:
        """Stop the thread after the batch that it is loading. `batch` must not be called afterwards."""
        self._thread.shutdown(cancel_futures=True)
