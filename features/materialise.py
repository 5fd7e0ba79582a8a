"""Fill the online store from the offline files, in a process of its own: `python -m features.materialise`.

Feast with DuckDB takes hundreds of megabytes and seconds to import; who publishes need not keep them.
"""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path

from features.store import FeatureStore, StoreSettings


def main(directory: str, at: str) -> None:
    """Materialise the store in `directory` as of `at`, a time in ISO form."""
    store = FeatureStore(StoreSettings.load(Path(directory)))
    store.materialise(datetime.fromisoformat(at))
    store.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
