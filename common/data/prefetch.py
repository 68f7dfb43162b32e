"""Preparing the next training batch while the current one is trained on."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

from common.colorizer import Batch
from common.data.batches import Gathered, TrainingData


class Prefetcher:
    """The batches of one shard of a run; the next step's photographs are gathered by a thread in the background.

    `get(step)` returns exactly what `data.batch(step, shard, shards)` returns. Asking for another step than the next
    is allowed and costs one gather that was in vain. Close it, or use it in a `with` statement.

    Args:
        data: the batches of the run.
        shard, shards: as `TrainingData.batch` takes them.
        start_step: the first step that will be asked for.
    """

    def __init__(self, data: TrainingData, shard: int = 0, shards: int = 1, start_step: int = 0) -> None:
        self._data, self._shard, self._shards = data, shard, shards
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="prefetch")
        self._request(start_step)

    def get(self, step: int) -> Batch:
        """The shard of a step, on the device. Raises whatever gathering it raised."""
        if step != self._step:
            self._next.cancel()
            self._request(step)
        gathered = self._next.result()
        self._request(step + 1)
        return self._data.augmented(gathered)

    def close(self) -> None:
        """Stop the thread once its current gather is done. `get` must not be called afterwards."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _request(self, step: int) -> None:
        self._step = step
        self._next: Future[Gathered] = self._thread.submit(self._data.gather, step, self._shard, self._shards)

    def __enter__(self) -> Prefetcher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
