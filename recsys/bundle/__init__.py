"""The bundle: everything a recommender needs in one directory, without the training data.

    <name>@<hash8>/
      manifest.json        what it is: versions, sizes, metrics, sha256 and size of every file
      config.yaml          the model's configuration
      model.safetensors    its tensors
      items.parquet        item_id, item (dense index) and attributes
      popularity.npy       training events per item, int64 [n_items + 1]
      users.parquet        user_id, row = dense index                            (optional)
      recent/              the newest events of every user, a SequenceStore      (with users)
      seen/                the items of all events of every user, the same       (with users)
      text/                what places a new item by its texts                   (models that read them)
      index/               item vectors and their search structure               (encoder models)
      playlists/           the lists of those users by their vectors             (by a setting)

Nothing in it is pickled. The version (hash8) is the start of a sha256 over the names and hashes of
the files and over the rules by which it answers (`RULES`), so what answers alike has one version, and
what does not has another. Loading verifies every byte that it then reads.
"""

from __future__ import annotations

from recsys.bundle.layout import BASKET_MINUTES
from recsys.bundle.load import load_bundle, read_config
from recsys.bundle.parts import Bundle
from recsys.bundle.write import newest, write_bundle

__all__ = ["BASKET_MINUTES", "Bundle", "load_bundle", "newest", "read_config", "write_bundle"]
